//! A wide-area link between two network namespaces: delay, rate, loss and cuts, on this machine.
//!
//! Two TUN devices, one in each namespace, and four threads of the test between them: one reads and
//! stamps each packet with when it is due, one waits and writes, each way. The kernel's large
//! segments pass whole (`IFF_VNET_HDR`), so a gigabit costs little. Handshakes, slow start and a shared
//! bottleneck with a drop-tail queue are what a real link has; reordering and jitter are left out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::part;
use crate::process::check;

/// Where the two ends find each other.
pub const HOME: &str = "10.99.0.1";
pub const CLOUD: &str = "10.99.0.2";

/// The largest segment and its header.
const SEGMENT: usize = 70_000;
/// Packets that wait for their time, each way; then it is the tail that is dropped.
const QUEUE: usize = 16_384;

/// What the link is like; may be changed while it is up.
#[derive(Debug)]
struct Shape {
    /// One way, microseconds.
    delay: AtomicU64,
    /// Bits a second; 0 is no limit.
    rate: AtomicU64,
    /// Nothing passes.
    cut: AtomicBool,
    /// The link is taken down.
    over: AtomicBool,
}

/// A link that is up; dropping it takes it down and ends both namespaces.
#[derive(Debug)]
pub struct Wan {
    shape: Arc<Shape>,
    home: Namespace,
    cloud: Namespace,
}

impl Wan {
    /// `delay` one way, `rate` in bits a second each way (0: no limit).
    pub fn start(delay: Duration, rate: u64) -> Result<Self> {
        let shape = Arc::new(Shape {
            delay: AtomicU64::new(u64::try_from(delay.as_micros())?),
            rate: AtomicU64::new(rate),
            cut: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let (home, cloud) = (Namespace::new(HOME)?, Namespace::new(CLOUD)?);
        let (a, b) = (home.device()?, cloud.device()?);
        for (from, to) in [(&a, &b), (&b, &a)] {
            carry(from.try_clone()?, to.try_clone()?, &shape);
        }
        Ok(Self { shape, home, cloud })
    }

    /// The side of the company's own network.
    pub const fn home(&self) -> &Namespace {
        &self.home
    }

    /// The side of the workers.
    pub const fn cloud(&self) -> &Namespace {
        &self.cloud
    }

    pub fn set_rate(&self, bits: u64) {
        self.shape.rate.store(bits, Ordering::Relaxed);
    }

    /// Lets nothing pass, until [`Self::mend`].
    pub fn cut(&self) {
        self.shape.cut.store(true, Ordering::Relaxed);
    }

    pub fn mend(&self) {
        self.shape.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.shape.over.store(true, Ordering::Relaxed);
    }
}

/// A network namespace, held by a process that does nothing.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    address: &'static str,
}

impl Namespace {
    fn new(address: &'static str) -> Result<Self> {
        // It says that it is there, and ends when its standard input is closed.
        let mut holder = Command::new(part::program("unshare")?)
            .args(["--net", "--", "sh", "-c", "echo; exec cat > /dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot make a network namespace")?;
        let ready = holder.stdout.take().context("no output")?.read_exact(&mut [0]);
        let namespace = Self { holder, address };
        ready.context("a network namespace did not come up")?;
        Ok(namespace)
    }

    /// The address of this end.
    pub const fn address(&self) -> &'static str {
        self.address
    }

    /// Words that run a program in here.
    pub fn words(&self) -> Vec<String> {
        ["nsenter".into(), format!("--net={}", self.path()), "--".into()].into()
    }

    /// Does something in here, on a thread of its own. A socket made here stays here.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(File::open(path)?.as_fd(), kind)?;
                work()
            });
            inside.join().map_err(|_| anyhow::anyhow!("panicked in a namespace"))?
        })
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Makes this end's device, moves it in and gives it its address.
    fn device(&self) -> Result<OwnedFd> {
        let name = format!("tg{}", self.holder.id());
        let device = tun(&name)?;
        let ip = part::program("ip")?;
        check(Command::new(&ip).args(["link", "set", &name, "netns", &self.path()]))?;
        for words in [
            vec!["link", "set", "lo", "up"],
            vec!["addr", "add", &format!("{}/30", self.address), "dev", &name],
            vec!["link", "set", &name, "mtu", "1500", "txqueuelen", "10000", "up"],
        ] {
            let inside = self.words();
            check(Command::new(&inside[0]).args(&inside[1..]).arg(&ip).args(words))?;
        }
        Ok(device)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A TUN device of that name that carries whole segments (`linux/if_tun.h`).
fn tun(name: &str) -> Result<OwnedFd> {
    const SET_INTERFACE: rustix::ioctl::Opcode = 0x4004_54ca;
    const SET_OFFLOAD: rustix::ioctl::Opcode = 0x4004_54d0;
    /// `IFF_TUN | IFF_NO_PI | IFF_VNET_HDR`.
    const FLAGS: u16 = 0x0001 | 0x1000 | 0x4000;
    /// `TUN_F_CSUM | TUN_F_TSO4`.
    const OFFLOAD: usize = 0x01 | 0x02;

    let device = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context("/dev/net/tun cannot be opened")?;
    // `struct ifreq`: a name of 16 bytes and a union of 24.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    #[allow(unsafe_code, reason = "ioctls that rustix has no function for")]
    // SAFETY: the first reads and writes one `struct ifreq`, which `request` is as long as; the second
    // takes a number. The kernel keeps no pointer.
    unsafe {
        rustix::ioctl::ioctl(
            &device,
            rustix::ioctl::Updater::<SET_INTERFACE, [u8; 40]>::new(&mut request),
        )
        .context("a TUN device cannot be made")?;
        rustix::ioctl::ioctl(
            &device,
            rustix::ioctl::IntegerSetter::<SET_OFFLOAD>::new_usize(OFFLOAD),
        )
        .context("a TUN device cannot take whole segments")?;
    }
    Ok(device)
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

/// Buffers that go round, so that no packet costs an allocation.
type Spare = Arc<Mutex<VecDeque<Vec<u8>>>>;

/// Starts the two threads of one direction.
fn carry(from: OwnedFd, to: OwnedFd, shape: &Arc<Shape>) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let spare = Spare::default();
    let (shape, theirs) = (Arc::clone(shape), Arc::clone(&spare));
    thread::spawn(move || stamp(from, &sender, &shape, &theirs));
    thread::spawn(move || deliver(to, &receiver, &spare));
}

/// Reads packets and says when each is due; whatever does not fit the queue is dropped.
fn stamp(from: OwnedFd, sender: &SyncSender<Packet>, shape: &Shape, spare: &Spare) {
    let mut device = File::from(from);
    let mut free_at = Instant::now();
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !shape.over.load(Ordering::Relaxed) {
        let mut fds = [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&tick)) == Ok(0) {
            continue;
        }
        let mut bytes = lock(spare).pop_front().unwrap_or_else(|| vec![0; SEGMENT]);
        bytes.resize(SEGMENT, 0);
        let Ok(len) = device.read(&mut bytes) else { continue };
        bytes.truncate(len);
        let rate = shape.rate.load(Ordering::Relaxed);
        let now = Instant::now();
        free_at = free_at.max(now);
        if let Some(nanos) = (len as u64 * 8_000_000_000).checked_div(rate) {
            free_at += Duration::from_nanos(nanos);
        }
        let due = free_at + Duration::from_micros(shape.delay.load(Ordering::Relaxed));
        if shape.cut.load(Ordering::Relaxed) || sender.try_send(Packet { due, bytes }).is_err() {
            free_at = now;
        }
    }
}

/// Writes packets when they are due.
fn deliver(to: OwnedFd, receiver: &Receiver<Packet>, spare: &Spare) {
    let mut device = File::from(to);
    for Packet { due, bytes } in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A device that is going away takes nothing.
        let _ = device.write(&bytes);
        let mut spare = lock(spare);
        if spare.len() < 64 {
            spare.push_back(bytes);
        }
    }
}

fn lock(spare: &Spare) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}
