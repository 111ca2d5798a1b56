//! The keys that were released to this worker, and the openers made from them.
//!
//! Of a release only leaf keys are kept, never the inner nodes they follow from: those of a whole
//! window while the window is open, and one for each block that is held because it is in the cache.
//! A window that is closed and a block that is let go are wiped at once; who needs their keys again
//! asks the gateway again. So what is here is bounded: 32 bytes for each block of an open window,
//! some 100 for each held block, and 1 KiB for each of at most [`OPENERS`] openers.
//!
//! A key is used only while its release lives and the [`Life`] of the attachment lasts, by a clock that
//! runs on in suspend: both are looked at before each use. When the ring is destroyed all in it is
//! wiped, and all that asks later is refused.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{BlockKey, Context, Cover, HEADER_LEN, Kind, Opener};
use tidegate_wire::LeaseTerms;
use zeroize::Zeroizing;

use crate::life::Life;

/// Openers kept: about 1 KiB each.
const OPENERS: usize = 1024;

/// What one block's key takes up in an open window, bytes.
pub const KEY_LEN: usize = 32;

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
    /// The block's key is not here: it was not released, or it was let go.
    #[error("the block's key is not here")]
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

#[derive(Default)]
struct Inner {
    /// Open windows: few, and looked through once a block.
    windows: Vec<Window>,
    /// Keys of held blocks: what a read asks.
    held: HashMap<u32, Held>,
    /// Held blocks that have an opener, each once, for the clock hand.
    hand: VecDeque<u32>,
    destroyed: bool,
}

/// Every leaf key of a window, in one piece that never moves.
struct Window {
    range: Range<u32>,
    keys: Zeroizing<Vec<[u8; KEY_LEN]>>,
    /// Time on the boot clock after which the keys must not be used.
    expires: Duration,
}

struct Held {
    key: BlockKey,
    expires: Duration,
    opener: Option<Box<Made>>,
}

struct Made {
    header: [u8; HEADER_LEN],
    opener: Arc<Opener>,
    /// Since the clock hand's last pass.
    used: bool,
}

impl Window {
    fn derive(cover: &Cover, expires: Duration) -> Self {
        let range = cover.range();
        let mut keys = Zeroizing::new(vec![[0; KEY_LEN]; range.len()]);
        for (slot, (_, key)) in keys.iter_mut().zip(cover.leaves()) {
            slot.copy_from_slice(key.expose());
        }
        Self { range, keys, expires }
    }

    fn key(&self, block: u32) -> Option<BlockKey> {
        let at = block.checked_sub(self.range.start)?;
        BlockKey::from_slice(self.keys.get(at as usize)?)
    }
}

impl KeyRing {
    /// An empty ring for the blocks of a lease, good for as long as `life` lasts.
    pub fn new(terms: &LeaseTerms, life: Life) -> Self {
        Self {
            life,
            lease: terms.lease,
            layout: terms.layout,
            blocks: terms.blocks,
            inner: Mutex::default(),
        }
    }

    /// Until when the keys may be used.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Opens a released window, good until `expires` on the boot clock: takes its leaf keys
    /// and wipes the nodes they came from. Takes the place of a window over the same range. Refused
    /// when the ring is destroyed. About 1 µs a block.
    pub fn open(&self, cover: Cover, expires: Duration) -> Result<(), KeyError> {
        let window = Window::derive(&cover, expires);
        drop(cover);
        let mut inner = self.lock();
        if inner.destroyed {
            return Err(KeyError::Over);
        }
        inner.windows.retain(|open| open.range != window.range);
        inner.windows.push(window);
        Ok(())
    }

    /// Closes a window: its keys are wiped, but for those of held blocks.
    pub fn close(&self, window: &Range<u32>) {
        self.lock().windows.retain(|open| open.range != *window);
    }

    /// The windows that are open.
    pub fn windows(&self) -> Vec<Range<u32>> {
        self.lock().windows.iter().map(|window| window.range.clone()).collect()
    }

    /// Holds the key of a block that is in the cache, whatever becomes of its window. False when the
    /// key is not here, or past its time.
    pub fn hold(&self, block: u32) -> bool {
        let mut inner = self.lock();
        let now = self.life.now();
        if inner.held.get(&block).is_some_and(|held| now < held.expires) {
            return true;
        }
        let mut newest_first = inner.windows.iter().rev().filter(|window| now < window.expires);
        let found = newest_first.find_map(|window| Some((window.key(block)?, window.expires)));
        let Some((key, expires)) = found else { return false };
        inner.let_go(block);
        inner.held.insert(block, Held { key, expires, opener: None });
        true
    }

    /// The block has left the cache: its key is wiped, unless its window is open.
    pub fn let_go(&self, block: u32) {
        self.lock().let_go(block);
    }

    /// Blocks whose keys are held.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// The opener of one sealing of a held block; kept for the next call.
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
        let missing = if inner.destroyed { KeyError::Over } else { KeyError::Unreleased };
        let held = inner.held.get_mut(&block).ok_or(missing)?;
        if self.life.now() >= held.expires {
            return Err(KeyError::Over);
        }
        if let Some(made) = held.opener.as_mut().filter(|made| made.header == *header) {
            made.used = true;
            return Ok(Arc::clone(&made.opener));
        }
        let context = Context {
            kind: Kind::Block,
            lease: self.lease,
            layout: self.layout,
            number: block.into(),
            count: self.blocks.into(),
        };
        let opener = Opener::new(&held.key, &context, header, plain_len.into());
        let opener = Arc::new(opener.map_err(|_| KeyError::Foreign)?);
        let made = Made { header: *header, opener: Arc::clone(&opener), used: false };
        if held.opener.replace(Box::new(made)).is_none() {
            inner.hand.push_back(block);
        }
        inner.bound_openers();
        Ok(opener)
    }

    /// Whether any key may still be used.
    pub fn is_live(&self) -> bool {
        let now = self.life.now();
        let inner = self.lock();
        let windows = inner.windows.iter().map(|window| window.expires);
        let mut ends = windows.chain(inner.held.values().map(|held| held.expires));
        self.life.past().is_none() && ends.any(|expires| now < expires)
    }

    /// Wipes every key and opener; what a reader holds in this instant dies with its read.
    pub fn destroy(&self) {
        *self.lock() = Inner { destroyed: true, ..Inner::default() };
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
    fn let_go(&mut self, block: u32) {
        if self.held.remove(&block).is_some_and(|held| held.opener.is_some()) {
            self.hand.retain(|other| *other != block);
        }
    }

    /// The clock hand takes openers away that were not used since its last pass.
    fn bound_openers(&mut self) {
        while self.hand.len() > OPENERS
            && let Some(oldest) = self.hand.pop_front()
            && let Some(held) = self.held.get_mut(&oldest)
        {
            match &mut held.opener {
                Some(made) if made.used => {
                    made.used = false;
                    self.hand.push_back(oldest);
                }
                opener => *opener = None,
            }
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({})", self.lease)
    }
}

#[cfg(test)]
pub(crate) mod tests;
