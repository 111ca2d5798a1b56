//! Which blocks are here, which are wanted, and which gave trouble. Nothing in it waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ReadError;
use super::resident::Resident;
use crate::schedule::{Schedule, Wanted};

/// First pause before a block is asked for again, doubled up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);
/// Residents that are looked at to find a victim.
const CANDIDATES: usize = 1024;

pub(super) type Granted = Result<Arc<Resident>, ReadError>;

/// What a reader gets when it asks for a block.
pub(super) enum Demanded {
    Here(Arc<Resident>),
    /// Resolves when the fetch has begun.
    Queued(oneshot::Receiver<Granted>),
}

pub(super) struct Table {
    pub(super) schedule: Schedule,
    residents: HashMap<u32, Arc<Resident>>,
    /// Demanded blocks in the order of asking; each has readers in `waiting`.
    demands: VecDeque<u32>,
    waiting: HashMap<u32, Vec<oneshot::Sender<Granted>>>,
    troubles: HashMap<u32, Trouble>,
    /// Changed at home since the snapshot.
    stale: HashSet<u32>,
    /// Blocks that did not open once; the next failure is final.
    suspects: HashSet<u32>,
    closed: bool,
}

/// A block that could not be fetched.
struct Trouble {
    since: Instant,
    failures: u32,
    not_before: Instant,
}

impl Table {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            residents: HashMap::new(),
            demands: VecDeque::new(),
            waiting: HashMap::new(),
            troubles: HashMap::new(),
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

    /// The first demand that may be tried now. Demands whose readers have all gone are dropped.
    pub(super) fn next_demand(&mut self, now: Instant) -> Option<u32> {
        let Self { demands, waiting, .. } = self;
        demands.retain(|block| {
            let alive = waiting.get(block).is_some_and(|w| w.iter().any(|s| !s.is_closed()));
            if !alive {
                waiting.remove(block);
            }
            alive
        });
        self.demands.iter().copied().find(|block| self.may_try(*block, now))
    }

    /// The block that the plan or the readers' cursors want next, with how soon, when there are so
    /// many slots and so many of them free.
    pub(super) fn next_wish(
        &mut self,
        slots: u32,
        free: usize,
        now: Instant,
    ) -> Option<(u32, Wanted)> {
        let outlook = self.schedule.outlook();
        let had = |block| self.is_had(block, now);
        if let Some(block) = outlook.ahead(slots, 1, had).first() {
            return Some((*block, outlook.wanted(*block)));
        }
        if free == 0 {
            return None;
        }
        let Self { schedule, residents, stale, troubles, .. } = self;
        // A block in trouble is left to those who demand it, until its pause is over.
        let block = schedule.next_of_plan(|block| {
            residents.contains_key(&block)
                || stale.contains(&block)
                || troubles.contains_key(&block)
        })?;
        Some((block, outlook.wanted(block)))
    }

    fn is_had(&self, block: u32, now: Instant) -> bool {
        self.residents.contains_key(&block)
            || self.stale.contains(&block)
            || !self.may_try(block, now)
    }

    fn may_try(&self, block: u32, now: Instant) -> bool {
        self.troubles.get(&block).is_none_or(|trouble| trouble.not_before <= now)
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
                self.schedule.lost(block);
                true
            }
            _ => false,
        }
    }

    /// A fetch begins: the block's readers get it to wait on.
    pub(super) fn begin(&mut self, resident: &Arc<Resident>) {
        let block = resident.block;
        self.demands.retain(|demanded| *demanded != block);
        for reader in self.waiting.remove(&block).unwrap_or_default() {
            let _reader_gone = reader.send(Ok(Arc::clone(resident)));
        }
        self.insert(Arc::clone(resident));
    }

    pub(super) fn insert(&mut self, resident: Arc<Resident>) {
        self.residents.insert(resident.block, resident);
    }

    /// Removes exactly this resident; false if another or none stands in its place.
    pub(super) fn remove(&mut self, resident: &Arc<Resident>) -> bool {
        let block = resident.block;
        let stands = self.residents.get(&block).is_some_and(|other| Arc::ptr_eq(other, resident));
        if stands {
            self.residents.remove(&block);
            self.schedule.lost(block);
        }
        stands
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
        self.troubles.remove(&block);
    }

    /// Notes that a fetch failed; returns since when they do.
    pub(super) fn failed(&mut self, block: u32, now: Instant) -> Instant {
        let trouble = self.troubles.entry(block).or_insert(Trouble {
            since: now,
            failures: 0,
            not_before: now,
        });
        trouble.not_before = now + pause(trouble.failures);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.since
    }

    /// When the next block in trouble may be tried that somebody waits for.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let waited_for = self.demands.iter().filter_map(|block| self.troubles.get(block));
        waited_for.map(|trouble| trouble.not_before).min()
    }

    /// Blocks in trouble that nobody waits for may be filled again once their pause is over. One that is
    /// just being fetched stays in trouble until that has gone well: its readers count from the first failure.
    pub(super) fn forgive(&mut self, now: Instant) {
        let Self { troubles, waiting, residents, schedule, .. } = self;
        troubles.retain(|block, trouble| {
            let keep = waiting.contains_key(block)
                || residents.contains_key(block)
                || now < trouble.not_before + LONGEST;
            if !keep {
                schedule.lost(*block);
            }
            keep
        });
    }

    /// Whether a block is in trouble or demanded.
    pub(super) fn is_pressed(&self) -> bool {
        !self.troubles.is_empty() || !self.demands.is_empty()
    }

    /// Fails every reader that waits for a fetch to begin.
    pub(super) fn refuse_all(&mut self, error: ReadError) {
        self.demands.clear();
        for reader in self.waiting.drain().flat_map(|(_, readers)| readers) {
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

/// The pause after so many failures before.
pub(super) fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST)
}
