//! Identifiers. Each is its own type around fixed bytes, shown as lower-case hex.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not the hex form of the id that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0} id: expected {1} lower-case hex digits")]
pub struct IdError(&'static str, usize);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let refused = IdError($word, $len * 2);
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(refused);
                }
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| refused)?;
                Ok(Self(bytes))
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!("Id of a ", $word, ", in lower-case hex.")))
                    .pattern(Some(concat!("^([0-9a-f]{2}){", stringify!($len), "}$")))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(
    /// A lease: random, public.
    LeaseId, 16, "lease"
);
id!(
    /// A join token: random; only this id of it ever travels.
    TokenId, 16, "token"
);
id!(
    /// One worker process: random for each start.
    InstanceId, 16, "instance"
);
id!(
    /// BLAKE3 of a snapshot's canonical bytes.
    SnapshotId, 32, "snapshot"
);
id!(
    /// BLAKE3 of a selection's canonical bytes.
    SelectionId, 32, "selection"
);
id!(
    /// BLAKE3 of (snapshot, selection, ranks, layout version).
    LayoutId, 32, "layout"
);
id!(
    /// One version of a result's bytes: random, and no digest of them.
    ContentId, 32, "content"
);
