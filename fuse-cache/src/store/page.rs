//! The two kinds of page that Tidegate writes into the cache file. Both end in a BLAKE3 checksum,
//! which tells a whole page from a torn or foreign one; it is no protection against an attacker,
//! and needs to be none.

use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::HEADER_LEN;

use crate::budget::PAGE;

const SUPERBLOCK_MAGIC: &[u8; 16] = b"tidegate cache 1";
const SLOT_MAGIC: &[u8; 16] = b"tidegate slot  1";
const SUM_LEN: usize = 32;

/// First page of the file: magic ‖ lease ‖ layout ‖ rank u16 ‖ slot length u64 ‖ slots u32 ‖
/// BLAKE3 of those, numbers little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) lease: LeaseId,
    pub(crate) layout: LayoutId,
    pub(crate) rank: u16,
    pub(crate) slot_len: u64,
    pub(crate) slots: u32,
}

impl Superblock {
    pub(crate) fn to_page(self) -> Box<[u8; PAGE]> {
        let mut out = Writer::new(SUPERBLOCK_MAGIC);
        out.put(self.lease.as_bytes());
        out.put(self.layout.as_bytes());
        out.put(&self.rank.to_le_bytes());
        out.put(&self.slot_len.to_le_bytes());
        out.put(&self.slots.to_le_bytes());
        out.finish()
    }

    pub(crate) fn parse(page: &[u8; PAGE]) -> Option<Self> {
        let mut read = Reader::new(page, SUPERBLOCK_MAGIC)?;
        let superblock = Self {
            lease: LeaseId::from_bytes(read.take()?),
            layout: LayoutId::from_bytes(read.take()?),
            rank: u16::from_le_bytes(read.take()?),
            slot_len: u64::from_le_bytes(read.take()?),
            slots: u32::from_le_bytes(read.take()?),
        };
        read.finish()?;
        Some(superblock)
    }

    /// The same lease cut the same way, whatever the number of slots.
    pub(crate) fn is_same_lease(&self, other: &Self) -> bool {
        *self == Self { slots: self.slots, ..*other }
    }
}

/// Last page of a slot, written once its chunks are complete: magic ‖ lease ‖ layout ‖ block
/// u32 ‖ header of the sealed block ‖ BLAKE3 of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotPage {
    pub(crate) lease: LeaseId,
    pub(crate) layout: LayoutId,
    pub(crate) block: u32,
    pub(crate) header: [u8; HEADER_LEN],
}

impl SlotPage {
    pub(crate) fn to_page(self) -> Box<[u8; PAGE]> {
        let mut out = Writer::new(SLOT_MAGIC);
        out.put(self.lease.as_bytes());
        out.put(self.layout.as_bytes());
        out.put(&self.block.to_le_bytes());
        out.put(&self.header);
        out.finish()
    }

    pub(crate) fn parse(page: &[u8; PAGE]) -> Option<Self> {
        let mut read = Reader::new(page, SLOT_MAGIC)?;
        let slot = Self {
            lease: LeaseId::from_bytes(read.take()?),
            layout: LayoutId::from_bytes(read.take()?),
            block: u32::from_le_bytes(read.take()?),
            header: read.take()?,
        };
        read.finish()?;
        Some(slot)
    }
}

struct Writer {
    page: Box<[u8; PAGE]>,
    at: usize,
}

impl Writer {
    fn new(magic: &[u8; 16]) -> Self {
        let mut writer = Self { page: Box::new([0; PAGE]), at: 0 };
        writer.put(magic);
        writer
    }

    fn put(&mut self, bytes: &[u8]) {
        self.page[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn finish(mut self) -> Box<[u8; PAGE]> {
        let sum = blake3::hash(&self.page[..self.at]);
        self.put(sum.as_bytes());
        self.page
    }
}

struct Reader<'a> {
    page: &'a [u8; PAGE],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(page: &'a [u8; PAGE], magic: &[u8; 16]) -> Option<Self> {
        page.starts_with(magic).then_some(Self { page, at: magic.len() })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.page.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(bytes)
    }

    fn finish(mut self) -> Option<()> {
        let sum = blake3::hash(&self.page[..self.at]);
        (self.take::<SUM_LEN>()? == *sum.as_bytes()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot() -> SlotPage {
        SlotPage {
            lease: LeaseId::from_bytes([1; 16]),
            layout: LayoutId::from_bytes([2; 32]),
            block: 77,
            header: [3; HEADER_LEN],
        }
    }

    #[test]
    fn pages_round_trip_and_are_not_taken_for_each_other() {
        let superblock = Superblock {
            lease: LeaseId::from_bytes([1; 16]),
            layout: LayoutId::from_bytes([2; 32]),
            rank: 3,
            slot_len: 8192,
            slots: 5,
        };
        assert_eq!(Superblock::parse(&superblock.to_page()), Some(superblock));
        assert_eq!(SlotPage::parse(&slot().to_page()), Some(slot()));
        assert_eq!(SlotPage::parse(&superblock.to_page()), None);
        assert_eq!(Superblock::parse(&[0; PAGE]), None);
    }

    proptest! {
        #[test]
        fn a_changed_page_is_no_page(at in 0usize..156, change in 1u8..) {
            let mut page = slot().to_page();
            page[at] ^= change;
            prop_assert_eq!(SlotPage::parse(&page), None);
        }
    }
}
