//! The thread that ends an attachment's keys when their time is over.

use std::io;
use std::sync::Arc;
use std::thread;

use tidegate_kit::clock::sleep_until;
use tokio::sync::mpsc::UnboundedSender;

use super::turn::Turn;
use crate::keys::KeyRing;

/// Watches a ring from a thread of its own, which sleeps by the boot clock and needs nobody else to get
/// on. Once the ring's life is past it destroys the keys there and then, and says why.
pub(super) fn watch(ring: Arc<KeyRing>, turns: UnboundedSender<Turn>) -> io::Result<()> {
    let watching = move || {
        while !ring.is_destroyed() {
            if let Some(past) = ring.life().past() {
                ring.destroy();
                let _already_leaving = turns.send(Turn::Past(past));
                return;
            }
            sleep_until(ring.life().until());
        }
    };
    thread::Builder::new().name("deadman".into()).spawn(watching).map(drop)
}
