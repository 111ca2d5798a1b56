use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::ClientError;
use super::connection::Connection;
use super::idle::Idle;

/// Sealed bytes on their way, as long as was announced and no longer.
pub struct BlockBody {
    idle: Arc<Idle>,
    connection: Option<Connection>,
    body: Incoming,
    rest: u64,
    /// Longest silence that is put up with.
    patience: Duration,
}

impl BlockBody {
    pub(super) fn new(
        idle: Arc<Idle>,
        connection: Connection,
        body: Incoming,
        len: u64,
        patience: Duration,
    ) -> Self {
        Self { idle, connection: Some(connection), body, rest: len, patience }
    }

    /// The next bytes, as they arrive; `None` after the last. A body that ends early is
    /// [`ClientError::Unreachable`]: torn.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout(self.patience, self.body.frame())
                .await
                .map_err(|_| ClientError::Unreachable("the body does not go on".into()))?;
            match frame {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.rest = self.rest.checked_sub(bytes.len() as u64).ok_or_else(|| {
                        ClientError::Nonsense("more bytes than were announced".into())
                    })?;
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(why)) => {
                    return Err(ClientError::Unreachable(format!("the body broke off: {why}")));
                }
                None if self.rest > 0 => {
                    return Err(ClientError::Unreachable("the body broke off".into()));
                }
                None => {
                    if let Some(connection) = self.connection.take() {
                        self.idle.put_back(connection);
                    }
                    return Ok(None);
                }
            }
        }
    }
}

impl fmt::Debug for BlockBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockBody({} bytes to come)", self.rest)
    }
}
