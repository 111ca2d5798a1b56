//! What we know of the gateway's ledger, and whether its answers agree with it.

use std::sync::{Mutex, PoisonError};

use tidegate_ledger::{Digest, Event, VerifierKey, verify_receipt};
use tidegate_wire::Receipt;

use super::ClientError;

pub(super) struct Ledger {
    key: VerifierKey,
    /// Size and root of the newest head.
    head: Mutex<Option<(u64, Digest)>>,
}

impl Ledger {
    pub(super) fn new(key: &str) -> Result<Self, ClientError> {
        let key = VerifierKey::parse(key)
            .map_err(|why| ClientError::Untrusted(format!("the join file's ledger key: {why}")))?;
        Ok(Self { key, head: Mutex::new(None) })
    }

    /// Checks that the entry is in the ledger under a head signed with the join file's key, that
    /// it says what it should, and that no other head of the same size was seen before. That a larger
    /// head goes on from a smaller one is not proved here: an auditor sees it, who holds the log
    /// against the checkpoints that left.
    pub(super) fn check(
        &self,
        receipt: &Receipt,
        says: impl FnOnce(&Event) -> bool,
    ) -> Result<(), ClientError> {
        let Receipt { entry, index, proof, checkpoint } = receipt;
        let (entry, head) = verify_receipt(&self.key, entry, *index, proof, checkpoint)
            .map_err(|why| ClientError::Untrusted(format!("the ledger's receipt: {why}")))?;
        if !says(&entry.event) {
            return Err(ClientError::Untrusted("the ledger's entry says something else".into()));
        }
        let mut newest = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        match *newest {
            Some((size, root)) if size == head.size && root != head.root => {
                Err(ClientError::Untrusted("the ledger has two heads of one size".into()))
            }
            Some((size, _)) if size > head.size => Ok(()),
            _ => {
                *newest = Some((head.size, head.root));
                Ok(())
            }
        }
    }
}
