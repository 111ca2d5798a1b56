//! The workers' part of the API's document.

use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(paths(
    super::challenge::challenge,
    super::attach::attach,
    super::keys::keys,
    super::manifest::manifest,
    super::blocks::block,
    super::heartbeat::heartbeat,
    super::wipe::wipe_certificate,
))]
pub(crate) struct WorkerApi;
