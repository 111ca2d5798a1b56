//! Asks a daemon's listener for operators, over plain HTTP.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::part;

/// A listener for operators on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ops(pub u16);

impl Ops {
    /// Status and body of a path.
    pub fn get(self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// Status of a path; 0 when nobody answers.
    pub fn status(self, path: &str) -> u16 {
        self.get(path).map_or(0, |(status, _)| status)
    }

    /// All samples: name and labels as shown, and the value.
    pub fn metrics(self) -> Result<BTreeMap<String, f64>> {
        samples(&self.text()?)
    }

    /// The exposition as it is.
    pub fn text(self) -> Result<String> {
        let (status, text) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}");
        Ok(text)
    }
}

fn samples(text: &str) -> Result<BTreeMap<String, f64>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("{line:?}"))?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// Fails unless Prometheus' own tool finds nothing to say about an exposition.
pub fn promtool(exposition: &str) -> Result<()> {
    let mut command = Command::new(part::program("promtool")?);
    let mut child = command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no input")?.write_all(exposition.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {said}\n{exposition}");
    Ok(())
}
