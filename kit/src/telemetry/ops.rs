//! The listener for operators: `/metrics`, `/livez`, `/readyz`, `/startupz`, over plain HTTP.
//!
//! It tells nothing about leases, names or keys, and takes no orders; still it belongs on loopback
//! or a network of one's own.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once: a scraper, a kubelet, and whoever looks.
const CONNECTIONS: usize = 16;
/// Time for a request's head, also the idle time of a connection.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Time that a connection may take altogether.
const CONNECTION_TIME: Duration = Duration::from_secs(600);
const HEAD_BYTES: usize = 16 * 1024;
/// Between two calls of [`Daemon::upkeep`].
const UPKEEP: Duration = Duration::from_secs(5);
/// Waits after a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A daemon as its operators see it.
pub trait Daemon: Send + Sync + 'static {
    /// Whether it has come up. False only at its beginning.
    fn is_started(&self) -> bool;

    /// Why it should be sent nothing now, in words that may be shown to anybody.
    fn ready(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Its metrics in Prometheus' text form.
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// Called every few seconds, whether anybody asks or not.
    fn upkeep(&self) {}
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for operators: is the port taken?")]
pub struct OpsError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Takes the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, OpsError> {
    TcpListener::bind(address).await.map_err(|source| OpsError { address, source })
}

/// Answers for as long as it is polled; everything ends with the future.
pub async fn serve(listener: TcpListener, daemon: Arc<impl Daemon>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        let accepted = tokio::select! {
            Some(_) = open.join_next() => continue,
            _ = upkeep.tick() => {
                daemon.upkeep();
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else { continue };
        let daemon = Arc::clone(&daemon);
        open.spawn(async move {
            let _permit = permit;
            let _in_time = tokio::time::timeout(CONNECTION_TIME, talk(stream, daemon)).await;
        });
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection of an operator could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn talk(stream: TcpStream, daemon: Arc<impl Daemon>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let daemon = Arc::clone(&daemon);
        async move { Ok::<_, Infallible>(answer(&*daemon, &request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of an operator ended early");
    }
}

async fn answer(daemon: &impl Daemon, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/startupz" if daemon.is_started() => text(StatusCode::OK, "ok\n"),
        "/startupz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        "/readyz" if !daemon.is_started() => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        "/readyz" => match daemon.ready().await {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, daemon.metrics().await);
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "/metrics, /livez, /readyz or /startupz\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[derive(Default)]
    struct Example {
        started: AtomicBool,
        ready: AtomicBool,
    }

    impl Daemon for Example {
        fn is_started(&self) -> bool {
            self.started.load(Ordering::SeqCst)
        }

        async fn ready(&self) -> Result<(), String> {
            if self.ready.load(Ordering::SeqCst) { Ok(()) } else { Err("away".to_owned()) }
        }

        async fn metrics(&self) -> String {
            "example 1\n".to_owned()
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_path_says_its_part() {
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listen(address).await.is_err(), "a taken port is an error");
        let example = Arc::new(Example::default());
        let serving = tokio::spawn(serve(listener, Arc::clone(&example)));
        let status = async |request: &str| ask(address, request).await[9..12].to_owned();
        assert_eq!(status("GET /livez").await, "200");
        assert_eq!(
            (status("GET /startupz").await, status("GET /readyz").await),
            ("503".into(), "503".into())
        );
        example.started.store(true, Ordering::SeqCst);
        assert_eq!(status("GET /startupz").await, "200");
        assert!(ask(address, "GET /readyz").await.ends_with("away\n"));
        example.ready.store(true, Ordering::SeqCst);
        assert_eq!(status("GET /readyz").await, "200");
        let metrics = ask(address, "GET /metrics").await;
        assert!(metrics.contains("version=0.0.4") && metrics.ends_with("example 1\n"), "{metrics}");
        assert_eq!(status("GET /").await, "404");
        assert_eq!(status("POST /livez").await, "405");
        serving.abort();
        let _aborted = serving.await;
        assert!(TcpStream::connect(address).await.is_err(), "it ends with its future");
    }
}
