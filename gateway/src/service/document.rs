//! The workers' part of the API's document.

use utoipa::openapi::schema::{Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr};
use utoipa::{OpenApi, PartialSchema, ToSchema};

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

/// Bytes of C2SP chunked-encryption messages; see the format's document.
pub(super) struct Sealed;

impl PartialSchema for Sealed {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

impl ToSchema for Sealed {}
