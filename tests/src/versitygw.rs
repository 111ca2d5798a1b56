//! versitygw over a local folder: the everyday S3 server, with its access log.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;
use rustix::process::Signal;

use crate::process::Process;
use crate::s3::{Credentials, S3};
use crate::scratch::Scratch;
use crate::{part, port};

#[derive(Debug)]
pub struct Versitygw {
    // First, so that the server has ended before its folder goes.
    process: Process,
    /// Words before the program.
    words: Vec<String>,
    port: u16,
    endpoint: String,
    access_log: PathBuf,
    scratch: Scratch,
}

impl Versitygw {
    pub fn start() -> Result<Self> {
        Self::start_in(&[])
    }

    /// The same behind words that run a program elsewhere, such as those of a namespace.
    pub fn start_in(words: &[String]) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.dir("versions")?;
        scratch.dir("data")?;
        let port = port::free()?;
        Ok(Self {
            process: Self::launch(words, &scratch, port)?,
            words: words.to_vec(),
            port,
            endpoint: format!("http://127.0.0.1:{port}"),
            access_log: scratch.join("access.log"),
            scratch,
        })
    }

    fn launch(words: &[String], scratch: &Scratch, port: u16) -> Result<Process> {
        let program = part::built("versitygw/versitygw")?;
        let mut command = match words.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(part::program(first)?);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .args(["--access", Credentials::TEST.key, "--secret", Credentials::TEST.secret])
            .args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "--keep-alive"])
            .arg("--access-log")
            .arg(scratch.join("access.log"))
            .arg("posix")
            .arg("--versioning-dir")
            .arg(scratch.join("versions"))
            .arg(scratch.join("data"));
        let mut process = Process::start("versitygw", &mut command, scratch.path())?;
        let mut probe = words.to_vec();
        probe.extend(["bash".into(), "-c".into(), format!(": < /dev/tcp/127.0.0.1/{port}")]);
        process.wait_ready(|_| {
            let tried = Command::new(&probe[0]).args(&probe[1..]).stderr(Stdio::null()).status();
            tried.is_ok_and(|status| status.success())
        })?;
        Ok(process)
    }

    /// Away, as after a power cut; what it holds stays.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::KILL)?;
        Ok(())
    }

    /// Back under the same address, with what it held.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Self::launch(&self.words, &self.scratch, self.port)?;
        Ok(())
    }

    pub fn client(&self) -> Result<S3> {
        S3::new(&self.endpoint, Credentials::TEST)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder in which it keeps a bucket's objects as files.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.scratch.join("data").join(name)
    }

    /// Requests it served so far, one a line.
    pub fn access_log(&self) -> String {
        fs::read_to_string(&self.access_log).unwrap_or_default()
    }
}
