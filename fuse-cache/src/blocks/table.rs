//! Which blocks are here, which are wanted, and which gave trouble. Nothing in it waits.
//!
//! A block that is here has its key held on the ring, and lets go of it when it leaves. One that a
//! worker before us left has none until somebody reads it: then its readers wait for its window.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ReadError;
use super::resident::Resident;
use super::trouble::Troubles;
use crate::keys::KeyRing;
use crate::schedule::{Schedule, Wanted, Windows};

/// Residents that are looked at to find a victim.
const CANDIDATES: usize = 1024;
/// The next window's keys are asked for when the plan has this many blocks to go in one, or a quarter
/// of it.
const AHEAD: u32 = 32;

pub(super) type Granted = Result<Arc<Resident>, ReadError>;
/// That a block's key was asked for.
pub(super) type Unlocked = Result<(), ReadError>;

/// What a reader gets when it asks for a block.
pub(super) enum Demanded {
    Here(Arc<Resident>),
    /// Resolves when the fetch has begun.
    Queued(oneshot::Receiver<Granted>),
}

pub(super) struct Table {
    pub(super) schedule: Schedule,
    keys: Arc<KeyRing>,
    residents: HashMap<u32, Arc<Resident>>,
    /// Demanded blocks in the order of asking; each has readers in `waiting`.
    demands: VecDeque<u32>,
    waiting: HashMap<u32, Vec<oneshot::Sender<Granted>>>,
    /// Readers of blocks that are here without their keys.
    locked: HashMap<u32, Vec<oneshot::Sender<Unlocked>>>,
    troubles: Troubles,
    /// Changed at home since the snapshot.
    stale: HashSet<u32>,
    /// Blocks that did not open once; the next failure is final.
    suspects: HashSet<u32>,
    closed: bool,
}

impl Table {
    pub(super) fn new(schedule: Schedule, keys: Arc<KeyRing>) -> Self {
        Self {
            schedule,
            keys,
            residents: HashMap::new(),
            demands: VecDeque::new(),
            waiting: HashMap::new(),
            locked: HashMap::new(),
            troubles: Troubles::default(),
            stale: HashSet::new(),
            suspects: HashSet::new(),
            closed: false,
        }
    }

    pub(super) fn get(&self, block: u32) -> Result<Option<Arc<Resident>>, ReadError> {
        if self.closed {
            return Err(ReadError::LeaseOver);
        }
        if self.stale.contains(&block) {
            return Err(ReadError::Stale);
        }
        Ok(self.residents.get(&block).cloned())
    }

    pub(super) fn demand(&mut self, block: u32) -> Result<Demanded, ReadError> {
        if let Some(resident) = self.get(block)? {
            return Ok(Demanded::Here(resident));
        }
        let (sender, receiver) = oneshot::channel();
        let waiting = self.waiting.entry(block).or_default();
        if waiting.is_empty() {
            self.demands.push_back(block);
        }
        waiting.push(sender);
        Ok(Demanded::Queued(receiver))
    }

    /// For a reader of a block that is here and whose key was not. `None`: look again, it is now or
    /// the block has gone. Otherwise resolves when its window has come.
    pub(super) fn unlock(
        &mut self,
        resident: &Arc<Resident>,
    ) -> Result<Option<oneshot::Receiver<Unlocked>>, ReadError> {
        let block = resident.block;
        let stands = self.get(block)?.is_some_and(|other| Arc::ptr_eq(&other, resident));
        if !stands || self.keys.hold(block) {
            return Ok(None);
        }
        let (sender, receiver) = oneshot::channel();
        self.locked.entry(block).or_default().push(sender);
        Ok(Some(receiver))
    }

    /// A window was asked for: its blocks that are here have their keys from now on, or its readers
    /// fail.
    pub(super) fn unlocked(&mut self, window: &Range<u32>, outcome: Unlocked) {
        match outcome {
            Ok(()) => {
                let here = |block: &u32| self.residents.contains_key(block);
                window.clone().filter(here).for_each(|block| {
                    self.keys.hold(block);
                });
            }
            Err(error) => {
                self.demands.retain(|block| !window.contains(block));
                for reader in taken(&mut self.waiting, window) {
                    let _reader_gone = reader.send(Err(error));
                }
            }
        }
        for reader in taken(&mut self.locked, window) {
            let _reader_gone = reader.send(outcome);
        }
    }

    /// Drops demands whose readers have all gone.
    pub(super) fn forget_the_gone(&mut self) {
        let Self { demands, waiting, locked, .. } = self;
        waiting.retain(|_, readers| readers.iter().any(|reader| !reader.is_closed()));
        demands.retain(|block| waiting.contains_key(block));
        locked.retain(|_, readers| readers.iter().any(|reader| !reader.is_closed()));
    }

    /// Blocks that readers wait for and that have no key, or may have none.
    pub(super) fn awaited(&self) -> impl Iterator<Item = u32> {
        self.demands.iter().chain(self.locked.keys()).copied()
    }

    /// Whether readers wait for a block that is here without its key.
    pub(super) fn is_locked(&self, block: u32) -> bool {
        self.locked.contains_key(&block)
    }

    /// The first demand that may be tried now.
    pub(super) fn next_demand(&self, windows: &Windows, now: Instant) -> Option<u32> {
        let may = |block: &u32| windows.is_open(*block) && self.troubles.may_try(*block, now);
        self.demands.iter().copied().find(may)
    }

    /// The block that the plan or the readers' cursors want next and that has its key, with how
    /// soon, when there are so many slots and so many of them free.
    pub(super) fn next_wish(
        &mut self,
        windows: &Windows,
        slots: u32,
        free: usize,
        now: Instant,
    ) -> Option<(u32, Wanted)> {
        let outlook = self.schedule.outlook();
        let had = |block| self.is_had(block, now) || !windows.is_open(block);
        if let Some(block) = outlook.ahead(slots, 1, had).first() {
            return Some((*block, outlook.wanted(*block)));
        }
        if free == 0 {
            return None;
        }
        let block = self.next_of_plan().filter(|block| windows.is_open(*block))?;
        Some((block, outlook.wanted(block)))
    }

    /// A block whose window the plan or the readers' cursors will need next: in time for the plan not
    /// to wait at a window's end, and not at all where it will not come so far.
    pub(super) fn next_lock(
        &mut self,
        windows: &Windows,
        slots: u32,
        free: usize,
        now: Instant,
    ) -> Option<u32> {
        let had = |block| windows.is_open(block) || self.is_had(block, now);
        if let Some(block) = self.schedule.outlook().ahead(slots, 1, had).first() {
            return Some(*block);
        }
        if free == 0 {
            return None;
        }
        let block = self.next_of_plan()?;
        if !windows.is_open(block) {
            return Some(block);
        }
        let window = windows.range(windows.of(block));
        let to_go = window.end - block;
        let soon = to_go <= AHEAD.max(window.end.abs_diff(window.start) / 4);
        let comes_so_far = free > to_go as usize && window.end < self.schedule.end();
        (soon && comes_so_far && !windows.is_open(window.end)).then_some(window.end)
    }

    fn next_of_plan(&mut self) -> Option<u32> {
        let Self { schedule, residents, stale, troubles, .. } = self;
        // A block in trouble is left to those who demand it, until its pause is over.
        schedule.next_of_plan(|block| {
            residents.contains_key(&block) || stale.contains(&block) || troubles.contains(block)
        })
    }

    fn is_had(&self, block: u32, now: Instant) -> bool {
        self.residents.contains_key(&block)
            || self.stale.contains(&block)
            || !self.troubles.may_try(block, now)
    }

    /// Lets the block go that is wanted last, if it is wanted later than `than` and nobody uses it.
    pub(super) fn evict(&mut self, than: Option<Wanted>) -> bool {
        let outlook = self.schedule.outlook();
        let idle = self
            .residents
            .iter()
            .filter(|(_, resident)| Arc::strong_count(resident) == 1 && resident.is_complete())
            .map(|(block, _)| *block)
            .take(CANDIDATES);
        match outlook.victim(idle) {
            Some((block, wanted)) if than.is_none_or(|than| wanted > than) => {
                self.residents.remove(&block);
                self.gone(block);
                true
            }
            _ => false,
        }
    }

    /// A fetch begins, of a block whose key is held: its readers get it to wait on.
    pub(super) fn begin(&mut self, resident: &Arc<Resident>) {
        let block = resident.block;
        self.demands.retain(|demanded| *demanded != block);
        for reader in self.waiting.remove(&block).unwrap_or_default() {
            let _reader_gone = reader.send(Ok(Arc::clone(resident)));
        }
        self.insert(Arc::clone(resident));
    }

    pub(super) fn insert(&mut self, resident: Arc<Resident>) {
        self.keys.hold(resident.block);
        self.residents.insert(resident.block, resident);
    }

    /// Removes exactly this resident; false if another or none stands in its place.
    pub(super) fn remove(&mut self, resident: &Arc<Resident>) -> bool {
        let block = resident.block;
        let stands = self.residents.get(&block).is_some_and(|other| Arc::ptr_eq(other, resident));
        if stands {
            self.residents.remove(&block);
            self.gone(block);
        }
        stands
    }

    /// A block is no longer here.
    fn gone(&mut self, block: u32) {
        self.keys.let_go(block);
        self.schedule.lost(block);
    }

    /// The resident did not open. `None`: another reader has seen to it. Otherwise whether the
    /// block may be fetched once more.
    pub(super) fn distrust(&mut self, resident: &Arc<Resident>) -> Option<bool> {
        self.remove(resident).then(|| self.suspects.insert(resident.block))
    }

    pub(super) fn trust(&mut self, block: u32) {
        self.suspects.remove(&block);
    }

    pub(super) fn suspects(&self) -> usize {
        self.suspects.len()
    }

    pub(super) fn set_stale(&mut self, block: u32) {
        self.stale.insert(block);
    }

    pub(super) fn arrived(&mut self, block: u32) {
        self.troubles.over(block);
    }

    /// Notes that a fetch failed; returns since when they do.
    pub(super) fn failed(&mut self, block: u32, now: Instant) -> Instant {
        self.troubles.failed(block, now)
    }

    /// When the next block in trouble may be tried that somebody waits for.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.troubles.next_try(self.demands.iter().copied())
    }

    /// Blocks in trouble that nobody waits for may be filled again once their pause is over. One that is
    /// just being fetched stays in trouble until that has gone well: its readers count from the first failure.
    pub(super) fn forgive(&mut self, now: Instant) {
        let Self { troubles, waiting, residents, schedule, .. } = self;
        let awaited = |block| waiting.contains_key(&block) || residents.contains_key(&block);
        troubles.forgive(now, awaited, |block| schedule.lost(block));
    }

    /// Whether a block is in trouble or demanded.
    pub(super) fn is_pressed(&self) -> bool {
        !self.troubles.is_empty() || !self.demands.is_empty() || !self.locked.is_empty()
    }

    /// Fails every reader that waits for a fetch to begin, or for a key.
    pub(super) fn refuse_all(&mut self, error: ReadError) {
        self.demands.clear();
        for reader in self.waiting.drain().flat_map(|(_, readers)| readers) {
            let _reader_gone = reader.send(Err(error));
        }
        for reader in self.locked.drain().flat_map(|(_, readers)| readers) {
            let _reader_gone = reader.send(Err(error));
        }
    }

    /// Nothing is given out any more.
    pub(super) fn close(&mut self) -> Vec<Arc<Resident>> {
        self.closed = true;
        self.refuse_all(ReadError::LeaseOver);
        self.residents.values().cloned().collect()
    }

    /// Takes every resident out.
    pub(super) fn clear(&mut self) -> Vec<Arc<Resident>> {
        self.residents.drain().map(|(_, resident)| resident).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Blocks complete on disk.
    pub(super) fn complete(&self) -> u32 {
        let complete = self.residents.values().filter(|resident| resident.is_complete()).count();
        u32::try_from(complete).unwrap_or(u32::MAX)
    }
}

/// The readers of a window's blocks, no longer in the map.
fn taken<T>(readers: &mut HashMap<u32, Vec<T>>, window: &Range<u32>) -> Vec<T> {
    readers.extract_if(|block, _| window.contains(block)).flat_map(|(_, readers)| readers).collect()
}
