//! The thread that ends an attachment's keys when their time is over.

use std::io;
use std::sync::Arc;
use std::thread;

use tidegate_kit::clock::sleep_until;
use tokio::sync::mpsc::UnboundedSender;

use super::turn::Turn;
use crate::keys::KeyRing;
use crate::life::Past;

/// Watches a ring from a thread of its own, which sleeps by the boot clock and needs nobody else to get
/// on. Once the ring's life is past it destroys the keys there and then, and says why; after the grace it
/// says once more when the deadline has come, since what a job wrote lives until then.
pub(super) fn watch(ring: Arc<KeyRing>, turns: UnboundedSender<Turn>) -> io::Result<()> {
    let watching = move || {
        while !ring.is_destroyed() {
            match ring.life().past() {
                None => sleep_until(ring.life().until()),
                Some(past) => {
                    ring.destroy();
                    let _already_leaving = turns.send(Turn::Past(past));
                    if past == Past::Grace {
                        sleep_until(ring.life().ends());
                        let _already_leaving = turns.send(Turn::Past(Past::Deadline));
                    }
                }
            }
        }
    };
    thread::Builder::new().name("deadman".into()).spawn(watching).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_kit::clock::{BootClock, boottime};
    use tokio::sync::mpsc;

    use super::*;
    use crate::keys::tests::terms;
    use crate::life::Life;

    #[tokio::test]
    async fn the_deadline_is_said_after_the_grace_too() {
        let (grace, left) = (Duration::from_millis(20), Duration::from_secs(3));
        let life = Life::new(BootClock::Real, boottime(), grace, left);
        let ring = Arc::new(KeyRing::new(&terms(), life));
        let (turns, mut said) = mpsc::unbounded_channel();
        watch(Arc::clone(&ring), turns).unwrap();
        for expected in [Past::Grace, Past::Deadline] {
            let turn = said.recv().await;
            assert!(matches!(turn, Some(Turn::Past(past)) if past == expected), "{expected:?}");
            assert!(ring.is_destroyed());
        }
        assert!(said.recv().await.is_none(), "nothing is said behind that");
    }
}
