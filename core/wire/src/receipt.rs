use serde::{Deserialize, Serialize};

use crate::Base64;

/// Proof that a ledger entry was durable before this reply: the entry, where it stands and a signed head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The entry's exact bytes (canonical JSON).
    pub entry: String,
    pub index: u64,
    /// RFC 6962 inclusion path, 32 bytes each.
    pub proof: Vec<Base64>,
    /// Signed note (C2SP tlog-checkpoint).
    pub checkpoint: String,
}
