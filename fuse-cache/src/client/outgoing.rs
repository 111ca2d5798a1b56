//! Bodies of requests: a few bytes, or sealed pieces one behind the other that need not be in memory
//! together, and are never copied together.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// Body from which on its own way is waited for, bytes.
const LONG: u64 = 64 << 10;

/// What is passed on at once, bytes: as much as TLS takes at once, and as finely as progress is seen.
const FRAME: usize = 64 << 10;

/// One piece of a body when its turn comes.
pub(crate) enum Piece {
    Ready(Bytes),
    /// To be called where blocking is allowed.
    Blocking(Box<dyn FnOnce() -> io::Result<Bytes> + Send>),
}

/// Gives a piece; called again for each try.
pub(crate) type Source = Arc<dyn Fn() -> Piece + Send + Sync>;

/// A body that can be sent again.
#[derive(Clone)]
pub(crate) struct Outgoing {
    head: Bytes,
    pieces: Vec<Source>,
    len: u64,
    broken: Arc<AtomicBool>,
}

impl Outgoing {
    /// A head and what follows it, `len` bytes together.
    pub(crate) fn new(head: Bytes, pieces: Vec<Source>, len: u64) -> Self {
        Self { head, pieces, len, broken: Arc::default() }
    }

    pub(crate) fn whole(body: Bytes) -> Self {
        let len = body.len() as u64;
        Self { head: body, pieces: Vec::new(), len, broken: Arc::default() }
    }

    /// Some of it could not be read, in one of the tries.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(super) fn is_sealed(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The body for one try, and what it counts its progress in.
    pub(super) fn body(&self) -> (OutgoingBody, Progress) {
        let progress = Progress { passed: Arc::default(), len: self.len };
        let body = OutgoingBody {
            now: self.head.clone(),
            rest: self.pieces.iter().map(Arc::clone).collect(),
            loading: None,
            left: self.len,
            passed: Arc::clone(&progress.passed),
            broken: Arc::clone(&self.broken),
        };
        (body, progress)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({} bytes)", self.len)
    }
}

/// How much of a body was taken from us.
pub(super) struct Progress {
    passed: Arc<AtomicU64>,
    len: u64,
}

impl Progress {
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Longer than what a socket takes at once: that it went says little about when it arrives.
    pub(super) fn is_long(&self) -> bool {
        self.len > LONG
    }

    pub(super) fn is_complete(&self) -> bool {
        self.passed() >= self.len
    }
}

pub(super) struct OutgoingBody {
    now: Bytes,
    rest: VecDeque<Source>,
    loading: Option<JoinHandle<io::Result<Bytes>>>,
    left: u64,
    passed: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let body = self.get_mut();
        while body.now.is_empty() {
            if let Some(loading) = &mut body.loading {
                let loaded = ready!(Pin::new(loading).poll(cx));
                body.loading = None;
                match loaded.map_err(io::Error::other).flatten() {
                    Ok(bytes) => body.now = bytes,
                    Err(why) => {
                        body.broken.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Err(why)));
                    }
                }
                continue;
            }
            match body.rest.pop_front() {
                None => return Poll::Ready(None),
                Some(source) => match source() {
                    Piece::Ready(bytes) => body.now = bytes,
                    Piece::Blocking(load) => body.loading = Some(tokio::task::spawn_blocking(load)),
                },
            }
        }
        let frame = body.now.split_to(body.now.len().min(FRAME));
        let many = frame.len() as u64;
        body.left = body.left.saturating_sub(many);
        body.passed.fetch_add(many, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
