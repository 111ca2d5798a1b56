//! Work that blocks, on threads of its own.

use std::io;

use super::WorkerError;

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkerError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| WorkerError::Serve(io::Error::other(error)))
}
