//! TLS 1.3 between gateway and worker, under a certificate authority of the gateway's own.
//!
//! Cipher suites are ring's, for speed; the preferred key exchange is aws-lc's X25519MLKEM768.
//! No system root is ever consulted. Sessions are never resumed: a resumed one would outlive the
//! short client certificate that it was made with.

mod authority;
mod config;
mod endpoint;
mod error;
mod identity;
mod peer;

pub use authority::{Authority, MAX_CLIENT_LIFE, ServerCertificate};
pub use config::{
    ClientIdentity, KeyExchange, client_config, client_config_with, install_default, provider,
    provider_with, server_config, server_config_with,
};
pub use endpoint::Endpoint;
pub use error::TlsError;
pub use identity::IdentityKey;
pub use peer::{PeerError, PeerIdentity};

#[cfg(test)]
mod tests;
