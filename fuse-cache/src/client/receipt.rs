//! What we know of the gateway's ledger, and whether its answers agree with it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_ledger::{Digest, Event, VerifierKey, verify_receipt};
use tidegate_wire::Receipt;

use super::ClientError;

/// An answer older than this is dropped.
const STALE: u64 = 10;

pub(super) struct Ledger {
    key: VerifierKey,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Size and root of the newest head.
    head: Option<(u64, Digest)>,
    /// The gateway's clock at a time of ours.
    clock: (u64, Duration),
}

impl Ledger {
    /// `time` is what the gateway's clock has just said, seconds since the epoch.
    pub(super) fn new(key: &str, time: u64) -> Result<Self, ClientError> {
        let key = VerifierKey::parse(key)
            .map_err(|why| ClientError::Untrusted(format!("the join file's ledger key: {why}")))?;
        let seen = Seen { head: None, clock: (time, boottime()) };
        Ok(Self { key, seen: Mutex::new(seen) })
    }

    /// Refuses an answer that was made more than ten seconds ago by the gateway's clock.
    pub(super) fn check_time(&self, time: u64) -> Result<(), ClientError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, at) = seen.clock;
        let now = boottime();
        if time + STALE < then + now.saturating_sub(at).as_secs() {
            return Err(ClientError::Untrusted("the answer is an old one".into()));
        }
        seen.clock = (time, now);
        Ok(())
    }

    /// Checks that the entry is in the ledger under a head signed with the join file's key, that
    /// it says what it should, and that the head is no fork of one seen before.
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
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.head {
            Some((size, root)) if size == head.size && root != head.root => {
                Err(ClientError::Untrusted("the ledger has two heads of one size".into()))
            }
            Some((size, _)) if size > head.size => Ok(()),
            _ => {
                seen.head = Some((head.size, head.root));
                Ok(())
            }
        }
    }
}
