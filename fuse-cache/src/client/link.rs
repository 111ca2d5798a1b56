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
    closing: bool,
}

/// The socket as rustls writes its records to it, all at once and without a copy.
struct Socket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Socket<'_, '_> {
    fn now(written: Poll<io::Result<usize>>) -> io::Result<usize> {
        match written {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Socket<'_, '_> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        Self::now(Pin::new(&mut *self.tcp).poll_write(self.cx, record))
    }

    fn write_vectored(&mut self, records: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Self::now(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, records))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link {
    pub(super) fn new(tcp: TcpStream, tls: ClientConnection) -> Self {
        Self { tcp, tls, received: Buffer::unbudgeted(RECEIVE), pending: 0..0, closing: false }
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
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket { tcp: &mut self.tcp, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(why) => return Poll::Ready(Err(why)),
            }
        }
        Poll::Ready(Ok(()))
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
