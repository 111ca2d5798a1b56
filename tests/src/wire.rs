//! What went over loopback, byte for byte.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::canary::Canary;
use crate::part;
use crate::process::{Process, wait_for};
use crate::scratch::Scratch;

/// What the kernel keeps for `tcpdump` until it is written: 512 MiB.
const RING_KIB: &str = "524288";

/// A running capture of all TCP on loopback.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    pub fn start(scratch: &Scratch) -> Result<Self> {
        let file = scratch.join("wire.pcap");
        let mut command = Command::new("nice");
        // Before everything else that runs, and with room for all that a test sends while the disk is busy: none is
        // dropped. On loopback the kernel keeps each packet twice.
        command.args(["-n", "-20"]).arg(part::program("tcpdump")?);
        command
            .args(["-i", "lo", "-s", "0", "-B", RING_KIB, "-U", "-Z", "root", "-w"])
            .arg(&file)
            .arg("tcp");
        let mut process = Process::start("tcpdump", &mut command, scratch.path())?;
        process.wait_ready(|process| process.log().contains("listening on"))?;
        Ok(Self { process, file })
    }

    /// Ends the capture once it has written all that was sent so far; the file it wrote.
    pub fn stop(mut self) -> Result<PathBuf> {
        let mark = Canary::new()?;
        // Others may send more than can be looked through between two looks: none of it is passed over.
        let mut written = File::open(&self.file)?;
        let mut seen = Vec::new();
        written.seek(SeekFrom::End(0))?;
        send(mark.bytes())?;
        wait_for("the capture to catch up", || {
            written.read_to_end(&mut seen).ok()?;
            let found = seen.windows(mark.bytes().len()).any(|part| part == mark.bytes());
            seen.drain(..seen.len().saturating_sub(mark.bytes().len()));
            found.then_some(())
        })?;
        self.process.stop(Signal::INT)?;
        let log = self.process.log();
        let is_whole = log.lines().any(|line| line == "0 packets dropped by kernel");
        ensure!(is_whole, "the capture is not whole:\n{log}");
        Ok(self.file)
    }
}

/// One small message over loopback.
fn send(message: &[u8]) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.write_all(message)?;
    let (mut peer, _) = listener.accept()?;
    drop(stream);
    io::copy(&mut peer, &mut io::sink())?;
    Ok(())
}
