//! MinIO over a local folder, for the full tier.

use std::process::Command;

use anyhow::Result;

use crate::process::Process;
use crate::s3::{Credentials, S3};
use crate::scratch::Scratch;
use crate::{part, port};

#[derive(Debug)]
pub struct Minio {
    // First, so that the server has ended before its folder goes.
    _process: Process,
    endpoint: String,
    _scratch: Scratch,
}

impl Minio {
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let port = port::free()?;
        let mut command = Command::new(part::built("minio/minio")?);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")])
            .arg("--certs-dir")
            .arg(scratch.dir("certs")?)
            .arg(scratch.dir("data")?)
            .envs([
                ("MINIO_ROOT_USER", Credentials::TEST.key),
                ("MINIO_ROOT_PASSWORD", Credentials::TEST.secret),
                ("MINIO_BROWSER", "off"),
                ("MINIO_UPDATE", "off"),
            ]);
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut process = Process::start("minio", &mut command, scratch.path())?;
        let client = S3::new(&endpoint, Credentials::TEST)?;
        process.wait_ready(|_| client.create_bucket("ready").is_ok())?;
        Ok(Self { _process: process, endpoint, _scratch: scratch })
    }

    pub fn client(&self) -> Result<S3> {
        S3::new(&self.endpoint, Credentials::TEST)
    }
}
