//! One budget in bytes for every buffer of the worker, and page-aligned buffers under it.
//!
//! Whoever needs a buffer reserves it first; the reservation travels with the buffer and goes
//! back when it is dropped. The manifest is not counted here: it is stated apart.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::MlockFlags;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroize as _;

/// Memory page, bytes. Buffers begin on one: on some processors copies to an address 16 bytes past
/// a page's start run several times slower.
pub const PAGE: usize = 4096;

/// The budget when none is given and no cgroup limits us more, bytes.
const DEFAULT_BYTES: u64 = 512 << 20;

/// The least that a worker runs with, bytes: scratch for a few readers and two connections.
pub const LEAST_BYTES: u64 = 16 << 20;

/// A shared limit in bytes; clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    pages: Arc<Semaphore>,
    total_pages: u32,
    spares: Option<Arc<Spares>>,
    /// What this one is a part of.
    _whole: Option<Arc<Reservation>>,
}

impl Budget {
    /// A budget of that many bytes, rounded down to pages and never under [`LEAST_BYTES`].
    pub fn new(bytes: u64) -> Self {
        let total_pages =
            u32::try_from(bytes.max(LEAST_BYTES) / PAGE as u64).unwrap_or(u32::MAX >> 4);
        let pages = Arc::new(Semaphore::new(total_pages as usize));
        Self { pages, total_pages, spares: None, _whole: None }
    }

    /// min(512 MiB, a quarter of the cgroup's memory limit), in bytes.
    pub fn default_bytes() -> u64 {
        Self::default_under(cgroup_limit())
    }

    fn default_under(limit: Option<u64>) -> u64 {
        limit.map_or(DEFAULT_BYTES, |limit| DEFAULT_BYTES.min(limit / 4)).max(LEAST_BYTES)
    }

    /// A budget of its own of that many bytes, which are reserved in this one for as long as it lives; at
    /// least a page. Buffers of `spare` bytes are kept when they are [spared](Buffer::spare), as long as
    /// nobody needs their room.
    pub fn part(&self, bytes: u64, reservation: Reservation, spare: usize) -> Self {
        let total_pages = u32::try_from(bytes / PAGE as u64).unwrap_or(u32::MAX >> 4).max(1);
        let pages = Arc::new(Semaphore::new(total_pages as usize));
        let (each, kept) = (spare.div_ceil(PAGE), Mutex::default());
        let spares = Arc::new(Spares { pages: Arc::clone(&pages), each, kept });
        Self { pages, total_pages, spares: Some(spares), _whole: Some(Arc::new(reservation)) }
    }

    pub fn total(&self) -> u64 {
        u64::from(self.total_pages) * PAGE as u64
    }

    /// Bytes reserved now.
    pub fn in_use(&self) -> u64 {
        self.total().saturating_sub(self.pages.available_permits() as u64 * PAGE as u64)
    }

    /// Reserves now or not at all.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let pages = self.pages_of(bytes);
        let permit = Arc::clone(&self.pages).try_acquire_many_owned(pages).ok()?;
        Some(Reservation { _permit: permit })
    }

    /// Waits until that many bytes are free, in the order of asking. A wish beyond the whole budget
    /// is granted the whole budget, so no caller waits for ever.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let pages = self.pages_of(bytes).min(self.total_pages);
        let permit = Arc::clone(&self.pages)
            .acquire_many_owned(pages)
            .await
            .expect("the semaphore is never closed");
        Reservation { _permit: permit }
    }

    /// A page-aligned buffer, when the budget has room for it now: of zeros, or of ciphertext that lay
    /// in a spare one.
    pub fn try_buffer(&self, len: usize) -> Option<Buffer> {
        Some(self.buffer_in(len, self.try_reserve(len)?))
    }

    /// The same once the budget has room for it.
    pub async fn buffer(&self, len: usize) -> Buffer {
        let reservation = self.reserve(len).await;
        self.buffer_in(len, reservation)
    }

    fn buffer_in(&self, len: usize, reservation: Reservation) -> Buffer {
        let Some(spares) = &self.spares else { return Buffer::new(len, reservation) };
        if let Some(pages) = spares.take(len.div_ceil(PAGE)) {
            let (reservation, spares) = (Some(reservation), Some(Arc::clone(spares)));
            return Buffer { pages, len, reservation, spares };
        }
        let mut buffer = Buffer::new(len, reservation);
        buffer.spares = Some(Arc::clone(spares));
        buffer
    }

    fn pages_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {} bytes)", self.in_use(), self.total())
    }
}

/// The smallest `memory.max` from this process's cgroup (v2) up to the root, or the v1 limit.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let mut dir = std::path::PathBuf::from("/sys/fs/cgroup");
    let mut limits = Vec::new();
    let mut read = |dir: &std::path::Path, name: &str| {
        let limit = std::fs::read_to_string(dir.join(name)).ok();
        limits.extend(limit.and_then(|text| text.trim().parse::<u64>().ok()));
    };
    read(&dir, "memory.max");
    read(&dir.join("memory"), "memory.limit_in_bytes");
    for part in path.split('/').filter(|part| !part.is_empty() && *part != "..") {
        dir.push(part);
        read(&dir, "memory.max");
    }
    limits.into_iter().min()
}

/// Bytes of a budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Memory of buffers in which nothing lies that is to be wiped, for buffers to come: fresh memory costs a
/// page fault and a page of zeros each. Together with what is in use it is never more than the budget.
struct Spares {
    /// The budget's.
    pages: Arc<Semaphore>,
    /// Pages of each.
    each: usize,
    kept: Mutex<Vec<Vec<Page>>>,
}

impl Spares {
    fn kept(&self) -> MutexGuard<'_, Vec<Vec<Page>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of so many pages, for which there is a reservation. Those for which there is no room beside it
    /// go.
    fn take(&self, pages: usize) -> Option<Vec<Page>> {
        let mut kept = self.kept();
        let taken = if pages == self.each { kept.pop() } else { None };
        kept.truncate(self.pages.available_permits() / self.each.max(1));
        taken
    }

    /// Of a buffer that still has its reservation.
    fn keep(&self, pages: Vec<Page>) {
        let mut kept = self.kept();
        if pages.len() == self.each && kept.len() * self.each <= self.pages.available_permits() {
            kept.push(pages);
        }
    }
}

/// Page-aligned bytes under a budget, wiped when dropped.
pub struct Buffer {
    pages: Vec<Page>,
    len: usize,
    reservation: Option<Reservation>,
    /// Where it may come to when it is spared.
    spares: Option<Arc<Spares>>,
}

impl Buffer {
    /// `len` zero bytes outside any budget: for what must work when all of it is taken.
    pub fn unbudgeted(len: usize) -> Self {
        let pages = vec![Page([0; PAGE]); len.div_ceil(PAGE)];
        Self { pages, len, reservation: None, spares: None }
    }

    /// `len` zero bytes; the reservation should cover them. Plaintext may come to lie there: they are
    /// kept out of swap where the limit on locked memory allows.
    pub fn new(len: usize, reservation: Reservation) -> Self {
        let mut buffer = Self::unbudgeted(len);
        buffer.reservation = Some(reservation);
        if !buffer.lock() {
            tracing::debug!(len, "a buffer's memory is not locked; swap must be off");
        }
        buffer
    }

    /// Shows no more than the first `len` bytes; what lies behind them is wiped with the rest.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Drops it without wiping its first bytes, which are ciphertext.
    pub fn spare(mut self, ciphertext: usize) {
        self.len = self.pages.len() * PAGE;
        let ciphertext = ciphertext.min(self.len);
        self[ciphertext..].zeroize();
        let pages = std::mem::take(&mut self.pages);
        if let Some(spares) = &self.spares {
            spares.keep(pages);
        }
    }

    /// Never unlocked: that would also undo `mlockall`, and what comes to lie there next is a buffer too.
    fn lock(&mut self) -> bool {
        let len = self.pages.len() * PAGE;
        #[allow(unsafe_code, reason = "a lock concerns addresses")]
        // SAFETY: the range is this vector's own elements; locking changes no byte of them.
        let locked = unsafe {
            rustix::mm::mlock_with(self.pages.as_mut_ptr().cast(), len, MlockFlags::ONFAULT)
        };
        locked.is_ok()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[allow(unsafe_code, reason = "page alignment needs a vector of pages seen as bytes")]
        // SAFETY: `Page` is `repr(C)`, as long as its alignment and made of bytes only, so the
        // vector's elements are `pages.len() * PAGE` initialised bytes, and `len` is no more.
        unsafe {
            std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len)
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        #[allow(unsafe_code, reason = "page alignment needs a vector of pages seen as bytes")]
        // SAFETY: as in `deref`; the borrow of `self` is unique.
        unsafe {
            std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.len)
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.len = self.pages.len() * PAGE;
        self.zeroize();
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_counted_and_given_back() {
        let budget = Budget::new(LEAST_BYTES);
        let buffer = budget.try_buffer(PAGE + 1).unwrap();
        assert_eq!(buffer.as_ptr().addr() % PAGE, 0);
        assert_eq!((buffer.len(), budget.in_use()), (PAGE + 1, 2 * PAGE as u64));
        let rest = usize::try_from(budget.total()).unwrap() - 2 * PAGE;
        let all = budget.try_reserve(rest).unwrap();
        assert!(budget.try_buffer(1).is_none());
        drop((buffer, all));
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn spared_buffers_are_used_again_and_never_exceed_the_budget() {
        const LEN: usize = 3 * PAGE;
        let whole = Budget::new(0);
        let budget = whole.part(10 * PAGE as u64, whole.try_reserve(10 * PAGE).unwrap(), LEN);
        let spares = budget.spares.clone().unwrap();
        let buffers: Vec<_> = (0..3).map(|_| budget.try_buffer(LEN).unwrap()).collect();
        assert!(budget.try_buffer(LEN).is_none());
        for mut buffer in buffers {
            buffer.fill(7);
            buffer.spare(PAGE + 1);
        }
        assert_eq!((budget.in_use(), spares.kept().len()), (0, 3));
        let again = budget.try_buffer(LEN - 5).unwrap();
        assert_eq!((again.len(), spares.kept().len()), (LEN - 5, 2));
        assert!(again[..=PAGE].iter().all(|byte| *byte == 7));
        assert!(again[PAGE + 1..].iter().all(|byte| *byte == 0), "what was no ciphertext is wiped");
        // One of another length takes their room, and is not kept itself.
        let other = budget.try_buffer(5 * PAGE).unwrap();
        assert_eq!(spares.kept().len(), 0);
        other.spare(5 * PAGE);
        assert_eq!(spares.kept().len(), 0);
        // What is dropped is wiped, and not kept.
        drop(again);
        assert_eq!((budget.in_use(), spares.kept().len()), (0, 0));
    }

    #[test]
    fn the_default_is_a_quarter_of_the_limit_within_bounds() {
        assert_eq!(Budget::default_under(None), 512 << 20);
        assert_eq!(Budget::default_under(Some(64 << 30)), 512 << 20);
        assert_eq!(Budget::default_under(Some(1 << 30)), 256 << 20);
        assert_eq!(Budget::default_under(Some(20 << 20)), LEAST_BYTES);
    }

    /// The limit on locked memory is at least 64 KiB everywhere.
    #[test]
    fn buffers_are_locked() {
        let buffer = Budget::new(0).try_buffer(4 * PAGE).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let within = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).ok());
            Some((start?..end?).contains(&buffer.as_ptr().addr()))
        };
        let mut lines = maps.lines().skip_while(|line| within(line) != Some(true));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "lo"), "{flags}");
    }

    #[tokio::test]
    async fn a_waiter_gets_what_is_given_back() {
        let budget = Budget::new(0);
        let all = budget.reserve(usize::MAX).await;
        assert_eq!(budget.in_use(), budget.total());
        let asked = budget.clone();
        let waiter = tokio::spawn(async move { asked.buffer(10).await.len() });
        drop(all);
        assert_eq!(waiter.await.unwrap(), 10);
    }
}
