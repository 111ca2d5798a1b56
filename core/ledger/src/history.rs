//! The ledger as a value: proposes batches, accepts batches, makes receipts.

use tidegate_plan::InstanceId;

use crate::{
    Batch, BatchError, Checkpoint, Digest, Entry, EntryError, Event, Fault, Predecessor, Receipt,
    SigningKey, Tree, VerifierKey, Why, batch_name, leaf_hash,
};

/// A replayed ledger: the tree and what the next batch must fit. Entries themselves are not kept.
#[derive(Clone, Debug)]
pub struct Ledger {
    origin: String,
    /// Signs the next batch; changes with [`Event::KeyRotated`].
    key: VerifierKey,
    /// Every key that ever signed, oldest first.
    keys: Vec<VerifierKey>,
    /// The ledger that this one follows.
    after: Option<Box<Predecessor>>,
    tree: Tree,
    time: u64,
    checkpoint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    #[error("a batch needs at least one event")]
    Empty,
    #[error("an event makes no entry")]
    Entry(#[from] EntryError),
    #[error("the events do not fit one batch")]
    Batch(#[from] BatchError),
    #[error("the key given is not the one the ledger is signed with now")]
    WrongKey,
    #[error("the events make a batch that the ledger itself refuses")]
    Refused(#[from] Fault),
}

impl Ledger {
    /// An empty ledger whose first key, and origin, is `key`.
    pub fn new(key: VerifierKey) -> Self {
        let origin = key.name().to_owned();
        let keys = vec![key.clone()];
        Self { origin, key, keys, after: None, tree: Tree::new(), time: 0, checkpoint: None }
    }

    /// Replays stored batches in order of name. `key` is the first key of the ledger.
    pub fn replay<N, B>(
        batches: impl IntoIterator<Item = (N, B)>,
        key: &VerifierKey,
    ) -> Result<Self, Fault>
    where
        N: AsRef<str>,
        B: AsRef<[u8]>,
    {
        let mut ledger = Self::new(key.clone());
        for (name, bytes) in batches {
            ledger.accept_stored(name.as_ref(), bytes.as_ref())?;
        }
        Ok(ledger)
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The ledger that this one follows after a restore.
    pub fn after(&self) -> Option<&Predecessor> {
        self.after.as_deref()
    }

    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Size and root under the ledger's name.
    pub fn head(&self) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: self.size(), root: self.root() }
    }

    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// Time of the last entry, seconds since the epoch; 0 when there is none.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Newest signed head; `None` while the ledger is empty.
    pub fn checkpoint(&self) -> Option<&str> {
        self.checkpoint.as_deref()
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The key that signs the next batch.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Every key that signed so far, oldest first.
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// Makes the batch that would follow. Times are max(`time`, last entry's time). Changes nothing:
    /// call [`accept`](Self::accept) once the batch is durable.
    pub fn propose(
        &self,
        events: impl IntoIterator<Item = Event>,
        time: u64,
        writer: InstanceId,
        key: &SigningKey,
    ) -> Result<Batch, ProposeError> {
        if *key.verifier() != self.key {
            return Err(ProposeError::WrongKey);
        }
        let first = self.size();
        let time = time.max(self.time);
        let entries = (first..)
            .zip(events)
            .map(|(index, event)| {
                Entry { v: Entry::VERSION, index, time, writer, event }.to_canonical()
            })
            .collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Err(ProposeError::Empty);
        }
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry.as_bytes())).collect();
        let size = first + entries.len() as u64;
        let checkpoint = Checkpoint::sign(size, self.tree.root_with(&leaves), key);
        let batch = Batch { checkpoint, entries, first, leaves };
        batch.to_bytes()?;
        self.check(&batch)?;
        Ok(batch)
    }

    /// Appends a stored batch after checking its name and every byte of it.
    pub fn accept_stored(&mut self, name: &str, bytes: &[u8]) -> Result<(), Fault> {
        let next = self.size();
        let batch = Batch::parse(bytes).map_err(|e| Fault::at(next, Why::Batch(e)))?;
        if batch.first == next && name != batch_name(next) {
            return Err(Fault::at(next, Why::Name(name.to_owned())));
        }
        self.accept(&batch)
    }

    /// Appends a batch after checking that it follows and holds together.
    pub fn accept(&mut self, batch: &Batch) -> Result<(), Fault> {
        let accepted = self.check(batch)?;
        for leaf in &batch.leaves {
            self.tree.append(*leaf);
        }
        self.time = accepted.time;
        self.after = self.after.take().or(accepted.after);
        self.checkpoint = Some(batch.checkpoint.clone());
        if let Some(key) = accepted.rotated {
            self.keys.push(key.clone());
            self.key = key;
        }
        Ok(())
    }

    /// The receipt of an entry against the newest checkpoint; `entry` must be its exact text.
    pub fn receipt(&self, index: u64, entry: String) -> Option<Receipt> {
        let checkpoint = self.checkpoint.clone()?;
        if self.tree.leaf(index)? != leaf_hash(entry.as_bytes()) {
            return None;
        }
        let proof = self.tree.inclusion_proof(index, self.size())?;
        Some(Receipt { entry, index, proof, checkpoint })
    }

    fn check(&self, batch: &Batch) -> Result<Accepted, Fault> {
        let next = self.size();
        if batch.first != next {
            return Err(Fault::at(next, Why::Order { says: batch.first }));
        }
        let mut accepted = Accepted { time: self.time, rotated: None, after: None };
        for (index, (text, leaf)) in (next..).zip(batch.entries.iter().zip(&batch.leaves)) {
            if leaf_hash(text.as_bytes()) != *leaf {
                return Err(Fault::at(index, Why::Leaf));
            }
            if accepted.rotated.is_some() {
                return Err(Fault::at(index - 1, Why::Rotation));
            }
            self.check_entry(index, text, &mut accepted).map_err(|why| Fault::at(index, why))?;
        }
        if batch.entries.is_empty() || batch.entries.len() != batch.leaves.len() {
            return Err(Fault::at(next, Why::Count));
        }
        let broken = |why| Fault::within(next, batch.end(), why);
        let checkpoint = Checkpoint::open(&batch.checkpoint, &self.key)
            .map_err(|e| broken(Why::Checkpoint(e)))?;
        if checkpoint.size != batch.end() {
            return Err(broken(Why::Size { says: checkpoint.size, end: batch.end() }));
        }
        if checkpoint.root != self.tree.root_with(&batch.leaves) {
            return Err(broken(Why::Root));
        }
        Ok(accepted)
    }

    fn check_entry(&self, index: u64, text: &str, accepted: &mut Accepted) -> Result<(), Why> {
        let entry = Entry::parse(text).map_err(Why::Entry)?;
        if entry.index != index {
            return Err(Why::Order { says: entry.index });
        }
        if entry.time < accepted.time {
            return Err(Why::Time);
        }
        accepted.time = entry.time;
        match &entry.event {
            Event::LedgerOpened { origin, after } if index == 0 && *origin == self.origin => {
                accepted.after.clone_from(after);
            }
            Event::LedgerOpened { .. } => return Err(Why::Opening),
            _ if index == 0 => return Err(Why::Opening),
            Event::KeyRotated { key } => {
                let key = VerifierKey::parse(key).map_err(|_| Why::Rotation)?;
                if key.name() != self.origin || self.keys.contains(&key) {
                    return Err(Why::Rotation);
                }
                accepted.rotated = Some(key);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a checked batch leaves behind.
struct Accepted {
    time: u64,
    rotated: Option<VerifierKey>,
    after: Option<Box<Predecessor>>,
}
