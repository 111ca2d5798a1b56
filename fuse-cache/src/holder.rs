//! The mount holder: mounts, answers INIT and keeps the `/dev/fuse` descriptors.
//!
//! The holder outlives workers. It opens `/dev/fuse`, mounts it (data read-only, results writable), answers the kernel's INIT
//! itself and makes one clone of the descriptor for each thread of the worker. Workers get the very
//! same descriptors over a Unix socket, so that when one is killed the connection stays, requests it
//! had taken are sent again (`FUSE_NOTIFY_RESEND`) and no read fails. The connection ends when the
//! holder lets go of its descriptors.

mod init;

pub use self::init::{Feature, MountKind};

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use self::init::{Init, InitError};

/// Readahead of the mount: the size of the largest request, so that a small file is one round trip.
const READ_AHEAD_KIB: u32 = 1024;

/// Longest INIT request read: the kernel refuses shorter buffers (`FUSE_MIN_READ_BUFFER` and the default write size).
const INIT_BUFFER: usize = 256 << 10;

/// Where and how to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    pub kind: MountKind,
    /// An existing directory; empty and no mount point unless `cover` is set.
    pub at: PathBuf,
    /// Hide what is at the path. Only in a private mount namespace, where nobody else loses sight of it.
    pub cover: bool,
    /// Threads of the worker, one `/dev/fuse` descriptor each; 1 to 64.
    pub threads: usize,
    /// Kernel features to do without, as on a kernel that does not have them.
    pub without: Vec<Feature>,
}

/// Why there is no mount. Nothing is left mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    #[error("mount point {at} does not exist; make the directory first")]
    Missing { at: PathBuf },
    #[error("mount point {at} is not a directory")]
    NotDirectory { at: PathBuf },
    #[error("mount point {at} is not empty; mounting there would hide what is in it")]
    NotEmpty { at: PathBuf },
    #[error("something is already mounted at {at}; unmount it or choose another path")]
    Busy { at: PathBuf },
    #[error(
        "a mount that nobody serves any more lies at {at}; take it away with `umount -l {at}` and try again"
    )]
    Dead { at: PathBuf },
    #[error("mount point {at} cannot be used")]
    Unusable { at: PathBuf, source: io::Error },
    #[error(
        "/dev/fuse is missing: load the kernel's fuse module (modprobe fuse) or give the container the device"
    )]
    DeviceMissing,
    #[error(
        "/dev/fuse may not be opened by this user: run as root, or let the user open it (chmod 666 /dev/fuse)"
    )]
    DeviceForbidden,
    #[error("/dev/fuse cannot be opened")]
    Device(#[source] io::Error),
    #[error("mounting is not permitted here: run as root, or where user namespaces are allowed")]
    Forbidden,
    #[error("the kernel has no FUSE: load the module (modprobe fuse)")]
    NoFuse,
    #[error("{0}")]
    Protocol(String),
    #[error("mounting at {at} failed")]
    Failed { at: PathBuf, source: io::Error },
}

/// A live mount and its connection. Dropping it unmounts and ends the connection.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    /// The descriptor that mounted, then its clones.
    devices: Vec<OwnedFd>,
    init: Vec<u8>,
    can_resend: bool,
    mount_id: Option<u64>,
    mounted: bool,
}

impl Mount {
    /// Mounts and answers INIT. Requests of readers wait in the kernel until a worker takes them.
    pub fn new(options: MountOptions) -> Result<Self, MountError> {
        let at = check_mount_point(&options.at, options.cover)?;
        let device = open_device()?;
        mount_device(&device, &at, options.kind)?;
        let mut mount = Self {
            mount_id: mount_id(&at),
            at,
            devices: vec![device],
            init: Vec::new(),
            can_resend: false,
            mounted: true,
        };
        mount.answer_init(options.kind, &options.without)?;
        for _ in 1..options.threads.clamp(1, 64) {
            let clone =
                clone_device(mount.devices[0].as_fd()).map_err(|source| mount.failed(source))?;
            mount.devices.push(clone);
        }
        mount.set_read_ahead();
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Whether a killed worker can be replaced without a failed read (Linux 6.9 and newer).
    pub fn can_resend(&self) -> bool {
        self.can_resend
    }

    pub(crate) fn id(&self) -> Option<u64> {
        self.mount_id
    }

    /// User and group that the files belong to: whoever mounted.
    pub(crate) fn owner(&self) -> (u32, u32) {
        owner()
    }

    pub(crate) fn devices(&self) -> Vec<BorrowedFd<'_>> {
        self.devices.iter().map(AsFd::as_fd).collect()
    }

    /// The kernel's INIT request, for a worker to replay to its FUSE library.
    pub(crate) fn init(&self) -> &[u8] {
        &self.init
    }

    /// Takes the mount off its path. `Ok(true)`: nobody was using it. `Ok(false)`: somebody was, so it
    /// is detached and lives on, unreachable by name, until they let go or the connection ends.
    pub fn unmount(&mut self) -> io::Result<bool> {
        if !std::mem::replace(&mut self.mounted, false) {
            return Ok(true);
        }
        unmount(&self.at, self.mount_id)
    }

    /// Takes the data away from everybody without a worker's help: ends the connection, so that no read
    /// waits any more, and makes the kernel drop what it has cached, out of mappings too. Inodes are
    /// numbered from 1. Only root on the host may do this; the mount of anybody else ends when its
    /// descriptors are let go of, and cached pages with the processes that have them.
    pub(crate) fn end_readers(&mut self, inodes: u64) {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::FORCE | UnmountFlags::DETACH;
        if mount_id(&self.at) != self.mount_id {
            return; // taken away by us or by somebody else
        }
        if let Err(error) = rustix::mount::unmount(&self.at, flags) {
            tracing::warn!(%error, "the kernel keeps cached pages until their processes end");
            return;
        }
        self.mounted = false;
        // A page that is still being read would be waited for: that is why the connection ended first.
        let unknown = (1..=inodes).filter(|inode| self.drop_pages(*inode).is_err()).count();
        tracing::debug!(inodes, unknown, "cached pages were dropped");
    }

    /// An error for an inode that the kernel does not have.
    fn drop_pages(&self, inode: u64) -> io::Result<()> {
        const NOTIFY_INVAL_INODE: i32 = 2;
        // fuse_out_header: length, notify code in place of an error, unique 0; then the inode, and from
        // 0 to the end.
        let mut notice = [0u8; 40];
        notice[..4].copy_from_slice(&40u32.to_ne_bytes());
        notice[4..8].copy_from_slice(&NOTIFY_INVAL_INODE.to_ne_bytes());
        notice[16..24].copy_from_slice(&inode.to_ne_bytes());
        rustix::io::write(&self.devices[0], &notice)?;
        Ok(())
    }

    /// Unmounts and lets go of the descriptors. Once no worker holds them either, the kernel ends the
    /// connection and whoever still waits in a read gets an error.
    pub fn close(mut self) -> io::Result<bool> {
        self.unmount()
    }

    fn answer_init(&mut self, kind: MountKind, without: &[Feature]) -> Result<(), MountError> {
        let device = &self.devices[0];
        let mut request = vec![0; INIT_BUFFER];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(device, &mut request[..]))
            .map_err(|error| self.failed(error.into()))?;
        request.truncate(length);
        let init = Init::parse(&request)
            .map_err(|error: InitError| MountError::Protocol(error.to_string()))?
            .without(without);
        rustix::io::write(device, &init.answer(kind)).map_err(|error| self.failed(error.into()))?;
        self.can_resend = init.can_resend();
        self.init = request;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> MountError {
        MountError::Failed { at: self.at.clone(), source }
    }

    /// The kernel starts every FUSE mount at 128 KiB and lets only sysfs raise it. Best effort:
    /// without it (an ordinary user) small files take more round trips.
    fn set_read_ahead(&self) {
        let Some(device) = self.mount_id.and_then(device_number) else { return };
        let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
        if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
            tracing::debug!(%path, %error, "readahead stays at the kernel's default");
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::error!(at = %self.at.display(), %error, "could not unmount");
        }
    }
}

/// Takes away the mount that is known by `mount_id`, if it is still at `at`. See [`Mount::unmount`].
pub(crate) fn unmount(at: &Path, id: Option<u64>) -> io::Result<bool> {
    let idle = unmount_if_idle(at, id)?;
    if !idle {
        rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
    }
    Ok(idle)
}

/// Whether nobody uses the mount now; it stays. The kernel would take a mount away that is asked about twice
/// without being used in between, and looking at its id is a use.
pub(crate) fn is_idle(at: &Path, id: Option<u64>) -> io::Result<bool> {
    if mount_id(at) != id {
        return Ok(true); // taken away by somebody else already
    }
    match rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::EXPIRE) {
        Ok(()) | Err(Errno::AGAIN | Errno::INVAL | Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The same if nobody is using the mount; `Ok(false)`, and nothing is done, if somebody is.
pub(crate) fn unmount_if_idle(at: &Path, id: Option<u64>) -> io::Result<bool> {
    if mount_id(at) != id {
        return Ok(true); // taken away by somebody else already
    }
    match rustix::mount::unmount(at, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn check_mount_point(at: &Path, cover: bool) -> Result<PathBuf, MountError> {
    let unusable = |source: io::Error| match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOTCONN | Errno::CONNABORTED) => MountError::Dead { at: at.to_owned() },
        _ => MountError::Unusable { at: at.to_owned(), source },
    };
    let path = match at.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing { at: at.to_owned() });
        }
        Err(error) => return Err(unusable(error)),
    };
    if !path.metadata().map_err(unusable)?.is_dir() {
        return Err(MountError::NotDirectory { at: path });
    }
    if cover {
        return Ok(path);
    }
    let parent = path.parent().map_or_else(|| path.clone(), Path::to_owned);
    if mount_id(&path).is_some_and(|id| mount_id(&parent) != Some(id)) {
        return Err(MountError::Busy { at: path });
    }
    if std::fs::read_dir(&path).map_err(unusable)?.next().is_some() {
        return Err(MountError::NotEmpty { at: path });
    }
    Ok(path)
}

fn open_device() -> Result<OwnedFd, MountError> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        match error {
            Errno::NOENT => MountError::DeviceMissing,
            Errno::NODEV | Errno::NXIO => MountError::NoFuse,
            Errno::ACCESS | Errno::PERM => MountError::DeviceForbidden,
            other => MountError::Device(other.into()),
        }
    })
}

fn mount_device(device: &OwnedFd, at: &Path, kind: MountKind) -> Result<(), MountError> {
    let (uid, gid) = owner();
    let data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},allow_other,default_permissions,max_read={}",
        device.as_raw_fd(),
        u32::from(init::MAX_PAGES) * 4096,
    );
    let data = CString::new(data).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let flags = match kind {
        MountKind::Data => flags | MountFlags::RDONLY,
        MountKind::Results => flags,
    };
    rustix::mount::mount("tidegate", at, "fuse.tidegate", flags, data.as_c_str()).map_err(|error| {
        match error {
            Errno::PERM | Errno::ACCESS => MountError::Forbidden,
            Errno::NODEV => MountError::NoFuse,
            Errno::BUSY => MountError::Busy { at: at.to_owned() },
            other => MountError::Failed { at: at.to_owned(), source: other.into() },
        }
    })
}

fn owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, uint32_t)`: a second queue on the same connection.
fn clone_device(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const CLONE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(229, 0);
    let clone = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let source = u32::try_from(device.as_raw_fd()).map_err(io::Error::other)?;
    #[allow(unsafe_code, reason = "an ioctl that rustix has no function for")]
    // SAFETY: the kernel reads one u32 behind the pointer, the number of a descriptor that is open
    // for the length of the call (`device` borrows it), and keeps no pointer.
    unsafe {
        rustix::ioctl::ioctl(&clone, rustix::ioctl::Setter::<CLONE, u32>::new(source))?;
    }
    Ok(clone)
}

/// Id of the mount that `path` leads to, without asking the file system that is mounted there:
/// nobody may be answering it.
fn mount_id(path: &Path) -> Option<u64> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// `major:minor` of a mount, from `/proc/self/mountinfo`.
fn device_number(mount_id: u64) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next()?.parse() == Ok(mount_id)).then_some(())?;
        fields.nth(1).map(str::to_owned)
    })
}
