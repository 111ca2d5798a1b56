//! Requests and answers over whichever connection is free. All go to one gateway; when it does not
//! answer in time or cannot serve now, to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_kit::clock::boottime;
use tidegate_kit::tls::{ClientIdentity, Endpoint, client_config};
use tidegate_wire::{MAX_JSON_BODY, Problem, ProblemKind, SEALED_MEDIA_TYPE};
use tokio::time::{Instant, timeout_at};

use super::block::BlockBody;
use super::connection::Connection;
use super::idle::Idle;
use super::outgoing::Outgoing;
use super::{ClientError, Identity};

/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);
/// A word of the gateway that comes later than this after it was asked for is dropped: the lease may have
/// ended meanwhile. By the boot clock, so what comes after a suspend is late.
const FRESH: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer: a gateway may have to gather a packed block from hundreds
/// of objects first. Also the longest silence within a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shortest such wait.
const SHORTEST: Duration = Duration::from_secs(3);

/// Bytes of an answer that shows thereby that it comes.
const PROGRESS: usize = 64 << 10;

/// Times as long for what a store at home must make durable first.
const PATIENTLY: u32 = 2;

pub(super) struct Pool {
    endpoints: Vec<Endpoint>,
    /// The gateway that answered last is asked first.
    preferred: AtomicUsize,
    idle: Arc<Idle>,
    patience: Duration,
}

impl Pool {
    /// Connections without a certificate of ours, for the attach itself.
    pub(super) fn anonymous(endpoints: Vec<Endpoint>, ca: &str) -> Result<Self, ClientError> {
        let idle = Arc::new(Idle::new(config(ca, None)?));
        Ok(Self { endpoints, preferred: AtomicUsize::new(0), idle, patience: PATIENCE })
    }

    /// Waits for one gateway no longer than a third of the grace, so that there is time to ask others;
    /// but not so short that a busy gateway is taken for a dead one.
    pub(super) fn hurry(&mut self, grace: Duration) {
        self.patience = (grace / 3).clamp(SHORTEST, PATIENCE);
    }

    /// Uses a new certificate for every connection from now on.
    pub(super) fn renew(
        &self,
        ca: &str,
        certificate: &str,
        identity: &Identity,
    ) -> Result<(), ClientError> {
        let identity =
            ClientIdentity { certificate: certificate.to_owned(), key: identity.clone() };
        self.idle.renew(config(ca, Some(&identity))?);
        Ok(())
    }

    /// Sends JSON and reads JSON, both bounded.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.post_bytes(route, json(body)?).await
    }

    /// As [`Self::post`], with the body as it is; it may be empty.
    pub(super) async fn post_bytes<T: DeserializeOwned>(
        &self,
        route: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let within = self.patience.min(FRESH);
        let body = Outgoing::whole(body);
        let (connection, response, asked) = self.send(Method::POST, route, &body, within).await?;
        let bytes = read_json(response.into_body(), MAX_JSON_BODY, within).await?;
        if boottime().saturating_sub(asked) > FRESH {
            return Err(ClientError::Unreachable("the answer came too late".into()));
        }
        self.idle.put_back(connection);
        serde_json::from_slice(&bytes)
            .map_err(|why| ClientError::Nonsense(format!("the answer of {route}: {why}")))
    }

    /// As [`Self::post`] for what may take long and is right however late it comes. Its answer is of at most
    /// `most` bytes.
    pub(super) async fn post_patiently<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &Outgoing,
        most: usize,
    ) -> Result<T, ClientError> {
        let (connection, response, _) =
            self.send(Method::POST, route, body, self.patience * PATIENTLY).await?;
        let bytes = read_json(response.into_body(), most, self.patience).await?;
        self.idle.put_back(connection);
        serde_json::from_slice(&bytes)
            .map_err(|why| ClientError::Nonsense(format!("the answer of {route}: {why}")))
    }

    /// Asks for bytes that must be exactly `len` long.
    pub(super) async fn post_for_bytes(
        &self,
        route: &str,
        body: &impl Serialize,
        len: u64,
    ) -> Result<BlockBody, ClientError> {
        let body = Outgoing::whole(json(body)?);
        let sent = self.send(Method::POST, route, &body, self.patience * PATIENTLY).await?;
        self.body_of(sent, len)
    }

    /// Begins to read sealed bytes that must be exactly `len` long.
    pub(super) async fn get_sealed(&self, route: &str, len: u64) -> Result<BlockBody, ClientError> {
        let none = Outgoing::whole(Bytes::new());
        let sent = self.send(Method::GET, route, &none, self.patience).await?;
        self.body_of(sent, len)
    }

    fn body_of(&self, sent: Answer, len: u64) -> Result<BlockBody, ClientError> {
        let (connection, response, _) = sent;
        let stated = response.headers().get(CONTENT_LENGTH);
        let stated: Option<u64> = stated.and_then(|len| len.to_str().ok()?.parse().ok());
        if stated != Some(len) {
            let what = format!("{len} bytes were due, the gateway announces {stated:?}");
            return Err(ClientError::Nonsense(what));
        }
        let idle = Arc::clone(&self.idle);
        Ok(BlockBody::new(idle, connection, response.into_body(), len, self.patience))
    }

    /// Sends a request over an idle or a new connection; anything but 2xx is an error. Every request of
    /// the protocol may be repeated, so each gateway is asked once before it is given up. A connection
    /// that was idle may have died without its gateway, and does not count. With the answer comes when on
    /// the boot clock it was asked for.
    async fn send(
        &self,
        method: Method,
        route: &str,
        body: &Outgoing,
        within: Duration,
    ) -> Result<Answer, ClientError> {
        let (mut refused, mut dead) = (0, 0);
        loop {
            let reused = self.idle.take();
            let was_reused = reused.is_some();
            let mut connection = match reused {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut request = Request::builder()
                .method(method.clone())
                .uri(route)
                .header(HOST, connection.authority());
            if method == Method::POST {
                let kind = if body.is_sealed() { SEALED_MEDIA_TYPE } else { "application/json" };
                request = request.header(CONTENT_TYPE, kind);
            }
            let (body, progress) = body.body();
            let request = request
                .body(body)
                .map_err(|why| ClientError::Nonsense(format!("our own request: {why}")))?;
            let asked = boottime();
            let why = match connection.send(request, &progress, within).await {
                Ok(response) if response.status().is_success() => {
                    return Ok((connection, response, asked));
                }
                Ok(response) => refusal(response, within).await,
                Err(why) => why,
            };
            let unreachable = matches!(why, ClientError::Unreachable(_));
            if !unreachable && why.refusal() != Some(ProblemKind::Unavailable) {
                return Err(why);
            }
            self.turn_from(connection.endpoint);
            if unreachable && was_reused && dead < self.endpoints.len() {
                dead += 1;
            } else {
                refused += 1;
            }
            if refused >= self.endpoints.len() {
                return Err(why);
            }
        }
    }

    /// The next connection goes to another gateway, if there is one.
    fn turn_from(&self, endpoint: usize) {
        self.idle.drop_all_to(endpoint);
        let next = (endpoint + 1) % self.endpoints.len();
        // When it is not the preferred one, somebody else has turned away before us.
        let _ =
            self.preferred.compare_exchange(endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let (config, generation) = self.idle.config();
        let within = CONNECT.min(self.patience);
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = ClientError::Unreachable("the join file names no gateway".into());
        for turn in 0..self.endpoints.len() {
            let index = (first + turn) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            match Connection::open(endpoint, Arc::clone(&config), within).await {
                Ok(mut opened) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    (opened.generation, opened.endpoint) = (generation, index);
                    return Ok(opened);
                }
                Err(why) => last = why,
            }
        }
        Err(last)
    }
}

/// The connection that it came over, its head, and when on the boot clock it was asked for.
type Answer = (Connection, Response<Incoming>, Duration);

pub(super) fn json(body: &impl Serialize) -> Result<Bytes, ClientError> {
    let body = serde_json::to_vec(body);
    Ok(body.map_err(|why| ClientError::Nonsense(format!("our own request: {why}")))?.into())
}

fn config(ca: &str, identity: Option<&ClientIdentity>) -> Result<Arc<ClientConfig>, ClientError> {
    client_config(ca, identity)
        .map_err(|why| ClientError::Untrusted(format!("the authority or certificate: {why}")))
}

/// Reads a body of at most `most` bytes, `PROGRESS` of them or its end within that time.
async fn read_json(body: Incoming, most: usize, within: Duration) -> Result<Bytes, ClientError> {
    let mut body = Limited::new(body, most);
    let mut whole = BytesMut::new();
    let (mut until, mut renewed) = (Instant::now() + within, 0);
    loop {
        match timeout_at(until, body.frame()).await {
            Err(_) => {
                return Err(ClientError::Unreachable("the answer's body does not come".into()));
            }
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Ok(frame))) => whole.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Ok(Some(Err(why))) if why.is::<http_body_util::LengthLimitError>() => {
                return Err(ClientError::Nonsense(format!("an answer over {most} bytes")));
            }
            Ok(Some(Err(why))) => {
                return Err(ClientError::Unreachable(format!("the answer broke off: {why}")));
            }
        }
        if whole.len() - renewed >= PROGRESS {
            (until, renewed) = (Instant::now() + within, whole.len());
        }
    }
}

async fn refusal(response: Response<Incoming>, within: Duration) -> ClientError {
    let status = response.status();
    let body = match read_json(response.into_body(), MAX_JSON_BODY, within).await {
        Ok(body) => body,
        Err(why) => return why,
    };
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem)
            if problem.status == status.as_u16() && problem.kind.status() == problem.status =>
        {
            ClientError::Refused(Box::new(problem))
        }
        _ if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::BAD_GATEWAY => {
            ClientError::Unreachable(format!("a balancer answers {status}"))
        }
        _ => ClientError::Nonsense(format!("status {status} without a problem document")),
    }
}
