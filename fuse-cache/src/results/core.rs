//! What all operations on results share: the names, the spool, the way home, and who has how much RAM.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_plan::LeaseId;
use tidegate_wire::{Attributes, ResultsTerms};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};

use super::block::{Content, Sealed};
use super::cache::HomeCache;
use super::content::{Block, State, room_len};
use super::home::Home;
use super::journal::{Journal, Record};
use super::names::Names;
use super::spool::Spool;
use super::version::Version;
use crate::budget::{Budget, Buffer};
use crate::errno::FsError;

/// Names that there may be beyond those that were there and the files that may still come home.
pub(super) const MORE_NAMES: usize = 4096;

/// How long somebody waits for room before he looks again by himself.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// The same while nothing is under way: something may be just between two steps.
const LOOK_TWICE: Duration = Duration::from_millis(50);

/// One file.
pub(super) struct File {
    pub(super) node: u64,
    state: Mutex<State>,
    /// Who holds it alone changes what of the file is at home, and begins and ends its uploads.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// A version that is complete and not at home.
    pub(super) pending: Mutex<Option<Arc<Version>>>,
    /// The version that the journal says is complete: as long as it does, its places in the spool are
    /// nobody else's. Changed with the journal, under the state's lock.
    pub(super) recorded: Mutex<Option<Arc<Version>>>,
    /// Why it did not come home while nobody waited: for whoever syncs or closes next.
    pub(super) refused: Mutex<Option<FsError>>,
    pub(super) cache: Mutex<HomeCache>,
    changed: watch::Sender<()>,
}

impl File {
    pub(super) fn new(node: u64, state: State) -> Arc<Self> {
        Arc::new(Self {
            node,
            state: Mutex::new(state),
            turn: Arc::default(),
            pending: Mutex::default(),
            recorded: Mutex::default(),
            refused: Mutex::default(),
            cache: Mutex::default(),
            changed: watch::channel(()).0,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn has_changed(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn attributes(&self) -> Attributes {
        let state = self.state();
        attributes(state.mode, state.mtime)
    }
}

/// What all share.
pub(super) struct Core {
    pub(super) handle: Handle,
    pub(super) lease: LeaseId,
    pub(super) terms: ResultsTerms,
    pub(super) asynchronous: bool,
    pub(super) owner: (u32, u32),
    pub(super) budget: Budget,
    pub(super) spool: Arc<Spool>,
    pub(super) journal: Journal,
    pub(super) home: Home,
    pub(super) names: Mutex<Names<Arc<File>>>,
    /// Held alone while a directory takes another name, there and here: nothing comes below it meanwhile.
    /// Whoever needs a file's turn too takes that first.
    pub(super) tree: tokio::sync::RwLock<()>,
    /// Numbers below are of workers before this one.
    first_node: u64,
    /// Names that there may be at once.
    most_names: usize,
    pub(super) next_handle: AtomicU64,
    /// Parts that may be on their way at the same time.
    pub(super) flights: Arc<Semaphore>,
    /// Files that are brought home by nobody who waits.
    pub(super) drains: Arc<Semaphore>,
    /// Parts that are complete behind their writer.
    pub(super) ripe: mpsc::UnboundedSender<Ripe>,
    /// Keys were destroyed.
    pub(super) over: AtomicBool,
    pub(super) stored_files: AtomicU64,
    pub(super) stored_bytes: AtomicU64,
    /// What this worker took of the lease's budget.
    pub(super) spent_files: AtomicU64,
    pub(super) spent_bytes: AtomicU64,
    /// Things under way that give back room when they end.
    under_way: AtomicUsize,
    eased: watch::Sender<()>,
    residents: Mutex<VecDeque<Weak<Sealed>>>,
    plains: Mutex<VecDeque<(Weak<File>, u64)>>,
    contents: Mutex<Vec<Weak<Content>>>,
}

/// A part that is complete behind its writer; sending it is under way from the first.
pub(super) type Ripe = (Arc<File>, u32, UnderWay);

/// Something under way that gives room back when it ends.
pub(super) struct UnderWay(Arc<Core>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.eased.send_replace(());
    }
}

/// What a core is made of.
pub(super) struct Parts {
    pub(super) lease: LeaseId,
    pub(super) terms: ResultsTerms,
    pub(super) asynchronous: bool,
    pub(super) owner: (u32, u32),
    pub(super) budget: Budget,
    pub(super) spool: Arc<Spool>,
    pub(super) journal: Journal,
    pub(super) home: Home,
    pub(super) names: Names<Arc<File>>,
    pub(super) first_handle: u64,
    pub(super) flights: usize,
    pub(super) drains: usize,
    pub(super) ripe: mpsc::UnboundedSender<Ripe>,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let files = usize::try_from(parts.terms.files).unwrap_or(usize::MAX);
        let most_names = files.saturating_add(parts.names.len()).saturating_add(MORE_NAMES);
        Arc::new(Self {
            first_node: parts.names.next_number(),
            most_names,
            handle: Handle::current(),
            lease: parts.lease,
            terms: parts.terms,
            asynchronous: parts.asynchronous,
            owner: parts.owner,
            budget: parts.budget,
            spool: parts.spool,
            journal: parts.journal,
            home: parts.home,
            names: Mutex::new(parts.names),
            tree: tokio::sync::RwLock::default(),
            next_handle: AtomicU64::new(parts.first_handle),
            flights: Arc::new(Semaphore::new(parts.flights)),
            drains: Arc::new(Semaphore::new(parts.drains)),
            ripe: parts.ripe,
            over: AtomicBool::new(false),
            stored_files: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            spent_files: AtomicU64::new(0),
            spent_bytes: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            eased: watch::channel(()).0,
            residents: Mutex::default(),
            plains: Mutex::default(),
            contents: Mutex::default(),
        })
    }

    pub(super) fn names(&self) -> MutexGuard<'_, Names<Arc<File>>> {
        lock(&self.names)
    }

    pub(super) fn file(&self, node: u64) -> Result<Arc<File>, FsError> {
        self.check()?;
        self.known(node, self.names().file(node))
    }

    /// What has no name and was open is gone with the worker that had it.
    pub(super) fn known<T>(&self, node: u64, found: Result<T, FsError>) -> Result<T, FsError> {
        match found {
            Err(FsError::NotFound) if node < self.first_node => Err(FsError::Lost),
            found => found,
        }
    }

    /// Whether there may be one more name: some more than files may still come home.
    pub(super) fn has_names_left(&self) -> Result<(), FsError> {
        if self.names().len() < self.most_names { Ok(()) } else { Err(FsError::OverBudget) }
    }

    pub(super) fn path(&self, node: u64) -> Option<String> {
        self.names().path(node)
    }

    /// Whether there are keys.
    pub(super) fn check(&self) -> Result<(), FsError> {
        if self.over.load(Ordering::SeqCst) { Err(FsError::Lost) } else { Ok(()) }
    }

    pub(super) fn begin_work(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(self))
    }

    pub(super) fn ease(&self) {
        self.eased.send_replace(());
    }

    /// What a file's blocks are sealed as now.
    pub(super) fn content_of(&self, file: &File) -> Result<Arc<Content>, FsError> {
        let mut state = file.state();
        if let Some(content) = &state.content {
            return Ok(Arc::clone(content));
        }
        let content = self.new_content()?;
        state.content = Some(Arc::clone(&content));
        Ok(content)
    }

    pub(super) fn new_content(&self) -> Result<Arc<Content>, FsError> {
        self.check()?;
        let content = Arc::new(Content::generate(&self.terms.public_key.0, &self.lease)?);
        let mut contents = lock(&self.contents);
        if contents.len() == contents.capacity() {
            contents.retain(|content| content.strong_count() > 0);
        }
        contents.push(Arc::downgrade(&content));
        Ok(content)
    }

    /// Wipes every content's key.
    pub(super) fn destroy_contents(&self) {
        self.over.store(true, Ordering::SeqCst);
        for content in lock(&self.contents).drain(..).filter_map(|content| content.upgrade()) {
            content.destroy();
        }
    }

    /// Remembers who could leave RAM.
    pub(super) fn is_resident(&self, sealed: &Arc<Sealed>) {
        let mut residents = lock(&self.residents);
        if residents.len() == residents.capacity() {
            residents.retain(|sealed| sealed.strong_count() > 0);
        }
        residents.push_back(Arc::downgrade(sealed));
    }

    pub(super) fn is_plain(&self, file: &Arc<File>, block: u64) {
        let mut plains = lock(&self.plains);
        if plains.len() == plains.capacity() {
            let mut seen = HashSet::new();
            plains.retain(|(file, block)| {
                file.upgrade().is_some_and(|file| {
                    let is_plain = matches!(file.state().blocks.get(block), Some(Block::Plain(_)));
                    is_plain && seen.insert((file.node, *block))
                })
            });
        }
        plains.push_back((Arc::downgrade(file), block));
    }

    pub(super) fn oldest_plain(&self) -> Option<(Arc<File>, u64)> {
        let mut plains = lock(&self.plains);
        while let Some((file, block)) = plains.pop_front() {
            if let Some(file) = file.upgrade()
                && matches!(file.state().blocks.get(&block), Some(Block::Plain(_)))
            {
                return Some((file, block));
            }
        }
        None
    }

    /// A buffer for so much plaintext of a block, if there is room now.
    pub(super) fn try_room(&self, plain: usize) -> Option<Buffer> {
        if let Some(buffer) = self.budget.try_buffer(room_len(plain)) {
            return Some(buffer);
        }
        while self.leave_ram() {
            if let Some(buffer) = self.budget.try_buffer(room_len(plain)) {
                return Some(buffer);
            }
        }
        None
    }

    /// The RAM of one block that lies in the spool. False: there is none.
    fn leave_ram(&self) -> bool {
        let mut residents = lock(&self.residents);
        for _ in 0..residents.len() {
            let Some(resident) = residents.pop_front() else { break };
            let Some(sealed) = resident.upgrade() else { continue };
            if sealed.leave_ram() {
                return true;
            }
            if sealed.in_ram().is_some() {
                residents.push_back(resident);
            }
        }
        false
    }

    /// Sealed blocks that have no place in the spool, the oldest first.
    pub(super) fn homeless(&self) -> Vec<Arc<Sealed>> {
        let residents = lock(&self.residents);
        let homeless = |sealed: &Arc<Sealed>| sealed.spooled().is_none();
        residents.iter().filter_map(Weak::upgrade).filter(homeless).collect()
    }

    /// Lets go of all that is at home, or in an upload; how many blocks.
    pub(super) fn let_go(&self) -> usize {
        let files = self.names().files();
        let mut many = 0;
        for (_, file) in files {
            many += lock(&file.cache).clear();
            let mut state = file.state();
            if let Some(pending) = &*lock(&file.pending) {
                let (records, gone) = pending.let_go(file.node, &state);
                if !records.is_empty() {
                    self.record(&records);
                }
                // Nobody else is given their places before that is written down.
                drop(gone);
            }
            many += state.drop_uploaded();
            let before = state.blocks.len();
            state.drop_clean();
            many += before - state.blocks.len();
        }
        many
    }

    pub(super) fn eased(&self) -> watch::Receiver<()> {
        self.eased.subscribe()
    }

    /// Nothing is under way that could give room back.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    pub(super) fn record(&self, records: &[Record]) {
        self.journal.append(records);
    }

    /// Bytes of the file are nowhere any more.
    pub(super) fn lose(&self, file: &File) {
        let mut state = file.state();
        state.lost = true;
        self.record(&[Record::Dirty { node: file.node }]);
    }
}

pub(super) async fn wait_for_room(eased: &mut watch::Receiver<()>, idle: bool) {
    let most = if idle { LOOK_TWICE } else { LOOK_AGAIN };
    let _looks_again = tokio::time::timeout(most, eased.changed()).await;
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn attributes(mode: u32, mtime: SystemTime) -> Attributes {
    let (mtime_s, mtime_ns) = match mtime.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let up = u64::from(before.subsec_nanos() > 0);
            let seconds = i64::try_from(before.as_secs() + up).unwrap_or(i64::MAX);
            let nanos = 1_000_000_000 - before.subsec_nanos();
            (-seconds, if up > 0 { nanos } else { 0 })
        }
    };
    Attributes { mode: mode & 0o7777, mtime_s, mtime_ns }
}

pub(super) fn time_of(attributes: &Attributes) -> SystemTime {
    let seconds = Duration::from_secs(attributes.mtime_s.unsigned_abs());
    let whole = if attributes.mtime_s < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let nanos = Duration::from_nanos(attributes.mtime_ns.into());
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}
