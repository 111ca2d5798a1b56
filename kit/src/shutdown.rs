//! SIGINT and SIGTERM as a value that tasks wait for.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Which signal asked the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// The signal's number, as shells add it to 128.
    pub const fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

/// A view of whether the process was asked to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Option<Signal>>);

/// Asks for shutdown from inside the program.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Option<Signal>>);

impl Shutdown {
    /// A shutdown that only its trigger starts.
    pub fn manual() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(None);
        (Trigger(sender), Self(receiver))
    }

    /// Takes SIGINT and SIGTERM over for the process. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals() -> io::Result<(Trigger, Self)> {
        let (trigger, shutdown) = Self::manual();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let from_signals = trigger.clone();
        tokio::spawn(async move {
            loop {
                let got = tokio::select! {
                    Some(()) = interrupt.recv() => Signal::Interrupt,
                    Some(()) = terminate.recv() => Signal::Terminate,
                    else => return,
                };
                from_signals.request(got);
            }
        });
        Ok((trigger, shutdown))
    }

    /// The first signal, if one came.
    pub fn requested(&self) -> Option<Signal> {
        *self.0.borrow()
    }

    /// Waits for the first signal. Never returns once the trigger is gone without one.
    pub async fn wait(&mut self) -> Signal {
        // Taken out at once: the guard inside must not live across an await.
        let signal = self.0.wait_for(Option::is_some).await.ok().and_then(|signal| *signal);
        match signal {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

impl Trigger {
    /// Asks for shutdown; the first request stays.
    pub fn request(&self, signal: Signal) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            state.get_or_insert(signal);
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_request_stays() {
        let (trigger, mut shutdown) = Shutdown::manual();
        assert_eq!(shutdown.requested(), None);
        trigger.request(Signal::Interrupt);
        trigger.request(Signal::Terminate);
        assert_eq!(shutdown.wait().await, Signal::Interrupt);
        assert_eq!(shutdown.clone().wait().await.number(), 2);
    }

    #[tokio::test]
    async fn a_real_signal_is_seen() {
        let (_trigger, mut shutdown) = Shutdown::on_signals().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .unwrap();
        assert_eq!(shutdown.wait().await, Signal::Terminate);
    }
}
