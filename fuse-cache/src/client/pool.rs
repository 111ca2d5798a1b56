//! Requests and answers over whichever connection is free, the gateways in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_kit::tls::{ClientIdentity, client_config};
use tidegate_wire::{MAX_JSON_BODY, Problem};
use tokio::time::timeout;

use super::block::BlockBody;
use super::connection::Connection;
use super::endpoint::Endpoint;
use super::idle::Idle;
use super::{ClientError, Identity};

/// For the body of a JSON answer.
const BODY: Duration = Duration::from_secs(15);

pub(super) struct Pool {
    endpoints: Vec<Endpoint>,
    /// The gateway that answered last is asked first.
    preferred: AtomicUsize,
    idle: Arc<Idle>,
}

impl Pool {
    /// Connections without a certificate of ours, for the attach itself.
    pub(super) fn anonymous(endpoints: Vec<Endpoint>, ca: &str) -> Result<Self, ClientError> {
        let idle = Arc::new(Idle::new(config(ca, None)?));
        Ok(Self { endpoints, preferred: AtomicUsize::new(0), idle })
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
        let body = serde_json::to_vec(body)
            .map_err(|why| ClientError::Nonsense(format!("our own request: {why}")))?;
        self.post_bytes(route, body.into()).await
    }

    /// As [`Self::post`], with the body as it is; it may be empty.
    pub(super) async fn post_bytes<T: DeserializeOwned>(
        &self,
        route: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let (connection, response) = self.send(Method::POST, route, body).await?;
        let bytes = read_small(response.into_body()).await?;
        self.idle.put_back(connection);
        serde_json::from_slice(&bytes)
            .map_err(|why| ClientError::Nonsense(format!("the answer of {route}: {why}")))
    }

    /// Begins to read sealed bytes that must be exactly `len` long.
    pub(super) async fn get_sealed(&self, route: &str, len: u64) -> Result<BlockBody, ClientError> {
        let (connection, response) = self.send(Method::GET, route, Bytes::new()).await?;
        let stated = response.headers().get(CONTENT_LENGTH);
        let stated: Option<u64> = stated.and_then(|len| len.to_str().ok()?.parse().ok());
        if stated != Some(len) {
            let what = format!("{len} sealed bytes were due, the gateway announces {stated:?}");
            return Err(ClientError::Nonsense(what));
        }
        Ok(BlockBody::new(Arc::clone(&self.idle), connection, response.into_body(), len))
    }

    /// Sends a request over an idle or a new connection; anything but 2xx is an error. A connection
    /// that was idle may have died meanwhile, so its failure is tried once more over a new one:
    /// every request of the protocol may be repeated.
    async fn send(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
    ) -> Result<(Connection, Response<Incoming>), ClientError> {
        let mut reused = self.idle.take();
        loop {
            let was_reused = reused.is_some();
            let mut connection = match reused.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut request = Request::builder()
                .method(method.clone())
                .uri(route)
                .header(HOST, connection.authority());
            if method == Method::POST {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            let request = request
                .body(Full::new(body.clone()))
                .map_err(|why| ClientError::Nonsense(format!("our own request: {why}")))?;
            match connection.send(request).await {
                Ok(response) if response.status().is_success() => {
                    return Ok((connection, response));
                }
                Ok(response) => return Err(refusal(response).await),
                Err(ClientError::Unreachable(_)) if was_reused => {}
                Err(why) => return Err(why),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let (config, generation) = self.idle.config();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = ClientError::Unreachable("the join file names no gateway".into());
        for turn in 0..self.endpoints.len() {
            let index = (first + turn) % self.endpoints.len();
            match Connection::open(&self.endpoints[index], Arc::clone(&config), generation).await {
                Ok(connection) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(why) => last = why,
            }
        }
        Err(last)
    }
}

fn config(ca: &str, identity: Option<&ClientIdentity>) -> Result<Arc<ClientConfig>, ClientError> {
    client_config(ca, identity)
        .map_err(|why| ClientError::Untrusted(format!("the authority or certificate: {why}")))
}

async fn read_small(body: Incoming) -> Result<Bytes, ClientError> {
    let collected = timeout(BODY, Limited::new(body, MAX_JSON_BODY).collect())
        .await
        .map_err(|_| ClientError::Unreachable("the answer's body does not come".into()))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(why) if why.is::<http_body_util::LengthLimitError>() => {
            Err(ClientError::Nonsense(format!("an answer over {MAX_JSON_BODY} bytes")))
        }
        Err(why) => Err(ClientError::Unreachable(format!("the answer broke off: {why}"))),
    }
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let body = match read_small(response.into_body()).await {
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
