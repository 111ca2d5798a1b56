//! The offline verifier: a copied ledger against its key and any checkpoints that left the house.

use crate::{Checkpoint, Digest, Fault, Ledger, Predecessor, VerifierKey, Why};

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
    /// The ledger that this one follows, as it says itself.
    pub after: Option<Predecessor>,
    /// Stored batches behind the head at which the next ledger took over: no part of this one.
    pub beyond: usize,
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
    judge(batches, key, known, None)
}

/// The same of a ledger that was followed by another after a restore: it ends at the head that the
/// other [found](Predecessor::found), must reach it, and what lies behind is not judged.
pub fn verify_followed<N, B, C>(
    batches: &[(N, B)],
    key: &VerifierKey,
    known: &[C],
    found: &Checkpoint,
) -> Report
where
    N: AsRef<str>,
    B: AsRef<[u8]>,
    C: AsRef<str>,
{
    judge(batches, key, known, Some(found))
}

fn judge<N, B, C>(
    batches: &[(N, B)],
    key: &VerifierKey,
    known: &[C],
    found: Option<&Checkpoint>,
) -> Report
where
    N: AsRef<str>,
    B: AsRef<[u8]>,
    C: AsRef<str>,
{
    let mut ordered: Vec<_> = batches.iter().map(|(n, b)| (n.as_ref(), b.as_ref())).collect();
    ordered.sort_unstable_by_key(|(name, _)| *name);
    let mut ledger = Ledger::new(key.clone());
    let mut faults = Vec::new();
    let mut beyond = 0;
    for (name, bytes) in ordered {
        if found.is_some_and(|found| ledger.size() >= found.size) {
            beyond += 1;
            continue;
        }
        if let Err(fault) = ledger.accept_stored(name, bytes) {
            faults.push(fault);
            break;
        }
    }
    let broken = !faults.is_empty();
    let mut heads: Vec<_> = found.into_iter().cloned().collect();
    for note in known {
        let size = ledger.size();
        match open_any(note.as_ref(), ledger.keys()) {
            Ok(checkpoint) => heads.push(checkpoint),
            Err(error) => faults.push(Fault::within(size, size, Why::Known(error))),
        }
    }
    let agreed = compare(&ledger, &heads, broken, &mut faults);
    let found = found.filter(|found| ledger.tree().root_at(found.size) == Some(found.root));
    faults.sort_by_key(|fault| fault.first);
    Report {
        size: ledger.size(),
        root: ledger.root(),
        checkpoint: ledger.checkpoint().map(str::to_owned),
        agreed: agreed - usize::from(found.is_some()),
        after: ledger.after().cloned(),
        beyond,
        faults,
    }
}

/// Holds known heads against the log and returns how many agree.
fn compare(ledger: &Ledger, known: &[Checkpoint], broken: bool, faults: &mut Vec<Fault>) -> usize {
    let mut agreed_sizes = Vec::new();
    let mut forks = Vec::new();
    for checkpoint in known {
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
