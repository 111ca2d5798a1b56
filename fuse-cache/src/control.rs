//! What the holder and the worker say to each other: JSON messages over a Unix stream socket that is
//! the worker's standard input. Each is a length, a count of descriptors that ride on the length, and
//! the text.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_wire::{Base64, Counters, Directive, JoinFile, MAX_WIPE_BODY, WipeReceipt};
use zeroize::Zeroizing;

/// Longest text either side reads, in bytes: a wipe's statement and its receipt.
const MAX_TEXT: usize = 2 * MAX_WIPE_BODY;
/// Most descriptors a message carries (the kernel's own limit is 253).
const MAX_DESCRIPTORS: usize = 128;
const HEADER: usize = 4;

/// From the holder to its worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// First of all; carries the identity memfd, with results the journal memfd, then the `/dev/fuse`
    /// descriptors of the data's mount, and those of the results' mount.
    Start(Box<Start>),
    /// Destroy the keys and everything after it, say so to the gateway, end.
    Wipe,
    /// Send [`FromWorker::Figures`].
    Measure,
    /// Answer to [`FromWorker::KeysDestroyed`]: nothing is mounted any more. `clean`: nobody used it.
    Unmounted { clean: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) join: JoinFile,
    pub(crate) cache_dir: PathBuf,
    /// Most bytes of ciphertext on disk; none: as [`crate::store::StoreConfig`] says.
    pub(crate) cache_bytes: Option<u64>,
    /// Budget of all buffers in bytes.
    pub(crate) memory: u64,
    pub(crate) connections: usize,
    /// The mount point; only to take it away should the holder vanish.
    pub(crate) at: PathBuf,
    pub(crate) mount_id: Option<u64>,
    /// The kernel's INIT request.
    pub(crate) init: Base64,
    /// Counts the workers of this mount, from 1.
    pub(crate) generation: u32,
    /// Seconds to wait for a gateway in trouble before saying that nothing can be served.
    pub(crate) patience: u32,
    /// When the staging began, on the boot clock.
    pub(crate) begun: Duration,
    /// What killed workers of this mount had counted, as far as they could report it.
    pub(crate) before: Progress,
    /// User and group that the files belong to.
    pub(crate) owner: (u32, u32),
    /// Collect figures: the holder will ask for them.
    pub(crate) metered: bool,
    /// The mount for results, if there is one.
    pub(crate) results: Option<ResultsStart>,
}

/// What a worker is told of the mount for results.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResultsStart {
    /// Of the descriptors, the last so many are this mount's.
    pub(crate) devices: usize,
    pub(crate) at: PathBuf,
    pub(crate) mount_id: Option<u64>,
    /// The kernel's INIT request.
    pub(crate) init: Base64,
    /// Most bytes of ciphertext on disk.
    pub(crate) spool_bytes: Option<u64>,
    /// `fsync` and `close` return once everything is sealed on this machine's disk.
    pub(crate) asynchronous: bool,
    /// A lease that brings nothing home is an error; otherwise the mount is not used.
    pub(crate) required: bool,
}

/// From a worker to its holder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// Attached, keys and manifest are here, reads are answered.
    Ready(Ready),
    Progress(Progress),
    /// Answer to [`ToWorker::Measure`].
    Figures(Figures),
    /// The gateway ended or drains the lease.
    Directed(Directive),
    /// Until when on the boot clock reads are answered without another word of a gateway. `None`: the
    /// keys and all plaintext are gone, and reads fail until the next such message.
    Serving {
        until: Option<Duration>,
    },
    /// Keys are gone and cached pages dropped: take the mount away.
    KeysDestroyed,
    /// The whole wipe is done and the gateway has counter-signed it.
    Wiped {
        receipt: Box<WipeReceipt>,
        statement: String,
    },
    Failed {
        code: FailureCode,
        message: String,
    },
}

/// What a share turned out to be once the worker serves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pub files: u64,
    /// Sum of the file sizes.
    pub bytes: u64,
    pub blocks: u32,
    /// Inodes of the mount, numbered from 1.
    pub inodes: u64,
    /// Plaintext length of the manifest, held in memory apart from the buffer budget.
    pub manifest_bytes: u64,
    /// Sealed bytes of the cache on disk.
    pub cache_bytes: u64,
    /// Lease deadline, seconds since the epoch.
    pub deadline: u64,
    /// Seconds that reads wait for a gateway which is away.
    pub grace: u32,
    /// What may be brought home; `None`: nothing, and there is no mount for it.
    pub results: Option<ReadyResults>,
}

/// What a worker may bring home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyResults {
    /// Bytes and files, what is stored again counted again.
    pub bytes: u64,
    pub files: u64,
    /// What an earlier attempt stored is shown.
    pub resumed: bool,
    /// Seconds that it may take once the job has ended.
    pub drain_s: u32,
}

/// A worker's metrics at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// In Prometheus' text form.
    pub text: String,
    /// Reads are answered and the gateway was heard within the grace.
    pub ready: bool,
}

/// How far the workers of a mount are. What a killed worker counted in its last half second is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub resident_blocks: u32,
    pub blocks: u32,
    pub blocks_fetched: u64,
    /// Sealed bytes received.
    pub bytes_fetched: u64,
    /// Plaintext bytes answered to readers.
    pub bytes_read: u64,
    pub reads: u64,
    pub read_errors: u64,
    pub refetched: u64,
    /// From [`WorkerLaunch::begun`](crate::supervisor::WorkerLaunch::begun) to the first byte that could be read.
    pub first_byte_ms: Option<u64>,
    /// Results on their way; `None` where none are brought home.
    pub results: Option<ResultsProgress>,
}

/// How far results are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsProgress {
    /// Written and not at home.
    pub unsent_bytes: u64,
    /// Files of which something is not at home.
    pub unsent_files: u64,
    /// Sealed bytes on this machine's disk.
    pub spool_bytes: u64,
    /// Brought home; what was stored again counts again.
    pub home_bytes: u64,
    pub home_files: u64,
    /// How long the oldest byte that is not at home has waited.
    pub oldest_unsaved_s: Option<u64>,
    /// The job is over, and only results are waited for.
    pub draining: bool,
}

impl Progress {
    /// What this worker counted, on top of what its predecessors had.
    pub(crate) fn with(self, counters: &Counters) -> Self {
        Self {
            blocks_fetched: self.blocks_fetched + counters.blocks_fetched,
            bytes_fetched: self.bytes_fetched + counters.bytes_fetched,
            bytes_read: self.bytes_read + counters.bytes_read,
            reads: self.reads + counters.reads,
            read_errors: self.read_errors + counters.read_errors,
            refetched: self.refetched + counters.refetched,
            ..self
        }
    }
}

/// Why a worker cannot go on, sorted by what somebody must do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureCode {
    /// The cache directory: missing, read-only, full, too small.
    Cache,
    /// The worker itself failed; its log says more.
    Internal,
    /// The lease is closed or past its deadline.
    LeaseOver,
    /// A mount for results was asked for, and the lease brings none home.
    NoResults,
    /// The gateway's answer makes no sense.
    Nonsense,
    /// The gateway refused: token unknown, used by another, or not for this.
    Refused,
    /// No gateway can be reached.
    Unreachable,
    /// Wrong CA, or a ledger receipt that does not hold.
    Untrusted,
}

/// One end of the control socket. Both directions may be used from different threads.
#[derive(Debug)]
pub(crate) struct Control(UnixStream);

impl Control {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    pub(crate) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(message)?);
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let header = length.to_ne_bytes();
        rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(&header)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        (&self.0).write_all(&text)
    }

    /// How long a `receive` waits for the other side before it fails.
    pub(crate) fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(time))
    }

    /// The next message and its descriptors; `None` when the other side is gone.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut header = [0u8; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut header)],
                &mut ancillary,
                flags,
            )
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes != HEADER {
            return Ok(None); // the sender died inside a header
        }
        let length = usize::try_from(u32::from_ne_bytes(header)).map_err(io::Error::other)?;
        if length > MAX_TEXT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "control message too long"));
        }
        let mut text = Zeroizing::new(vec![0; length]);
        match (&self.0).read_exact(&mut text) {
            Ok(()) => Ok(Some((serde_json::from_slice(&text)?, descriptors))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;
    use std::os::fd::AsFd;

    #[test]
    fn messages_and_descriptors_cross_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, theirs) = (Control::new(ours), Control::new(theirs));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through").unwrap();
        file.rewind().unwrap();
        ours.send(&ToWorker::Unmounted { clean: false }, &[file.as_fd(), file.as_fd()]).unwrap();
        ours.send(&ToWorker::Wipe, &[]).unwrap();
        drop(ours);
        let (first, descriptors) = theirs.receive::<ToWorker>().unwrap().unwrap();
        assert!(matches!(first, ToWorker::Unmounted { clean: false }));
        assert_eq!(descriptors.len(), 2);
        let mut text = String::new();
        let mut received = descriptors.into_iter().map(std::fs::File::from);
        received.next().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let (second, none) = theirs.receive::<ToWorker>().unwrap().unwrap();
        assert!(matches!(second, ToWorker::Wipe) && none.is_empty());
        assert!(theirs.receive::<ToWorker>().unwrap().is_none());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&u32::MAX.to_ne_bytes()).unwrap();
        assert!(Control::new(theirs).receive::<ToWorker>().is_err());
    }

    #[test]
    fn a_message_cut_short_is_an_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&9u32.to_ne_bytes()).unwrap();
        ours.write_all(b"\"Wi").unwrap();
        drop(ours);
        assert!(Control::new(theirs).receive::<ToWorker>().unwrap().is_none());
    }
}
