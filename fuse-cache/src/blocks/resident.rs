//! A block in the cache, complete or arriving.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tidegate_plan::{BlockInfo, sealed_len};
use tidegate_seal::HEADER_LEN;
use tokio::sync::Notify;

use crate::store::{Adopted, Slot};

/// How a fetch ended that did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum End {
    /// The connection or the gateway failed; asking again may help.
    Torn = 1,
    /// What came was not the block.
    Nonsense = 2,
    /// 409.
    Stale = 3,
    /// Refused, or closed.
    Over = 4,
    /// Torn for longer than the grace.
    Unavailable = 5,
}

impl End {
    /// As metrics say it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Nonsense => "nonsense",
            Self::Stale => "stale",
            Self::Over => "over",
            Self::Unavailable => "unavailable",
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Torn, Self::Nonsense, Self::Stale, Self::Over, Self::Unavailable]
            .into_iter()
            .find(|end| *end as u8 == code)
    }
}

pub(super) struct Resident {
    pub(super) block: u32,
    pub(super) info: BlockInfo,
    pub(super) slot: Slot,
    /// Set before any chunk has arrived.
    header: OnceLock<[u8; HEADER_LEN]>,
    /// Chunk bytes in the slot, from the first without a gap.
    received: AtomicU64,
    /// The furthest chunk byte that any reader waited for.
    awaited: AtomicU64,
    asked: Notify,
    end: AtomicU8,
    changed: Notify,
    /// A packed block's status bitmap, once somebody has read it.
    bitmap: OnceLock<Box<[u8]>>,
}

impl Resident {
    pub(super) fn arriving(block: u32, info: BlockInfo, slot: Slot) -> Self {
        Self {
            block,
            info,
            slot,
            header: OnceLock::new(),
            received: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            asked: Notify::new(),
            end: AtomicU8::new(0),
            changed: Notify::new(),
            bitmap: OnceLock::new(),
        }
    }

    pub(super) fn complete(
        block: u32,
        info: BlockInfo,
        slot: Slot,
        header: [u8; HEADER_LEN],
    ) -> Self {
        let resident = Self::arriving(block, info, slot);
        resident.set_header(header);
        resident.received.store(resident.chunk_bytes(), Ordering::Release);
        resident
    }

    /// What is left of a complete block when nobody reads it any more: sealed bytes in their slot.
    pub(super) fn into_adopted(self) -> Option<Adopted> {
        let complete = self.is_complete();
        let (block, header) = (self.block, self.header.into_inner().filter(|_| complete)?);
        Some(Adopted { block, header, slot: self.slot })
    }

    /// Bytes of all sealed chunks.
    pub(super) fn chunk_bytes(&self) -> u64 {
        sealed_len(self.info.plain_len.into()) - HEADER_LEN as u64
    }

    pub(super) fn set_header(&self, header: [u8; HEADER_LEN]) {
        self.header.get_or_init(|| header);
    }

    pub(super) fn header(&self) -> Option<&[u8; HEADER_LEN]> {
        self.header.get()
    }

    pub(super) fn bitmap(&self) -> Option<&[u8]> {
        self.bitmap.get().map(AsRef::as_ref)
    }

    pub(super) fn set_bitmap(&self, bitmap: &[u8]) -> &[u8] {
        self.bitmap.get_or_init(|| bitmap.into())
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received() == self.chunk_bytes()
    }

    /// Up to where readers have waited for bytes.
    pub(super) fn awaited(&self) -> u64 {
        self.awaited.load(Ordering::Acquire)
    }

    /// Resolves when a reader begins to wait for bytes beyond the watermark.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Moves the watermark and wakes those who wait for it.
    pub(super) fn advance(&self, received: u64) {
        self.received.store(received, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// No more will come. The first end stands.
    pub(super) fn fail(&self, end: End) {
        let first = self.end.compare_exchange(0, end as u8, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn end(&self) -> Option<End> {
        End::from_code(self.end.load(Ordering::Acquire))
    }

    /// Waits until so many chunk bytes are in the slot.
    pub(super) async fn wait(&self, need: u64) -> Result<(), End> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.received() >= need {
                return Ok(());
            }
            if let Some(end) = self.end() {
                return Err(end);
            }
            if self.awaited.fetch_max(need, Ordering::AcqRel) < need {
                self.asked.notify_one();
            }
            changed.await;
        }
    }
}
