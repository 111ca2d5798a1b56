//! versitygw over a local folder: the everyday S3 server, with its access log.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::Process;
use crate::s3::{Credentials, S3};
use crate::scratch::Scratch;
use crate::{part, port};

#[derive(Debug)]
pub struct Versitygw {
    // First, so that the server has ended before its folder goes.
    _process: Process,
    endpoint: String,
    access_log: PathBuf,
    _scratch: Scratch,
}

impl Versitygw {
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let port = port::free()?;
        let access_log = scratch.join("access.log");
        let mut command = Command::new(part::built("versitygw/versitygw")?);
        command
            .args(["--access", Credentials::TEST.key, "--secret", Credentials::TEST.secret])
            .args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "--keep-alive"])
            .arg("--access-log")
            .arg(&access_log)
            .arg("posix")
            .arg("--versioning-dir")
            .arg(scratch.dir("versions")?)
            .arg(scratch.dir("data")?);
        let mut process = Process::start("versitygw", &mut command, scratch.path())?;
        process.wait_ready(|_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self {
            _process: process,
            endpoint: format!("http://127.0.0.1:{port}"),
            access_log,
            _scratch: scratch,
        })
    }

    pub fn client(&self) -> Result<S3> {
        S3::new(&self.endpoint, Credentials::TEST)
    }

    /// Requests it served so far, one a line.
    pub fn access_log(&self) -> String {
        fs::read_to_string(&self.access_log).unwrap_or_default()
    }
}
