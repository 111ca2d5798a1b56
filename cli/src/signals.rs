//! The signals that end us, one at a time, for as long as we live.

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGHUP and SIGQUIT. Needs a running runtime.
    pub(crate) fn listen() -> Result<Self> {
        let (sender, receiver) = mpsc::channel(8);
        for (kind, name) in [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::quit(), Signal::QUIT),
        ] {
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

/// 128 + the signal's number, as shells put it.
pub(crate) fn exit_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(255)
}
