//! Which epochs' keys are being destroyed: marked in the state before a key goes, until the ledger
//! says that it went. Whoever finds a mark finishes what was begun.

use tidegate_kit::state::{Revisions, StateStore};

use super::KeyringError;

/// Where the marks lie.
const MARKS: &str = "retired";

pub(crate) struct Retired {
    store: StateStore,
    /// Under which marks are made, so that nobody else makes the ledger speak of an epoch.
    key: [u8; 32],
}

impl Retired {
    pub(crate) fn new(revisions: &Revisions) -> Self {
        Self {
            store: revisions.store().clone(),
            key: revisions.derive("tidegate/v1 marks of retired epochs"),
        }
    }

    /// Durable when this returns.
    pub(super) async fn mark(&self, epoch: u32) -> Result<(), KeyringError> {
        // Every mark of an epoch is the same, whoever made it.
        let _ = self.store.create(&path(epoch), self.mac(epoch)).await?;
        Ok(())
    }

    pub(super) async fn unmark(&self, epoch: u32) -> Result<(), KeyringError> {
        Ok(self.store.delete(&path(epoch)).await?)
    }

    pub(super) async fn marked(&self) -> Result<Vec<u32>, KeyringError> {
        let mut marked = Vec::new();
        for name in self.store.list(MARKS).await? {
            let Ok(epoch) = name.parse::<u32>() else { continue };
            match self.store.read(&path(epoch)).await? {
                Some(mark) if mark == self.mac(epoch) => marked.push(epoch),
                Some(_) => tracing::warn!(epoch, "a mark of an epoch is not ours: passed over"),
                // Taken away meanwhile, by another replica.
                None => {}
            }
        }
        Ok(marked)
    }

    fn mac(&self, epoch: u32) -> String {
        blake3::keyed_hash(&self.key, &epoch.to_be_bytes()).to_hex().to_string()
    }
}

fn path(epoch: u32) -> String {
    format!("{MARKS}/{epoch}")
}
