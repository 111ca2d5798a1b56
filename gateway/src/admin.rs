//! The admin interface: HTTP/1.1 and JSON over a Unix socket of mode 0600, never the workers' listener.
//!
//! Whoever may open the socket is the gateway's own user or root; anybody else is turned away by
//! the kernel's word about the peer, whatever the file's mode was for a moment.

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::stop::{Stop, stopped};

#[cfg(test)]
pub(crate) mod document;
mod routes;

pub use routes::{Ended, Joined, LeaseRequest, LedgerHead, Status, Unshown};
pub(crate) use routes::{PeerUser, router};

/// Connections of administrators at once.
const CONNECTIONS: usize = 32;
/// Time for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// The admin socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the admin socket {path} cannot be opened: {why}")]
pub struct AdminError {
    pub path: PathBuf,
    pub why: String,
}

/// Binds the socket, in a directory made for it (0700) when there is none. A socket left behind by a gateway that is gone is replaced; one that answers,
/// or anything else of that name, is not.
pub(crate) async fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    let failed = |why: String| AdminError { path: path.to_owned(), why };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|e| failed(format!("{}: {e}", parent.display())))?;
    }
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(failed("a file of that name is there".to_owned()));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(failed("another gateway answers on it".to_owned()));
        }
        std::fs::remove_file(path).map_err(|e| failed(e.to_string()))?;
    }
    let listener = UnixListener::bind(path).map_err(|e| failed(e.to_string()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| failed(e.to_string()))?;
    Ok(listener)
}

/// Serves until told to stop, then removes the socket.
pub(crate) async fn keep(router: Router, listener: UnixListener, path: PathBuf, mut stop: Stop) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let own = rustix::process::geteuid().as_raw();
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let user = stream.peer_cred().map(|peer| peer.uid());
        let Some(user) = user.ok().filter(|user| *user == own || *user == 0) else {
            tracing::warn!("a caller of another user was turned away from the admin socket");
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        open.spawn(async move {
            talk(router, stream, PeerUser(user), stop).await;
            drop(permit);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
    // Gone with its directory, or replaced: nothing left to tidy.
    let _ = std::fs::remove_file(path);
}

async fn talk(router: Router, stream: UnixStream, peer: PeerUser, mut stop: Stop) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
