//! The requests of results: what is written goes home, what is at home is read.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tidegate_wire::{MAX_JSON_BODY, ReadRequest};

use super::outgoing::Outgoing;
use super::{Client, ClientError};

impl Client {
    /// One request of the results' routes, `route` of them.
    pub(crate) async fn result_body<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &Outgoing,
    ) -> Result<T, ClientError> {
        let route = self.route(&format!("results/{route}"));
        self.pool.post_patiently(&route, body, MAX_JSON_BODY).await
    }

    /// Reads plaintext of what is at home into the pieces of `out`, all of them.
    pub(crate) async fn result_bytes(
        &self,
        asked: &ReadRequest,
        out: &mut [&mut [u8]],
    ) -> Result<(), ClientError> {
        let route = self.route("results/read");
        let len = out.iter().map(|piece| piece.len() as u64).sum();
        let mut body = self.pool.post_for_bytes(&route, asked, len).await?;
        let mut bytes = Bytes::new();
        for piece in out {
            let mut done = 0;
            while done < piece.len() {
                if bytes.is_empty() {
                    let fewer = || ClientError::Nonsense("fewer bytes than were asked for".into());
                    bytes = body.next().await?.ok_or_else(fewer)?;
                }
                let now = bytes.split_to(bytes.len().min(piece.len() - done));
                piece[done..done + now.len()].copy_from_slice(&now);
                done += now.len();
            }
        }
        if !bytes.is_empty() || body.next().await?.is_some() {
            return Err(ClientError::Nonsense("more bytes than were asked for".into()));
        }
        Ok(())
    }
}
