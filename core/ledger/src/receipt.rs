use crate::{
    Checkpoint, CheckpointError, Digest, Entry, EntryError, VerifierKey, leaf_hash,
    verify_inclusion,
};

/// Longest inclusion path that is looked at: a tree has fewer than 2^64 leaves.
const MAX_PROOF: usize = 64;

/// Proof that an entry is in the log under a signed head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The entry's exact canonical text.
    pub entry: String,
    pub index: u64,
    /// RFC 6962 inclusion path.
    pub proof: Vec<Digest>,
    /// Signed note.
    pub checkpoint: String,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    #[error("the receipt's checkpoint")]
    Checkpoint(#[from] CheckpointError),
    #[error("the receipt's entry")]
    Entry(#[from] EntryError),
    #[error("the receipt does not prove that its entry is in the ledger")]
    NotIncluded,
}

impl Receipt {
    /// See [`verify_receipt`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(Entry, Checkpoint), ReceiptError> {
        verify_receipt(key, &self.entry, self.index, &self.proof, &self.checkpoint)
    }
}

/// Checks a receipt as it came over the wire: signature, inclusion, and that the entry says the
/// index it was proved at. Returns what is now known; whether it says the right thing is the
/// caller's question.
pub fn verify_receipt<H: AsRef<[u8]>>(
    key: &VerifierKey,
    entry: &str,
    index: u64,
    proof: &[H],
    checkpoint: &str,
) -> Result<(Entry, Checkpoint), ReceiptError> {
    let checkpoint = Checkpoint::open(checkpoint, key)?;
    if proof.len() > MAX_PROOF {
        return Err(ReceiptError::NotIncluded);
    }
    let proof = proof
        .iter()
        .map(|step| <[u8; 32]>::try_from(step.as_ref()).map(Digest::from_bytes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| ReceiptError::NotIncluded)?;
    let leaf = leaf_hash(entry.as_bytes());
    let parsed = Entry::parse(entry)?;
    if parsed.index != index
        || !verify_inclusion(&leaf, index, checkpoint.size, &proof, &checkpoint.root)
    {
        return Err(ReceiptError::NotIncluded);
    }
    Ok((parsed, checkpoint))
}
