//! The offline verifier: a copied ledger against its key and any checkpoints that left the house.

use crate::{Checkpoint, Digest, Fault, Ledger, VerifierKey, Why};

/// What a copy of the log is worth.
#[derive(Debug)]
pub struct Report {
    /// Entries that hold, counted from the first.
    pub size: u64,
    /// Root over those entries.
    pub root: Digest,
    /// Newest signed head over exactly those entries; `None` when nothing holds.
    pub checkpoint: Option<String>,
    /// Known checkpoints that the log agrees with.
    pub agreed: usize,
    /// What does not hold, lowest entry first. Empty: the whole copy verifies.
    pub faults: Vec<Fault>,
}

impl Report {
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Verifies stored batches, given as (name, bytes) in any order.
///
/// `key` is the ledger's first key; rotations are followed. `known` are signed checkpoints that
/// left the gateway: without one, a tail that was cut cleanly cannot be told from a shorter log.
/// After a broken batch nothing further can be judged, so that is where reading stops; known
/// checkpoints are still held against what came before.
pub fn verify<N, B, C>(batches: &[(N, B)], key: &VerifierKey, known: &[C]) -> Report
where
    N: AsRef<str>,
    B: AsRef<[u8]>,
    C: AsRef<str>,
{
    let mut ordered: Vec<_> = batches.iter().map(|(n, b)| (n.as_ref(), b.as_ref())).collect();
    ordered.sort_unstable_by_key(|(name, _)| *name);
    let mut ledger = Ledger::new(key.clone());
    let mut faults = Vec::new();
    for (name, bytes) in ordered {
        if let Err(fault) = ledger.accept_stored(name, bytes) {
            faults.push(fault);
            break;
        }
    }
    let agreed = compare(&ledger, known, &mut faults);
    faults.sort_by_key(|fault| fault.first);
    Report {
        size: ledger.size(),
        root: ledger.root(),
        checkpoint: ledger.checkpoint().map(str::to_owned),
        agreed,
        faults,
    }
}

/// Holds the known checkpoints against the log and returns how many agree.
fn compare<C: AsRef<str>>(ledger: &Ledger, known: &[C], faults: &mut Vec<Fault>) -> usize {
    let broken = !faults.is_empty();
    let mut agreed_sizes = Vec::new();
    let mut forks = Vec::new();
    for note in known {
        let checkpoint = match open_any(note.as_ref(), ledger.keys()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                let size = ledger.size();
                faults.push(Fault::within(size, size, Why::Known(error)));
                continue;
            }
        };
        match ledger.tree().root_at(checkpoint.size) {
            Some(root) if root == checkpoint.root => agreed_sizes.push(checkpoint.size),
            Some(_) => forks.push(checkpoint.size),
            // A broken log is shorter than it was; its first fault already says where.
            None if broken => {}
            None => {
                let size = ledger.size();
                faults.push(Fault::within(size, size, Why::Cut { known: checkpoint.size }));
            }
        }
    }
    // The two histories part after the largest size they agree on and before the forked one.
    for size in forks {
        let below = agreed_sizes.iter().copied().filter(|agreed| *agreed < size).max();
        faults.push(Fault::within(below.unwrap_or(0), size, Why::Fork { known: size }));
    }
    agreed_sizes.len()
}

/// A known checkpoint may be older than a rotation, so every key of the log counts.
fn open_any(note: &str, keys: &[VerifierKey]) -> Result<Checkpoint, crate::CheckpointError> {
    let mut last = crate::CheckpointError::Malformed;
    for key in keys.iter().rev() {
        match Checkpoint::open(note, key) {
            Ok(checkpoint) => return Ok(checkpoint),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests;
