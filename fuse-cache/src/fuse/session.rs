//! FUSE sessions on descriptors that somebody else mounted and answered INIT for.
//!
//! fuser runs the INIT exchange when a session is made, and this connection had its INIT before this
//! process began. So the session is made on one end of a socket pair, the holder's saved INIT request
//! is sent into the other end, and once fuser has answered it the real `/dev/fuse` descriptor takes
//! the place of the socket. Nothing of fuser is patched.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use fuser::{Config, Filesystem, Session, SessionACL};
use rustix::io::DupFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `FUSE_NOTIFY_RESEND` (Linux 6.9).
const NOTIFY_RESEND: i32 = 7;

/// Makes a session on `device`, an initialised `/dev/fuse` descriptor whose INIT request was `init`.
pub(crate) fn adopt<F: Filesystem>(
    filesystem: F,
    device: &OwnedFd,
    init: &[u8],
) -> io::Result<Session<F>> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET, // one request is one read, as on /dev/fuse
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&ours, init, rustix::net::SendFlags::NOSIGNAL)?;
    let mut config = Config::default();
    config.acl = SessionACL::All; // the kernel checks permissions (default_permissions)
    let session = Session::from_fd(filesystem, theirs, SessionACL::All, config)?;
    replace(session.as_fd().as_raw_fd(), device)?;
    Ok(session)
}

/// Puts `device` under the number `target`, closing what was there.
#[allow(
    unsafe_code,
    reason = "fuser owns the number and has no call to exchange what is behind it"
)]
fn replace(target: i32, device: &OwnedFd) -> io::Result<()> {
    // SAFETY: `target` is open and owned by the session whose caller holds it exclusively, and no
    // thread reads it yet. The handle made here is never dropped, so the number is closed once, by
    // the session. dup3 exchanges the open file behind the number in one step.
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
