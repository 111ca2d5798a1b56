//! The block tree: a binary tree of keys whose leaves are block keys, and covers of ranges of it.

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::keys::{BlockKey, NodeKey};

/// Depth of the tree over that many blocks: ⌈log₂ max(blocks, 1)⌉, at most 32.
pub fn depth(blocks: u32) -> u8 {
    let bits = u32::BITS - blocks.saturating_sub(1).leading_zeros();
    u8::try_from(bits).expect("a u32 has at most 32 bits")
}

/// The bytes are not an encoded cover or release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed key cover or release")]
pub struct FormatError;

const VERSION: u8 = 1;
const MAX_DEPTH: u8 = 32;
const HEAD_LEN: usize = 1 + 1 + 4 + 4;
const NODE_LEN: usize = 32;

/// A subtree: its leaves are `height`-many levels below, the first of them `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subtree {
    first: u64,
    height: u8,
}

impl Subtree {
    fn end(self) -> u64 {
        self.first + (1 << self.height)
    }

    fn contains(self, block: u64) -> bool {
        (self.first..self.end()).contains(&block)
    }

    /// The largest subtrees that tile a range, in order: the one minimal decomposition.
    fn tiling(range: Range<u64>, depth: u8) -> impl Iterator<Item = Self> {
        let mut first = range.start;
        std::iter::from_fn(move || {
            let left = range.end.saturating_sub(first);
            let aligned = first.trailing_zeros();
            let fits = left.checked_ilog2()?;
            let height = u8::try_from(aligned.min(fits)).map_or(depth, |height| height.min(depth));
            let subtree = Self { first, height };
            first = subtree.end();
            Some(subtree)
        })
    }
}

/// The fewest node keys from which the keys of a range of blocks follow, and of no other block.
///
/// At most 2 × depth nodes (one for a tree of depth 0). Wiped when dropped.
pub struct Cover {
    depth: u8,
    range: Range<u32>,
    nodes: Vec<(Subtree, NodeKey)>,
}

impl NodeKey {
    /// The minimal cover of a range of blocks, taken as the root of a tree of that depth. A range
    /// that reaches past the tree's leaves is cut to them.
    pub fn cover(&self, depth: u8, range: Range<u32>) -> Cover {
        let depth = depth.min(MAX_DEPTH);
        let range = cut(depth, range);
        let whole = Subtree { first: 0, height: depth };
        let nodes = Subtree::tiling(wide(&range), depth)
            .map(|subtree| (subtree, self.descend(whole, subtree)))
            .collect();
        Cover { depth, range, nodes }
    }

    /// The key of a subtree of the one whose key this is.
    fn descend(&self, from: Subtree, to: Subtree) -> Self {
        let mut key = None;
        for height in (to.height..from.height).rev() {
            let parent = key.as_ref().unwrap_or(self);
            let child = if to.first >> height & 1 == 0 { parent.left() } else { parent.right() };
            key = Some(child);
        }
        key.unwrap_or_else(|| self.duplicate().into())
    }
}

/// Walk over the leaves of one subtree, left to right: what is still to be visited, last first.
struct Leaves(Vec<(u8, NodeKey)>);

impl Leaves {
    fn under(subtree: Subtree, key: &NodeKey) -> Self {
        Self(vec![(subtree.height, key.duplicate().into())])
    }
}

impl Iterator for Leaves {
    type Item = BlockKey;

    fn next(&mut self) -> Option<BlockKey> {
        let (mut height, mut key) = self.0.pop()?;
        while height > 0 {
            height -= 1;
            self.0.push((height, key.right()));
            key = key.left();
        }
        Some(key.leaf())
    }
}

/// A range within the leaves of a tree, start ≤ end.
fn cut(depth: u8, range: Range<u32>) -> Range<u32> {
    let leaves = u32::try_from(1u64 << depth).unwrap_or(u32::MAX);
    let end = range.end.min(leaves);
    range.start.min(end)..end
}

fn wide(range: &Range<u32>) -> Range<u64> {
    range.start.into()..range.end.into()
}

impl Cover {
    /// The blocks that this cover opens.
    pub fn range(&self) -> Range<u32> {
        self.range.clone()
    }

    /// Node keys held.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The key of a block; `None` outside the range.
    pub fn leaf(&self, block: u32) -> Option<BlockKey> {
        let leaf = Subtree { first: block.into(), height: 0 };
        let at = self.nodes.partition_point(|(subtree, _)| subtree.end() <= leaf.first);
        let (subtree, key) = self.nodes.get(at)?;
        subtree.contains(leaf.first).then(|| key.descend(*subtree, leaf).leaf())
    }

    /// Every block of the range with its key, in order: about two derivations a block, where
    /// [`Cover::leaf`] takes as many as the tree is deep.
    pub fn leaves(&self) -> impl Iterator<Item = (u32, BlockKey)> {
        let first_to_last = self.range.clone();
        let keys = self.nodes.iter().flat_map(|(subtree, key)| Leaves::under(*subtree, key));
        first_to_last.zip(keys)
    }

    /// version ‖ depth ‖ start ‖ end (big-endian u32) ‖ the node keys in order. Which nodes they
    /// are follows from depth and range, so no other cover has these bytes.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(HEAD_LEN + self.nodes.len() * NODE_LEN));
        out.extend_from_slice(&[VERSION, self.depth]);
        out.extend_from_slice(&self.range.start.to_be_bytes());
        out.extend_from_slice(&self.range.end.to_be_bytes());
        for (_, key) in &self.nodes {
            out.extend_from_slice(key.expose());
        }
        out
    }

    /// Reads what [`Cover::to_bytes`] wrote. At most 64 nodes are ever read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let (head, mut keys) = bytes.split_first_chunk::<HEAD_LEN>().ok_or(FormatError)?;
        let [version, depth, a, b, c, d, e, f, g, h] = *head;
        let range = u32::from_be_bytes([a, b, c, d])..u32::from_be_bytes([e, f, g, h]);
        if version != VERSION
            || depth > MAX_DEPTH
            || range.start > range.end
            || cut(depth, range.clone()) != range
        {
            return Err(FormatError);
        }
        let mut nodes = Vec::with_capacity(keys.len().min(2 * NODE_LEN * 32) / NODE_LEN);
        for subtree in Subtree::tiling(wide(&range), depth) {
            let (key, rest) = keys.split_at_checked(NODE_LEN).ok_or(FormatError)?;
            nodes.push((subtree, NodeKey::from_slice(key).ok_or(FormatError)?));
            keys = rest;
        }
        if keys.is_empty() { Ok(Self { depth, range, nodes }) } else { Err(FormatError) }
    }
}

impl fmt::Debug for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cover({:?}, {} nodes)", self.range, self.nodes.len())
    }
}
