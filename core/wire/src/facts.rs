use serde::{Deserialize, Serialize};

use crate::Base64;

/// What the worker says about its node. Stated, never verified; copied into the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeFacts {
    pub host: String,
    pub kernel: String,
    /// Active swap areas, as `/proc/swaps` names them; empty is none, `unknown` alone
    /// means that it could not be seen.
    pub swap: Vec<String>,
    /// Where images of crashed processes go, with what the kernel adds to it; empty is nowhere.
    pub core_pattern: String,
    /// The worker's own RLIMIT_CORE is zero and PR_SET_DUMPABLE is off.
    pub core_dumps_off: bool,
    pub init_on_free: bool,
    /// File system type under the cache.
    pub cache_fs: String,
    pub version: String,
}

/// Attestation hook: nothing is asked by default (`kind` = "none").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    pub kind: String,
    pub bytes: Base64,
}

impl NodeFacts {
    /// In place of what could not be seen. No area and no pattern that is harmless has this name.
    pub const UNKNOWN: &str = "unknown";

    /// As an attach request carries it.
    pub fn to_text(&self) -> String {
        text(self)
    }
}

impl Evidence {
    /// As an attach request carries it.
    pub fn to_text(&self) -> String {
        text(self)
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and flags are always JSON")
}

impl Default for Evidence {
    fn default() -> Self {
        Self { kind: "none".into(), bytes: Base64::default() }
    }
}
