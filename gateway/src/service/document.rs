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
    super::results::store,
    super::results::begin,
    super::results::part,
    super::results::copy,
    super::results::commit,
    super::results::abandon,
    super::results::change,
    super::results::list,
    super::results::read,
))]
pub(crate) struct WorkerApi;
