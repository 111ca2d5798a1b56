//! Who changed a file since a version of it was last at home. A close by somebody who did not is no reason to
//! bring home what is half written: every child that a job forks between two writes, and be it to call
//! another program, closes what it inherited.

use std::fs;

/// Threads that are remembered; with more, anybody may have changed the file.
const MOST: usize = 8;

/// Threads that changed a file and their processes, as the kernel numbers them for whoever mounted. A thread's
/// process is found out when it writes: later its number may be another's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writers {
    known: Vec<(u32, u32)>,
    /// One could not be told, or there were too many.
    anybody: bool,
}

impl Writers {
    pub(super) fn anybody() -> Self {
        Self { known: Vec::new(), anybody: true }
    }

    /// Who changed the file cannot be told.
    pub(super) fn are_unknown(&self) -> bool {
        self.anybody
    }

    /// `process_of` finds a thread's process.
    pub(super) fn changed_by(&mut self, thread: u32, process_of: impl Fn(u32) -> Option<u32>) {
        if self.anybody || self.known.iter().any(|(known, _)| *known == thread) {
            return;
        }
        // Zero: somebody whom the kernel has no number for here, such as a mapping that is written back.
        match process_of(thread) {
            Some(process) if thread != 0 => self.add(thread, process),
            _ => self.anybody = true,
        }
    }

    fn add(&mut self, thread: u32, process: u32) {
        if self.known.len() == MOST {
            self.anybody = true;
        } else {
            self.known.push((thread, process));
        }
    }

    /// What these changed is to be brought home with what those did.
    pub(super) fn join(&mut self, others: &Self) {
        self.anybody |= others.anybody;
        for (thread, process) in &others.known {
            if !self.known.iter().any(|(known, _)| known == thread) {
                self.add(*thread, *process);
            }
        }
    }

    /// Whether the process of that thread may have changed the file. Where nobody is known to have, or its
    /// process is not, it may.
    pub(super) fn may_be(&self, thread: u32, process_of: impl Fn(u32) -> Option<u32>) -> bool {
        if self.anybody || self.known.is_empty() {
            return true;
        }
        if self.known.iter().any(|(known, _)| *known == thread) {
            return true;
        }
        let Some(process) = process_of(thread) else { return true };
        self.known.iter().any(|(_, writer)| *writer == process)
    }
}

/// The process of a thread that lives, by `/proc` (`proc_pid_status(5)`).
pub(super) fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads 10 to 19 are of process 10, and so on; those from 90 on have ended.
    fn tens(thread: u32) -> Option<u32> {
        (thread < 90).then_some(thread / 10 * 10)
    }

    fn writers(threads: impl IntoIterator<Item = u32>) -> Writers {
        let mut writers = Writers::default();
        threads.into_iter().for_each(|thread| writers.changed_by(thread, tens));
        writers
    }

    #[test]
    fn only_a_process_that_is_known_to_be_another_is_told_from_the_writers() {
        let written = writers([11, 12, 11, 25]);
        for (thread, may) in [(12, true), (13, true), (20, true), (30, false), (95, true)] {
            assert_eq!(written.may_be(thread, tens), may, "{thread}");
        }
        assert!(writers([11, 95]).may_be(30, tens));
        assert!(writers([11, 0]).may_be(30, tens));
        assert!(writers([]).may_be(30, tens));
        assert!(!writers(10..18).may_be(30, tens));
        assert!(writers(10..19).may_be(30, tens));
        // The number of a thread that has ended may be another's by now.
        let reused = |thread: u32| Some(if thread == 11 { 30 } else { thread / 10 * 10 });
        assert!(written.may_be(10, reused));
        let mut both = writers([11]);
        both.join(&writers([21]));
        assert_eq!(both, writers([11, 21]));
        both.join(&Writers::anybody());
        assert!(both.may_be(30, tens));
    }

    #[test]
    fn the_kernel_tells_whose_thread_it_is() {
        let own = std::process::id();
        let thread = || u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let of_a_thread = std::thread::spawn(move || (thread(), process_of(thread())));
        let (thread, process) = of_a_thread.join().unwrap();
        assert_eq!((process, process_of(own)), (Some(own), Some(own)));
        assert_ne!(thread, own);
        assert_eq!(process_of(u32::MAX), None);
    }
}
