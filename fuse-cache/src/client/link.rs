//! The TLS stream of a connection after its handshake, for much data in one direction.
//!
//! tokio-rustls hands out one record at a time and rustls takes 4 KiB a time from its socket. Here
//! the socket is read in large pieces and each read gives all the records that fit, so that a
//! block costs few system calls and few turns of the tasks that pass it on.

use std::io::{self, BufRead as _, Write as _};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::budget::Buffer;

/// What is taken from the socket at once, bytes.
const RECEIVE: usize = 128 << 10;

pub(super) struct Link {
    tcp: TcpStream,
    tls: ClientConnection,
    /// Records as received; those in `pending` are not yet in `tls`.
    received: Buffer,
    pending: Range<usize>,
    /// Records to send, of which those before `sent` are gone.
    sending: Vec<u8>,
    sent: usize,
    closing: bool,
}

impl Link {
    pub(super) fn new(tcp: TcpStream, tls: ClientConnection) -> Self {
        Self {
            tcp,
            tls,
            received: Buffer::unbudgeted(RECEIVE),
            pending: 0..0,
            sending: Vec::new(),
            sent: 0,
            closing: false,
        }
    }

    /// Moves plaintext that is there to `out`. True at the end of the stream.
    fn drain(&mut self, out: &mut ReadBuf<'_>) -> io::Result<bool> {
        while out.remaining() > 0 {
            let mut reader = self.tls.reader();
            let many = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(plain) => {
                    let many = plain.len().min(out.remaining());
                    out.put_slice(&plain[..many]);
                    many
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    if !self.decrypt()? {
                        break;
                    }
                    continue;
                }
                Err(why) => return Err(why),
            };
            reader.consume(many);
        }
        Ok(false)
    }

    /// Gives `tls` a part of what was received. False when there is nothing left.
    fn decrypt(&mut self) -> io::Result<bool> {
        let mut rest = &self.received[self.pending.clone()];
        if rest.is_empty() {
            return Ok(false);
        }
        self.pending.start += self.tls.read_tls(&mut rest)?;
        self.tls
            .process_new_packets()
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        Ok(true)
    }

    /// Takes more from the socket.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buf = ReadBuf::new(&mut self.received);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf))?;
        let many = buf.filled().len();
        self.pending = 0..many;
        if many == 0 {
            // Tells rustls, which knows whether the peer had said good-bye.
            self.tls.read_tls(&mut io::empty())?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what `tls` has to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sent == self.sending.len() {
                self.sending.clear();
                self.sent = 0;
                if !self.tls.wants_write() {
                    return Poll::Ready(Ok(()));
                }
                self.tls.write_tls(&mut self.sending)?;
            }
            let rest = &self.sending[self.sent..];
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                many => self.sent += many,
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let link = self.get_mut();
        let before = out.filled().len();
        loop {
            let ended = link.drain(out)?;
            // A key update asks for an answer; it need not be gone before we read on.
            if link.tls.wants_write()
                && let Poll::Ready(Err(why)) = link.poll_send(cx)
            {
                return Poll::Ready(Err(why));
            }
            if ended || out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(link.poll_receive(cx))?;
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        ready!(link.poll_send(cx))?;
        let many = link.tls.writer().write(data)?;
        // What does not go now goes with the flush.
        if let Poll::Ready(Err(why)) = link.poll_send(cx) {
            return Poll::Ready(Err(why));
        }
        Poll::Ready(Ok(many))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        ready!(link.poll_send(cx))?;
        let many = link.tls.writer().write_vectored(pieces)?;
        if let Poll::Ready(Err(why)) = link.poll_send(cx) {
            return Poll::Ready(Err(why));
        }
        Poll::Ready(Ok(many))
    }

    /// So that pieces of a body are not copied together first.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = self.get_mut();
        if !link.closing {
            link.closing = true;
            link.tls.send_close_notify();
        }
        ready!(link.poll_send(cx))?;
        Pin::new(&mut link.tcp).poll_shutdown(cx)
    }
}
