//! FUSE sessions on descriptors that somebody else mounted and answered INIT for.
//!
//! fuser runs the INIT exchange when a session is made, and this connection had its INIT before this
//! process began. So the session is made on one end of a socket pair, the holder's saved INIT request
//! is sent into the other end, and once fuser has answered it the real `/dev/fuse` descriptor takes
//! the place of the socket. Nothing of fuser is patched.
//!
//! Between the two its thread reads once from a pipe, a request of no consequence that is as long as any will
//! be. The pages of its buffer are there then. A worker that is killed while the kernel copies a request into a
//! page that is not there fails that request: EIO in the job, and nothing left for the next worker to answer.
//! Into pages that are there the copy succeeds, and the request is sent again like others. Where the worker's
//! memory is locked they stay.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, Filesystem, Session, SessionACL};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{DupFlags, Errno, ioctl_fionread};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// `FUSE_NOTIFY_RESEND` (Linux 6.9).
const NOTIFY_RESEND: i32 = 7;
/// `FUSE_BATCH_FORGET`, which has no answer.
const BATCH_FORGET: u32 = 42;
/// Length of one that forgets nothing: `fuse_in_header`, `fuse_batch_forget_in`.
const NOTHING: u32 = 48;
/// Bytes in front of what is written: `fuse_in_header`, `fuse_write_in`.
const HEAD: usize = 80;
/// No other request has more.
const OTHERS: usize = 4096;
/// A thread that has just been made reads within this.
const SOON: Duration = Duration::from_secs(10);

/// Makes a session that had its INIT, for [`start`].
pub(crate) fn adopt<F: Filesystem>(filesystem: F, init: &[u8]) -> io::Result<Session<F>> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET, // one request is one read, as on /dev/fuse
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&ours, init, rustix::net::SendFlags::NOSIGNAL)?;
    let mut config = Config::default();
    config.acl = SessionACL::All; // the kernel checks permissions (default_permissions)
    Session::from_fd(filesystem, theirs, SessionACL::All, config)
}

/// Runs a session on `device`, an initialised `/dev/fuse` descriptor whose requests bring at most so many bytes
/// to write.
pub(crate) fn start<F: Filesystem>(
    session: Session<F>,
    device: &OwnedFd,
    longest_write: usize,
) -> io::Result<BackgroundSession> {
    let number = session.as_fd().as_raw_fd();
    let first = First::of(OTHERS.max(HEAD + longest_write)).inspect_err(|error| {
        tracing::warn!(%error, "should this worker be killed, a request may fail in the job");
    });
    replace(number, first.as_ref().map_or(device, |first| &first.reader))?;
    // It keeps the number open for as long as it lives, whatever becomes of its thread.
    let running = session.spawn()?;
    if let Ok(first) = first {
        first.wait();
        replace(number, device)?;
        first.go_on();
    }
    Ok(running)
}

/// What a thread reads first: a pipe with one request in it.
struct First {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl First {
    /// One of so many bytes, or as many as a pipe may have.
    fn of(longest: usize) -> rustix::io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&writer, OFlags::NONBLOCK)?;
        let wanted = longest.next_power_of_two();
        // Where no pipe is longer than 1 MiB (`pipe-max-size`, pipe(7)) it lacks the last 80 bytes. They lie in a page
        // that it touches: a long buffer of glibc's begins 16 bytes into one.
        fcntl_setpipe_size(&writer, wanted).or_else(|_| fcntl_setpipe_size(&writer, wanted / 2))?;
        let mut request = nothing();
        request.resize(fcntl_getpipe_size(&writer)?.min(longest), 0);
        rustix::io::write(&writer, &request)?;
        Ok(Self { reader, writer })
    }

    /// Until the thread has read it.
    fn wait(&self) {
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            // In one read: the kernel takes all of it, and then says that there is none.
            if ioctl_fionread(&self.reader).is_ok_and(|left| left == 0) {
                return;
            }
            thread::sleep(Duration::from_micros(100));
        }
        tracing::warn!("a FUSE thread is slow to begin");
    }

    /// To the next read, should the thread wait at the pipe. Where a full one has no room for this, it does not: it
    /// has not read from it yet.
    fn go_on(self) {
        match rustix::io::write(&self.writer, &nothing()) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => tracing::warn!(%error, "a FUSE thread may be left behind"),
        }
    }
}

/// A request that forgets no node.
fn nothing() -> Vec<u8> {
    let mut request = vec![0; NOTHING as usize];
    request[..4].copy_from_slice(&NOTHING.to_ne_bytes());
    request[4..8].copy_from_slice(&BATCH_FORGET.to_ne_bytes());
    request
}

/// Puts `device` under the number `target`, closing what was there.
#[allow(
    unsafe_code,
    reason = "fuser owns the number and has no call to exchange what is behind it"
)]
fn replace(target: i32, device: &OwnedFd) -> io::Result<()> {
    // SAFETY: `target` is open and owned by the session, which outlives this call. The handle made here is
    // never dropped, so the number is closed once, by the session. dup3 exchanges the open file behind the
    // number in one step: a thread that reads from what was there goes on with that, and then with this.
    let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(target) });
    rustix::io::dup3(device, &mut target, DupFlags::CLOEXEC)?;
    Ok(())
}

/// Asks the kernel to send again what was taken and never answered, on every queue of the connection.
/// Only before any session runs: what a live thread works on would be sent twice.
pub(crate) fn resend(device: impl AsFd) -> io::Result<()> {
    let mut notice = [0u8; 16]; // fuse_out_header: length, notify code in place of an error, unique 0
    notice[..4].copy_from_slice(&16u32.to_ne_bytes());
    notice[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(device, &notice)?;
    Ok(())
}

#[cfg(test)]
mod tests;
