//! Where a streaming block's frames go, and what it must wait for before it makes the next.

use bytes::Bytes;
use tokio::sync::mpsc::{self, OwnedPermit};

use super::budget::Budget;
use super::frame::Frame;
use super::job::{Frames, Sender, Torn};

/// Sealed frames that wait for the connection: one mebibyte.
const AHEAD: usize = 4;
/// Room to wait for before a sealing thread is taken again.
const WORTH_WHILE: usize = 3;

/// Room in the channel, and a buffer under the budget.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) room: OwnedPermit<Result<Bytes, Torn>>,
    pub(super) frame: Frame,
}

#[derive(Clone, Debug)]
pub(super) struct Outlet {
    sender: Sender,
    budget: Budget,
}

impl Outlet {
    pub(super) fn new(budget: &Budget) -> (Self, Frames) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        (Self { sender, budget: budget.clone() }, Frames(receiver))
    }

    /// Waits until it is worth while to go on; `None` when nobody listens any more.
    pub(super) async fn wait(&self) -> Option<Ready> {
        drop(self.sender.reserve_many(WORTH_WHILE).await.ok()?);
        let room = self.sender.clone().reserve_owned().await.ok()?;
        Some(Ready { room, frame: self.budget.frame().await })
    }

    /// `None` when there is something to wait for.
    pub(super) fn at_once(&self) -> Option<Ready> {
        let room = self.sender.clone().try_reserve_owned().ok()?;
        Some(Ready { room, frame: self.budget.try_frame()? })
    }
}
