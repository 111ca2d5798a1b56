//! What every route under a lease is called with.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, FromRequest, FromRequestParts as _, RawPathParams, Request};
use hyper::HeaderMap;
use serde::de::DeserializeOwned;
use tidegate_wire::ProblemKind;
use tokio::sync::Semaphore;

use crate::admission::{Admitted, Caller, Purpose, admit};
use crate::json::{LongTurn, read, read_within};
use crate::office::Office;
use crate::problem::Refusal;
use crate::results::Framed;

/// One request. Its body is not read before its caller was admitted.
pub(super) struct Call {
    caller: Caller,
    params: RawPathParams,
    headers: HeaderMap,
    body: Body,
}

impl Call {
    /// Admits the caller to the lease of the path.
    // Not an `async fn`: it would hold the body, which is not `Sync`, while it waits.
    pub(super) fn admit(
        &self,
        office: &Office,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Admitted, Refusal>> {
        admit(office, &self.caller, self.param("lease"), purpose)
    }

    /// A part of the path.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// A body of a head and sealed blocks.
    pub(super) fn framed(self) -> Framed {
        Framed::new(self.body)
    }

    /// The body, which may be larger than others; of such, so many are read at once as `own` has places.
    pub(super) async fn json_within<T: DeserializeOwned>(
        self,
        most: usize,
        own: &Arc<Semaphore>,
    ) -> Result<(T, Option<LongTurn>), Refusal> {
        read_within(most, own, &self.headers, self.body).await
    }

    /// The body.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, Refusal> {
        read(&self.headers, self.body).await
    }
}

impl FromRequest<Arc<Office>> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, office: &Arc<Office>) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let Extension(caller) =
            Extension::<Caller>::from_request_parts(&mut parts, office)
                .await
                .map_err(|error| Refusal::internal("a request without its caller", &error))?;
        let params = RawPathParams::from_request_parts(&mut parts, office)
            .await
            .map_err(|_| Refusal::new(ProblemKind::Malformed, "the path is not text"))?;
        Ok(Self { caller, params, headers: parts.headers, body })
    }
}
