//! The administrators' part of the API's document.

use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(paths(
    super::routes::create,
    super::routes::list,
    super::routes::show,
    super::routes::finish,
    super::routes::token,
    super::routes::end,
    super::routes::state,
    super::routes::ledger,
))]
pub(crate) struct AdminApi;
