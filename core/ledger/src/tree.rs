//! The RFC 6962 Merkle tree: hashes, roots and proofs.

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let hash = Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize();
    Digest::from_bytes(hash.into())
}

fn empty_root() -> Digest {
    Digest::from_bytes(Sha256::digest([]).into())
}

/// All hashes of complete subtrees, in memory: 64 bytes an entry.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// `levels[k][i]` covers leaves `i·2^k .. (i+1)·2^k`.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends a leaf and returns its index.
    pub fn append(&mut self, leaf: Digest) -> u64 {
        let index = self.size();
        let mut node = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(node);
            if row.len() % 2 == 1 {
                break;
            }
            node = node_hash(&row[row.len() - 2], &row[row.len() - 1]);
        }
        index
    }

    pub fn leaf(&self, index: u64) -> Option<Digest> {
        let index = usize::try_from(index).ok()?;
        self.levels.first()?.get(index).copied()
    }

    /// Hash over the complete subtree of leaves `index·2^height .. (index+1)·2^height`.
    pub(crate) fn complete(&self, height: u32, index: u64) -> Option<Digest> {
        let row = self.levels.get(height as usize)?;
        row.get(usize::try_from(index).ok()?).copied()
    }

    pub fn root(&self) -> Digest {
        self.subtree(0, self.size())
    }

    /// The root when the log held its first `size` entries.
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        (size <= self.size()).then(|| self.subtree(0, size))
    }

    /// The root that appending `leaves` would give.
    pub fn root_with(&self, leaves: &[Digest]) -> Digest {
        // Complete subtrees of the right edge, largest first, with their heights.
        let mut edge: Vec<(u32, Digest)> = Vec::new();
        let (size, mut at) = (self.size(), 0);
        for height in (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1) {
            edge.push((height, self.subtree(at, at + (1 << height))));
            at += 1 << height;
        }
        for leaf in leaves {
            let (mut height, mut node) = (0, *leaf);
            while let Some((_, left)) = edge.pop_if(|(other, _)| *other == height) {
                node = node_hash(&left, &node);
                height += 1;
            }
            edge.push((height, node));
        }
        let nodes = edge.into_iter().map(|(_, node)| node).rev();
        nodes.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }

    /// PATH(index, D[size]) of RFC 6962 §2.1.1; `None` unless index < size ≤ the tree's size.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Option<Vec<Digest>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut first, mut end) = (0, size);
        let mut proof = Vec::new();
        while end - first > 1 {
            let middle = first + split(end - first);
            if index < middle {
                proof.push(self.subtree(middle, end));
                end = middle;
            } else {
                proof.push(self.subtree(first, middle));
                first = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// PROOF(old, D[new]) of RFC 6962 §2.1.2; `None` unless 0 < old ≤ new ≤ the tree's size.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Option<Vec<Digest>> {
        if old == 0 || old > new || new > self.size() {
            return None;
        }
        let (mut first, mut end) = (0, new);
        let mut proof = Vec::new();
        while end != old {
            let middle = first + split(end - first);
            if old <= middle {
                proof.push(self.subtree(middle, end));
                end = middle;
            } else {
                proof.push(self.subtree(first, middle));
                first = middle;
            }
        }
        if first > 0 {
            proof.push(self.subtree(first, end));
        }
        proof.reverse();
        Some(proof)
    }

    /// MTH(D[first:end]); the range is one that the recursion of RFC 6962 visits.
    fn subtree(&self, first: u64, end: u64) -> Digest {
        let len = end - first;
        if len == 0 {
            return empty_root();
        }
        if len.is_power_of_two() {
            let height = len.trailing_zeros();
            return self
                .complete(height, first >> height)
                .expect("a complete subtree inside the tree was stored when it filled");
        }
        let middle = first + split(len);
        node_hash(&self.subtree(first, middle), &self.subtree(middle, end))
    }
}

/// The largest power of two below `len`; `len` > 1.
fn split(len: u64) -> u64 {
    1 << (u64::BITS - 1 - (len - 1).leading_zeros())
}

/// RFC 9162 §2.1.3.2.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut node) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            node = node_hash(step, &node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && node == *root
}

/// RFC 9162 §2.1.4.2: the tree of `new` entries has the tree of `old` entries as its beginning.
pub fn verify_consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> bool {
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 || old > new {
        return false;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_node, mut new_node) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_node = node_hash(step, &old_node);
            new_node = node_hash(step, &new_node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_node = node_hash(&new_node, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_node == *old_root && new_node == *new_root
}

#[cfg(test)]
mod tests;
