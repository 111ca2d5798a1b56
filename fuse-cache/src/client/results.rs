//! The requests of results: what is written goes home, what is at home is read.

use serde::de::DeserializeOwned;
use tidegate_wire::ReadRequest;

use super::outgoing::Outgoing;
use super::{Client, ClientError};

impl Client {
    /// One request of the results' routes, `route` of them.
    pub(crate) async fn result_body<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &Outgoing,
    ) -> Result<T, ClientError> {
        self.pool.post_patiently(&self.route(&format!("results/{route}")), body).await
    }

    /// Reads plaintext of what is at home into `out`, all of it.
    pub(crate) async fn result_bytes(
        &self,
        asked: &ReadRequest,
        out: &mut [u8],
    ) -> Result<(), ClientError> {
        let route = self.route("results/read");
        let mut body = self.pool.post_for_bytes(&route, asked, out.len() as u64).await?;
        let mut done = 0;
        while let Some(bytes) = body.next().await? {
            let end = done + bytes.len();
            let place = out.get_mut(done..end);
            place
                .ok_or_else(|| ClientError::Nonsense("more bytes than were asked for".into()))?
                .copy_from_slice(&bytes);
            done = end;
        }
        if done < out.len() {
            return Err(ClientError::Nonsense("fewer bytes than were asked for".into()));
        }
        Ok(())
    }
}
