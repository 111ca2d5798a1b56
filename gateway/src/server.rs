//! Connections: accepted, bounded, shaken hands with, and handed to the routes with who is calling.
//!
//! Three bounds keep strangers out of workers' way: handshakes under way, connections without a
//! certificate, and connections with one each have their own permits, and no worker takes the
//! places of all others. Whoever is slow with a
//! handshake, a request's head or reading an answer is dropped.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tidegate_kit::tls::PeerIdentity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::admission::Caller;
use crate::config::Limits;
use crate::seats::{Seat, Seats};
use crate::stop::{Stop, stopped};

/// A handshake is two round trips; over a slow link that is a second.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time for a request's head, also the idle time of a connection without a certificate.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// Idle time of a worker's connection: longer than any heartbeat.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// An answer that the peer does not take for so long ends the connection, and frees its buffers.
const STALL_MS: u32 = 60_000;
/// A stranger's whole business is two small requests.
const STRANGER_TIME: Duration = Duration::from_secs(60);
/// Request heads: the longest we know is a few hundred bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Sealed records that wait for the socket: a frame of a block goes out in one system call.
const SEND_BUFFER: usize = 288 * 1024;
/// Waits after a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Permits and settings of a listener.
pub(crate) struct Door {
    router: Router,
    tls: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    seats: Seats,
}

impl Door {
    pub(crate) fn new(router: Router, tls: Arc<ServerConfig>, limits: &Limits) -> Self {
        Self {
            router,
            tls: TlsAcceptor::from(tls),
            handshakes: Arc::new(Semaphore::new(limits.connections.max(limits.strangers))),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            workers: Arc::new(Semaphore::new(limits.connections)),
            seats: Seats::default(),
        }
    }

    /// Accepts until told to stop, then lets requests under way finish.
    pub(crate) async fn keep(self, listener: TcpListener, mut stop: Stop) {
        let door = Arc::new(self);
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = open.join_next() => continue,
                accepted = door.accept(&listener) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            let (door, stop) = (Arc::clone(&door), stop.clone());
            open.spawn(async move {
                let shaken = door.shake_hands(stream).await;
                drop(permit);
                if let Some((stream, caller)) = shaken {
                    door.talk(stream, caller, stop).await;
                }
            });
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.handshakes).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, _)) => {
                // Both are for speed and tidiness only: a connection works without.
                let _ = stream.set_nodelay(true);
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STALL_MS);
                Some((stream, permit))
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    /// The TLS handshake, and what the peer's certificate says.
    async fn shake_hands<S>(
        &self,
        stream: S,
    ) -> Option<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Caller)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = tokio::time::timeout(HANDSHAKE_TIME, self.tls.accept(stream)).await;
        let mut stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                metrics::counter!("tidegate_handshakes_failed_total").increment(1);
                tracing::debug!(%error, "a handshake failed");
                return None;
            }
            Err(_) => {
                metrics::counter!("tidegate_handshakes_failed_total").increment(1);
                return None;
            }
        };
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER));
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let caller = match certificate.map(PeerIdentity::from_certificate).transpose() {
            Ok(peer) => Caller(peer.map(Arc::new)),
            Err(error) => {
                tracing::warn!(%error, "a certificate of our own authority names no worker");
                return None;
            }
        };
        Some((stream, caller))
    }

    /// HTTP/1.1 on one connection until either side has enough.
    async fn talk<S>(&self, stream: S, caller: Caller, mut stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let known = caller.0.is_some();
        let permits = if known { &self.workers } else { &self.strangers };
        let permit = Arc::clone(permits).try_acquire_owned().ok();
        let seat = caller.0.as_deref().map(|peer| self.seats.take(peer));
        let (Some(_permit), Some(_seat)) = (permit, seat.unwrap_or_else(|| Some(Seat::none())))
        else {
            metrics::counter!("tidegate_connections_dropped_total").increment(1);
            return;
        };
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            router.clone().oneshot(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(if known { IDLE_TIME } else { HEAD_TIME })
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let life = async {
            if known {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STRANGER_TIME).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = life => return,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
