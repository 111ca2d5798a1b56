//! Listing a directory tree with several threads.
//!
//! One task is a directory to list, or a part of a large directory's names to look at: so neither
//! a deep tree nor a flat one is walked by one thread alone. Latency of a network file system is
//! what the threads hide.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{Access, AtFlags, FileType, OFlags, RawDir, accessat, readlinkat, statat};
use rustix::io::Errno;
use tidegate_plan::{Entry, Kind, RelPath, Version};

use super::beneath::{Facts, denied, open_beneath};
use super::found::Found;

const THREADS: usize = 8;
/// Names of one directory that one thread looks at in a go.
const BATCH: usize = 1024;
/// Bytes of directory entries fetched by one system call.
const LISTING: usize = 64 << 10;

const DENIED: &str = "permission denied";

/// A directory could not be listed for another reason than permission: the listing would be
/// incomplete, so there is none.
#[derive(Debug)]
pub(super) struct Broken {
    /// Relative path, empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) errno: Errno,
}

pub(super) fn walk(root: BorrowedFd<'_>) -> Result<Found, Broken> {
    let walk = Walk { root, queue: Mutex::new(Queue::default()), changed: Condvar::new() };
    walk.push([Task::List { path: Vec::new(), entry: None }]);
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| walk.work())).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut all = Found::default();
    for part in parts {
        all.extend(part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    match walk.queue.into_inner().unwrap_or_else(PoisonError::into_inner).broken {
        Some(broken) => Err(broken),
        None => Ok(all),
    }
}

#[derive(Debug)]
enum Task {
    /// `entry` is shown once the directory was opened; the root has none.
    List {
        path: Vec<u8>,
        entry: Option<Entry>,
    },
    Look {
        dir: Arc<OwnedFd>,
        path: Arc<[u8]>,
        names: Vec<Box<[u8]>>,
    },
}

#[derive(Debug, Default)]
struct Queue {
    tasks: Vec<Task>,
    running: usize,
    broken: Option<Broken>,
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, tasks: impl IntoIterator<Item = Task>) {
        self.lock().tasks.extend(tasks);
        self.changed.notify_all();
    }

    /// Waits for a task; `None` when there will be no more.
    fn next(&self) -> Option<Task> {
        let mut queue = self.lock();
        loop {
            if queue.broken.is_some() {
                return None;
            }
            if let Some(task) = queue.tasks.pop() {
                queue.running += 1;
                return Some(task);
            }
            if queue.running == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, result: Result<(), Broken>) {
        let mut queue = self.lock();
        queue.running -= 1;
        if let Err(broken) = result {
            queue.broken.get_or_insert(broken);
        }
        if queue.running == 0 || queue.broken.is_some() {
            self.changed.notify_all();
        }
    }

    fn work(&self) -> Found {
        let mut found = Found::default();
        while let Some(task) = self.next() {
            let result = match task {
                Task::List { path, entry } => self.list(path, entry, &mut found),
                Task::Look { dir, path, names } => {
                    self.look(dir.as_fd(), &path, &names, &mut found);
                    Ok(())
                }
            };
            self.done(result);
        }
        found
    }

    fn list(&self, path: Vec<u8>, entry: Option<Entry>, found: &mut Found) -> Result<(), Broken> {
        let name: &[u8] = if path.is_empty() { b"." } else { &path };
        let dir = match open_beneath(self.root, name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(errno) if denied(errno) && entry.is_some() => {
                found.cannot_show(&path, DENIED);
                return Ok(());
            }
            // Removed or replaced while the walk was on its way to it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if entry.is_some() => return Ok(()),
            Err(errno) => return Err(Broken { path, errno }),
        };
        let mut names = Vec::new();
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); LISTING];
        let mut listing = RawDir::new(&dir, &mut buffer);
        while let Some(item) = listing.next() {
            match item {
                Ok(item) => {
                    let name = item.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        names.push(Box::from(name));
                    }
                }
                // The directory was removed while it was read.
                Err(Errno::NOENT) if entry.is_some() => return Ok(()),
                Err(errno) => return Err(Broken { path, errno }),
            }
        }
        found.entries.extend(entry);
        // By name, so that the listing is made of sorted runs, and each thread has sorted its own.
        names.sort_unstable();
        if names.len() <= BATCH {
            self.look(dir.as_fd(), &path, &names, found);
            return Ok(());
        }
        let (dir, path) = (Arc::new(dir), Arc::<[u8]>::from(path));
        let mut tasks = Vec::with_capacity(names.len() / BATCH + 1);
        let mut names = names.into_iter().peekable();
        while names.peek().is_some() {
            let names = names.by_ref().take(BATCH).collect();
            tasks.push(Task::Look { dir: Arc::clone(&dir), path: Arc::clone(&path), names });
        }
        self.push(tasks);
        Ok(())
    }

    fn look(&self, dir: BorrowedFd<'_>, path: &[u8], names: &[Box<[u8]>], found: &mut Found) {
        let mut below = Vec::new();
        for name in names {
            let mut full = path.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(name);
            match look_at(dir, name, full.clone()) {
                Ok(Some(Seen::Entry(entry))) => found.entries.push(entry),
                Ok(Some(Seen::Dir(entry))) => {
                    below.push(Task::List { path: full, entry: Some(entry) });
                }
                Ok(None) => {}
                Err(reason) => found.cannot_show(&full, reason),
            }
        }
        if !below.is_empty() {
            self.push(below);
        }
    }
}

enum Seen {
    Entry(Entry),
    Dir(Entry),
}

/// What lies under one name; `None` when it went away meanwhile, `Err` why it cannot be shown.
fn look_at(dir: BorrowedFd<'_>, name: &[u8], full: Vec<u8>) -> Result<Option<Seen>, String> {
    let path = RelPath::new(full).map_err(|refused| refused.to_string())?;
    let gone_or = |errno: Errno| match errno {
        Errno::NOENT => Ok(None),
        errno if denied(errno) => Err(DENIED.to_owned()),
        errno => Err(errno.to_string()),
    };
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(errno) => return gone_or(errno),
    };
    let Facts { size, mtime, version } = Facts::of(&stat);
    let mode = stat.st_mode & 0o7777;
    let entry = |kind, size, version| Entry { path, kind, size, mode, mtime, version };
    let special = |what: &str| Err(format!("{what}, not a file"));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => match accessat(dir, name, Access::READ_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(Some(Seen::Entry(entry(Kind::File, size, version)))),
            Err(errno) => gone_or(errno),
        },
        FileType::Directory => Ok(Some(Seen::Dir(entry(Kind::Dir, 0, Version::None)))),
        FileType::Symlink => match readlinkat(dir, name, Vec::new()) {
            Ok(target) => {
                let target = target.into_bytes().into_boxed_slice();
                let size = target.len() as u64;
                Ok(Some(Seen::Entry(entry(Kind::Symlink(target), size, Version::None))))
            }
            // Became something else since: it has no one version.
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => gone_or(errno),
        },
        FileType::Socket => special("a socket"),
        FileType::Fifo => special("a named pipe"),
        FileType::CharacterDevice | FileType::BlockDevice => special("a device"),
        FileType::Unknown => special("of an unknown kind"),
    }
}
