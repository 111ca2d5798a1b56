//! Connections: accepted, bounded, shaken hands with, and handed to the routes with who is calling.
//!
//! Three bounds keep strangers out of workers' way: handshakes under way (see [`crate::lobby`]),
//! connections without a certificate, and connections with one each have their own permits, and no
//! worker takes the places of all others. Whoever is slow with a handshake, a request's head or
//! reading an answer is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tidegate_kit::tls::PeerIdentity;
use tidegate_wire::ProblemKind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::admission::Caller;
use crate::config::Limits;
use crate::lobby::{Lobby, Origin, Place, Proved, Ticket};
use crate::meters;
use crate::pace::Paced;
use crate::problem::Refusal;
use crate::seats::Seats;
use crate::stop::{Stop, stopped};

/// A handshake is two round trips; over a slow link that is a second.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time for a request's head, also the idle time of a connection without a certificate.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// Idle time of a worker's connection: longer than any heartbeat.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// A peer that takes nothing at all for so long is gone; one that takes little is for [`Paced`].
const STALL_MS: u32 = 60_000;
/// A stranger's whole business is two small requests.
const STRANGER_TIME: Duration = Duration::from_secs(60);
/// And tried again now and then; who asks more often comes back over a new connection.
const STRANGER_REQUESTS: u32 = 16;
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
    lobby: Arc<Lobby>,
    workers: Arc<Semaphore>,
    seats: Seats,
}

impl Door {
    pub(crate) fn new(router: Router, tls: Arc<ServerConfig>, limits: &Limits) -> Self {
        Self {
            router,
            tls: TlsAcceptor::from(tls),
            lobby: Arc::new(Lobby::new(limits.strangers, limits.connections)),
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
            let Some((stream, address)) = accepted else { continue };
            let origin = Origin::of(address.ip());
            let Some(ticket) = door.lobby.look(origin) else {
                meters::DROPPED.add_for(&["flood"], 1);
                continue;
            };
            let (door, stop) = (Arc::clone(&door), stop.clone());
            open.spawn(async move { door.serve(stream, origin, ticket, stop).await });
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Both are for speed and tidiness only: a connection works without.
                let _ = stream.set_nodelay(true);
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STALL_MS);
                Some((stream, address))
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    /// One connection from its acceptance to its end. A stranger keeps its place in the lobby, a
    /// worker gives it up for one of the workers'.
    async fn serve<S>(&self, stream: S, origin: Origin, ticket: Ticket, mut stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let welcomed = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            welcomed = self.welcome(stream, ticket) => welcomed,
        };
        let Some((stream, caller, place)) = welcomed else { return };
        let Some(peer) = caller.0.clone() else {
            let Some(_place) = self.lobby.of_stranger(place) else {
                meters::DROPPED.add_for(&["strangers"], 1);
                return;
            };
            let _open = meters::CONNECTIONS.one_more(&["stranger"]);
            return self.talk(stream, caller, origin, stop).await;
        };
        self.lobby.worker_seen(origin);
        drop(place);
        let permit = Arc::clone(&self.workers).try_acquire_owned().ok();
        let (Some(_permit), Some(_seat)) = (permit, self.seats.take(&peer)) else {
            meters::DROPPED.add_for(&["workers"], 1);
            return;
        };
        let _open = meters::CONNECTIONS.one_more(&["worker"]);
        // Whatever is logged of this connection names its lease.
        let span = tracing::error_span!("worker", lease = %peer.lease, rank = peer.rank);
        self.talk(stream, caller, origin, stop).instrument(span).await;
    }

    /// A place and a handshake.
    async fn welcome<S>(
        &self,
        stream: S,
        ticket: Ticket,
    ) -> Option<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static + use<S>, Caller, Place)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(place) = self.lobby.enter(ticket).await else {
            meters::DROPPED.add_for(&["flood"], 1);
            return None;
        };
        let _under_way = meters::CONNECTIONS.one_more(&["handshake"]);
        let (stream, caller) = self.shake_hands(stream).await?;
        Some((stream, caller, place))
    }

    /// The TLS handshake, and what the peer's certificate says.
    async fn shake_hands<S>(
        &self,
        stream: S,
    ) -> Option<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static + use<S>, Caller)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = tokio::time::timeout(HANDSHAKE_TIME, self.tls.accept(stream)).await;
        let mut stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                meters::HANDSHAKES_FAILED.add(1);
                tracing::debug!(%error, "a handshake failed");
                return None;
            }
            Err(_) => {
                meters::HANDSHAKES_FAILED.add(1);
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
    async fn talk<S>(&self, stream: S, caller: Caller, origin: Origin, mut stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let known = caller.0.is_some();
        let (router, lobby) = (self.router.clone(), Arc::clone(&self.lobby));
        let asked = Arc::new(AtomicU32::new(0));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            let (router, lobby) = (router.clone(), Arc::clone(&lobby));
            let asked = Arc::clone(&asked);
            async move {
                if !known && asked.fetch_add(1, Ordering::Relaxed) >= STRANGER_REQUESTS {
                    return Ok(enough());
                }
                let answered = router.oneshot(request).await;
                if let Ok(response) = &answered
                    && response.extensions().get::<Proved>().is_some()
                {
                    lobby.worker_seen(origin);
                }
                answered
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(if known { IDLE_TIME } else { HEAD_TIME })
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Paced::new(stream)), service);
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

/// The last answer on a stranger's connection.
fn enough() -> Response {
    let mut response = Refusal::new(ProblemKind::TooMany, "").into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
