//! The signals that end us, one at a time, for as long as we live.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGHUP and SIGQUIT. Needs a running runtime.
    ///
    /// One that was ignored when we were started (`nohup`, a script's background) is left alone: for us, and
    /// for the command, which inherits that.
    pub(crate) fn listen() -> Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let (sender, receiver) = mpsc::channel(8);
        for (kind, name) in [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::quit(), Signal::QUIT),
        ] {
            if ignored >> (name.as_raw() - 1) & 1 == 1 {
                continue;
            }
            let mut stream = signal(kind).context("cannot listen for signals")?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(name).await.is_ok() {}
            });
        }
        Ok(Self(receiver))
    }

    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// The ignored signals of `/proc/PID/status`, signal 1 in the lowest bit.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Twice within this is for a command that does not listen; later it is a new wish.
const INSISTS: Duration = Duration::from_secs(10);

/// What a command gets for the signals that we get.
#[derive(Debug, Default)]
pub(crate) struct Insisting {
    last: Option<Instant>,
}

impl Insisting {
    /// The signal itself, or SIGKILL when it is the second within a moment.
    pub(crate) fn heard(&mut self, signal: Signal, now: Instant) -> Signal {
        let insists = self.last.replace(now).is_some_and(|last| now - last < INSISTS);
        if insists { Signal::KILL } else { signal }
    }
}

/// 128 + the signal's number, as shells put it.
pub(crate) fn exit_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\tf\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn only_who_insists_kills() {
        let (mut insisting, begun) = (Insisting::default(), Instant::now());
        assert_eq!(insisting.heard(Signal::INT, begun), Signal::INT);
        let hour = begun + Duration::from_secs(3600);
        assert_eq!(insisting.heard(Signal::INT, hour), Signal::INT, "an hour later");
        assert_eq!(insisting.heard(Signal::TERM, hour + INSISTS / 2), Signal::KILL);
    }
}
