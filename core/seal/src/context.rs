//! The place of a sealed message, bound into its keys.

use tidegate_plan::{ContentId, LayoutId, LeaseId};

/// What a sealed message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Block = 1,
    Manifest = 2,
    LeaseKey = 3,
    Results = 4,
}

/// Length of [`Context::encode`], bytes.
pub const CONTEXT_LEN: usize = 16 + 1 + 16 + 32 + 8 + 8;

const FORMAT: &[u8; 16] = b"tidegate sealed1";

/// Where a message belongs. A message opens under exactly the context it was sealed with, so a
/// block replayed under another lease, layout or position does not open at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    pub kind: Kind,
    pub lease: LeaseId,
    /// Zero for a wrapped lease key. Results: the content's id in a layout's place.
    pub layout: LayoutId,
    /// Block: its number in the layout. Manifest: the piece. Lease key: the epoch.
    /// Results: the block's number in the content.
    pub number: u64,
    /// Block: blocks of the lease. Manifest: pieces of that share. Lease key: zero.
    /// Results: zero, since a block is sealed before the length of its file is known.
    pub count: u64,
}

impl Context {
    /// The place of one block of a result.
    pub fn result(lease: LeaseId, content: &ContentId, block: u64) -> Self {
        let layout = LayoutId::from_bytes(*content.as_bytes());
        Self { kind: Kind::Results, lease, layout, number: block, count: 0 }
    }

    /// The one fixed-width encoding: format, kind, lease, layout, number and count (big-endian).
    pub fn encode(&self) -> [u8; CONTEXT_LEN] {
        let mut out = [0; CONTEXT_LEN];
        out[..16].copy_from_slice(FORMAT);
        out[16] = self.kind as u8;
        out[17..33].copy_from_slice(self.lease.as_bytes());
        out[33..65].copy_from_slice(self.layout.as_bytes());
        out[65..73].copy_from_slice(&self.number.to_be_bytes());
        out[73..].copy_from_slice(&self.count.to_be_bytes());
        out
    }
}
