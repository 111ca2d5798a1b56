//! The least pace at which a peer must take its answers.
//!
//! What waits for a peer lies in buffers that others wait for, and a peer that takes a few bytes now
//! and then would keep them for ever. So a minute of waiting must bring 64 KiB, or the
//! connection ends. Only time counts in which something waits to be sent: a source that is slow, a
//! rate limit or an idle connection is not the peer's fault.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Long against what the kernel's send buffer makes of a slow link: it takes a mebibyte at once, and
/// then nothing for a while.
const SPAN: Duration = Duration::from_secs(60);
/// With 256 workers of 4 connections each on a link of 100 Mbit/s a connection has ten times as much. How
/// much a slow peer may hold meanwhile is its part of the buffers.
const LEAST: u64 = 64 << 10;

/// A connection whose peer must keep pace.
pub(crate) struct Paced<S> {
    stream: S,
    span: Duration,
    /// Something waits to be sent.
    waiting: Option<Waiting>,
}

struct Waiting {
    ends: Pin<Box<Sleep>>,
    taken: u64,
}

impl<S> Paced<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self::over(stream, SPAN)
    }

    const fn over(stream: S, span: Duration) -> Self {
        Self { stream, span, waiting: None }
    }

    /// Counts what a write brought; ends a wait that brings too little.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        wake: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match (&written, &mut self.waiting) {
            (Poll::Ready(Ok(bytes)), Some(waiting)) => waiting.taken += *bytes as u64,
            (Poll::Pending, _) => ready!(self.wait(wake))?,
            _ => {}
        }
        written
    }

    /// Pending while the peer keeps pace, and an error when it does not.
    fn wait(&mut self, wake: &mut Context<'_>) -> Poll<io::Result<()>> {
        let span = self.span;
        let waiting =
            self.waiting.get_or_insert_with(|| Waiting { ends: Box::pin(sleep(span)), taken: 0 });
        loop {
            ready!(waiting.ends.as_mut().poll(wake));
            if waiting.taken < LEAST {
                let why = "the peer takes its answer too slowly";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            waiting.taken = 0;
            waiting.ends.as_mut().reset(Instant::now() + span);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        wake: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(wake, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        wake: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(wake, bytes);
        this.judge(written, wake)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        wake: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(wake, bytes);
        this.judge(written, wake)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, wake: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(wake) {
            Poll::Ready(flushed) => {
                // Nothing waits any more.
                this.waiting = None;
                Poll::Ready(flushed)
            }
            Poll::Pending => this.wait(wake),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, wake: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_shutdown(wake) {
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => this.wait(wake),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes `each` bytes with a pause behind, for as long as there are any.
    async fn drip(mut stream: DuplexStream, each: usize, pause: Duration) {
        let mut bytes = vec![0; each];
        while stream.read_exact(&mut bytes).await.is_ok() {
            sleep(pause).await;
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_a_little_now_and_then_is_let_go() {
        let (near, far) = duplex(64 * 1024);
        let peer = tokio::spawn(drip(far, 1024, SECOND / 20));
        let begun = Instant::now();
        let mut paced = Paced::over(near, SECOND);
        let error = paced.write_all(&vec![7; 4 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= SECOND);
        drop(paced);
        peer.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_keeps_pace_may_take_long() {
        let (near, far) = duplex(256 * 1024);
        let peer = tokio::spawn(drip(far, 256 * 1024, SECOND / 20));
        let begun = Instant::now();
        let mut paced = Paced::over(near, 2 * SECOND);
        paced.write_all(&vec![7; 24 << 20]).await.unwrap();
        assert!(begun.elapsed() > 2 * SECOND, "more than one span");
        drop(paced);
        peer.await.unwrap();
    }

    #[tokio::test]
    async fn time_in_which_nothing_waits_does_not_count() {
        let (near, far) = duplex(16 * 1024);
        let peer = tokio::spawn(drip(far, 16 * 1024, SECOND / 100));
        let mut paced = Paced::over(near, SECOND);
        for _ in 0..3 {
            paced.write_all(&[7; 64 * 1024]).await.unwrap();
            paced.flush().await.unwrap();
            sleep(2 * SECOND).await;
        }
        drop(paced);
        peer.await.unwrap();
    }
}
