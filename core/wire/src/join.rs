use serde::{Deserialize, Serialize};
use tidegate_plan::{LeaseId, TokenId};

use crate::Base64;

/// All that a worker trusts: where the gateways are, whom to believe and the right to join one lease.
///
/// JSON in a 0600 file. Holds the join secret, so `Debug` prints none of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinFile {
    pub version: u32,
    /// `https://host:port`, tried in order.
    pub gateways: Vec<String>,
    /// The gateway's CA certificate, PEM. No system root is ever consulted.
    pub ca: String,
    /// Ledger verifier key (C2SP signed-note vkey).
    pub ledger_key: String,
    pub lease: LeaseId,
    pub rank: u16,
    pub token: TokenId,
    /// 32 bytes. Never sent: it is the HPKE pre-shared key and keys the attach proof.
    pub secret: Base64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    #[error("the join file is not valid JSON of version 1")]
    Syntax(#[source] serde_json::Error),
    #[error("the join file has version {0}, this program reads version 1")]
    Version(u32),
    #[error("the join file is incomplete: {0}")]
    Incomplete(&'static str),
}

impl JoinFile {
    pub const VERSION: u32 = 1;

    /// Reads and checks a join file.
    pub fn parse(bytes: &[u8]) -> Result<Self, JoinError> {
        let file: Self = serde_json::from_slice(bytes).map_err(JoinError::Syntax)?;
        if file.version != Self::VERSION {
            return Err(JoinError::Version(file.version));
        }
        if file.gateways.is_empty() || !file.gateways.iter().all(|g| g.starts_with("https://")) {
            return Err(JoinError::Incomplete("`gateways` needs at least one https:// URL"));
        }
        if file.secret.0.len() != 32 {
            return Err(JoinError::Incomplete("`secret` must be 32 bytes"));
        }
        if !file.ca.contains("BEGIN CERTIFICATE") {
            return Err(JoinError::Incomplete("`ca` must be a PEM certificate"));
        }
        Ok(file)
    }
}

impl std::fmt::Debug for JoinFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinFile")
            .field("gateways", &self.gateways)
            .field("lease", &self.lease)
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}
