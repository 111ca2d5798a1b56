//! What the async side and the holder's own dead-man's switch may do to the worker of the moment.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::control::{Control, ToWorker};

/// How long after its time a worker may take to give up its keys and say so, before it is ended.
const MARGIN: Duration = Duration::from_secs(3);

/// What the async side may do to the worker of the moment.
#[derive(Debug, Default)]
pub(super) struct Link(Mutex<LinkState>);

#[derive(Debug, Default)]
struct LinkState {
    control: Option<Arc<Control>>,
    pid: Option<u32>,
    wiping: bool,
    aborted: bool,
    /// Until when on the boot clock the worker said that reads are answered.
    serves_until: Option<Duration>,
    /// The worker did not stop in time.
    overdue: bool,
}

impl Link {
    pub(super) fn wipe(&self) {
        let mut state = self.lock();
        state.wiping = true;
        if let Some(control) = &state.control {
            // A worker that is gone is replaced by one that is told to wipe at once.
            let _gone = control.send(&ToWorker::Wipe, &[]);
        }
    }

    /// Asks the worker for its figures; false when there is none.
    pub(super) fn measure(&self) -> bool {
        let control = self.lock().control.clone();
        control.is_some_and(|control| control.send(&ToWorker::Measure, &[]).is_ok())
    }

    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = true;
        if let Some(pid) = state.pid {
            kill(pid);
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.lock().pid
    }

    /// Ends a worker that should have given up its keys by now and has not said that it did: one that
    /// is stopped, or hangs, or was killed and has no successor yet.
    pub(super) fn end_overdue(&self, now: Duration) {
        let mut state = self.lock();
        if state.serves_until.is_some_and(|until| now > until.saturating_add(MARGIN)) {
            state.overdue = true;
            if let Some(pid) = state.pid {
                kill(pid);
            }
        }
    }

    pub(super) fn serves(&self, until: Option<Duration>) {
        self.lock().serves_until = until;
    }

    pub(super) fn aborted(&self) -> bool {
        self.lock().aborted
    }

    pub(super) fn overdue(&self) -> bool {
        self.lock().overdue
    }

    /// Makes a started worker known, and passes on a wipe that was asked for before it was.
    pub(super) fn connect(&self, control: &Arc<Control>, pid: u32) -> io::Result<()> {
        let mut state = self.lock();
        state.control = Some(Arc::clone(control));
        state.pid = Some(pid);
        if state.aborted || state.overdue {
            kill(pid);
        }
        if state.wiping { control.send(&ToWorker::Wipe, &[]) } else { Ok(()) }
    }

    pub(super) fn disconnect(&self) {
        let mut state = self.lock();
        state.control = None;
        state.pid = None;
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only for a child that is not waited for yet.
fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _already_ended = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_overdue_when_it_has_not_said_that_it_stopped() {
        let time = Duration::from_secs;
        let link = Link::default();
        link.end_overdue(time(1000));
        assert!(!link.overdue(), "it never said that it serves");
        link.serves(Some(time(10)));
        link.end_overdue(time(10) + MARGIN);
        assert!(!link.overdue(), "it may be about to say so");
        link.serves(None);
        link.end_overdue(time(1000));
        assert!(!link.overdue(), "it said so");
        link.serves(Some(time(2000)));
        link.end_overdue(time(2001) + MARGIN);
        assert!(link.overdue());
    }
}
