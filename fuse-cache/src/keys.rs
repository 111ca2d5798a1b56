//! The keys that were released to this worker, and the openers made from them.
//!
//! A key is used only while the release lives and the [`Life`] of the attachment lasts, by a clock that
//! runs on in suspend: both are looked at before each use. When the ring is destroyed every cover and
//! expanded key in it is wiped, and all that asks later is refused.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{Context, Cover, HEADER_LEN, Kind, Opener};
use tidegate_wire::LeaseTerms;

use crate::life::Life;

/// Openers kept: about 1 KiB each.
const OPENERS: usize = 1024;

/// Why a block has no opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not a sealing of that block under our key.
    #[error("the sealed header does not belong to that block")]
    Foreign,
    /// The keys are past their time or destroyed.
    #[error("the keys are past their time or destroyed")]
    Over,
    /// No released window holds the block.
    #[error("the block is outside what was released")]
    Unreleased,
}

/// The block keys of one lease.
pub struct KeyRing {
    lease: LeaseId,
    layout: LayoutId,
    blocks: u32,
    life: Life,
    inner: Mutex<Inner>,
}

struct Inner {
    /// The newest release last; it is asked first.
    windows: Vec<Window>,
    openers: Openers,
    destroyed: bool,
}

struct Window {
    cover: Cover,
    /// Time on the boot clock after which the cover must not be used.
    expires: Duration,
}

impl KeyRing {
    /// An empty ring for the blocks of a lease, good for as long as `life` lasts.
    pub fn new(terms: &LeaseTerms, life: Life) -> Self {
        Self {
            life,
            lease: terms.lease,
            layout: terms.layout,
            blocks: terms.blocks,
            inner: Mutex::new(Inner {
                windows: Vec::new(),
                openers: Openers::default(),
                destroyed: false,
            }),
        }
    }

    /// Until when the keys may be used.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Adds a released window, good until `expires` on the boot clock. A window over the
    /// same range takes the older one's place. Refused when the ring is destroyed.
    pub fn add(&self, cover: Cover, expires: Duration) -> Result<(), KeyError> {
        let mut inner = self.lock();
        if inner.destroyed {
            return Err(KeyError::Over);
        }
        inner.windows.retain(|window| window.cover.range() != cover.range());
        inner.windows.push(Window { cover, expires });
        Ok(())
    }

    /// The opener of one sealing of a block; kept for the next call.
    pub fn opener(
        &self,
        block: u32,
        header: &[u8; HEADER_LEN],
        plain_len: u32,
    ) -> Result<Arc<Opener>, KeyError> {
        let mut inner = self.lock();
        if self.life.past().is_some() {
            return Err(KeyError::Over);
        }
        let now = self.life.now();
        let window = inner
            .windows
            .iter()
            .rposition(|window| window.cover.range().contains(&block) && now < window.expires);
        let Some(window) = window else {
            return Err(inner.why_not(block));
        };
        if let Some(opener) = inner.openers.find(block, header) {
            return Ok(opener);
        }
        let key = inner.windows[window].cover.leaf(block).ok_or(KeyError::Unreleased)?;
        drop(inner);
        let context = Context {
            kind: Kind::Block,
            lease: self.lease,
            layout: self.layout,
            number: block.into(),
            count: self.blocks.into(),
        };
        let opener = Opener::new(&key, &context, header, plain_len.into());
        let opener = Arc::new(opener.map_err(|_| KeyError::Foreign)?);
        let mut inner = self.lock();
        if inner.destroyed {
            return Err(KeyError::Over);
        }
        inner.openers.keep(block, header, Arc::clone(&opener));
        Ok(opener)
    }

    /// Whether any key may still be used.
    pub fn is_live(&self) -> bool {
        let now = self.life.now();
        self.life.past().is_none() && self.lock().windows.iter().any(|window| now < window.expires)
    }

    /// Wipes every key and opener; what a reader holds in this instant dies with its read.
    pub fn destroy(&self) {
        let mut inner = self.lock();
        inner.destroyed = true;
        inner.windows = Vec::new();
        inner.openers = Openers::default();
    }

    /// Whether [`Self::destroy`] was called.
    pub fn is_destroyed(&self) -> bool {
        self.lock().destroyed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn why_not(&self, block: u32) -> KeyError {
        let released = self.windows.iter().any(|window| window.cover.range().contains(&block));
        if released || self.destroyed { KeyError::Over } else { KeyError::Unreleased }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({})", self.lease)
    }
}

/// A bounded set of openers; the clock hand removes those not used since its last pass.
#[derive(Default)]
struct Openers {
    by_block: HashMap<u32, Kept>,
    hand: VecDeque<u32>,
}

struct Kept {
    header: [u8; HEADER_LEN],
    opener: Arc<Opener>,
    used: bool,
}

impl Openers {
    fn find(&mut self, block: u32, header: &[u8; HEADER_LEN]) -> Option<Arc<Opener>> {
        let kept = self.by_block.get_mut(&block).filter(|kept| kept.header == *header)?;
        kept.used = true;
        Some(Arc::clone(&kept.opener))
    }

    fn keep(&mut self, block: u32, header: &[u8; HEADER_LEN], opener: Arc<Opener>) {
        let kept = Kept { header: *header, opener, used: false };
        if self.by_block.insert(block, kept).is_none() {
            self.hand.push_back(block);
        }
        while self.by_block.len() > OPENERS
            && let Some(oldest) = self.hand.pop_front()
        {
            match self.by_block.get_mut(&oldest) {
                Some(kept) if kept.used => {
                    kept.used = false;
                    self.hand.push_back(oldest);
                }
                _ => drop(self.by_block.remove(&oldest)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
