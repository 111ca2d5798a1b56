//! Operations that may have to wait.

use std::future::Future;
use std::task::{Context, Waker};

use tokio::runtime::Handle;

/// Begins work on the FUSE thread and goes on with it in a task if it must wait, so that what needs
/// nobody else costs no change of threads, and what waits for home holds none.
#[derive(Clone, Debug)]
pub(super) struct Later(Handle);

impl Later {
    pub(super) fn new(runtime: Handle) -> Self {
        Self(runtime)
    }

    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        let _its_timers_are_the_runtimes = self.0.enter();
        // Nobody is woken by this first look: the task that takes over looks again at once.
        let mut context = Context::from_waker(Waker::noop());
        if work.as_mut().poll(&mut context).is_pending() {
            self.0.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn what_need_not_wait_is_done_when_it_returns_and_the_rest_comes_later() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let later = Later::new(runtime.handle().clone());
        let (done, seen) = mpsc::channel();
        let here = thread::current().id();
        let now = done.clone();
        later.run(async move { now.send(thread::current().id()).unwrap() });
        assert_eq!(seen.try_recv(), Ok(here));

        let (open, opened) = tokio::sync::oneshot::channel();
        later.run(async move {
            let word: &str = opened.await.unwrap();
            assert_eq!(word, "open");
            done.send(thread::current().id()).unwrap();
        });
        assert!(seen.try_recv().is_err(), "it waits, and this thread does not");
        open.send("open").unwrap();
        assert_ne!(seen.recv().unwrap(), here);
    }
}
