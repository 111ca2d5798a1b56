use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::{aws_lc_rs, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::authority::Authority;
use super::error::TlsError;
use super::identity::IdentityKey;
use crate::clock;

/// HTTP/1.1 is all that is spoken (RFC 7301 protocol id).
const ALPN: &[u8] = b"http/1.1";

/// Policy for the key exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 first, X25519 for peers without it.
    #[default]
    Prefer,
    /// X25519MLKEM768 only.
    Require,
}

/// Ring's TLS 1.3 suites with AES-256-GCM first, and X25519MLKEM768 preferred.
pub fn provider() -> Arc<CryptoProvider> {
    provider_with(KeyExchange::Prefer)
}

/// [`provider`] under a policy.
pub fn provider_with(policy: KeyExchange) -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let mut kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    if policy == KeyExchange::Prefer {
        kx_groups.push(ring::kx_group::X25519);
    }
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_256_GCM_SHA384,
            TLS13_AES_128_GCM_SHA256,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups,
        ..ring::default_provider()
    })
}

/// Makes [`provider`] the process's default, for libraries that ask for one. Call it first in
/// `main`; a second call is fine.
pub fn install_default() -> Result<(), TlsError> {
    if CryptoProvider::get_default().is_none()
        && CryptoProvider::install_default(Arc::unwrap_or_clone(provider())).is_err()
    {
        return Err(TlsError::Installed);
    }
    Ok(())
}

/// A worker's certificate (PEM, as the gateway issued it) and key.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    pub certificate: String,
    pub key: IdentityKey,
}

/// The gateway's side: names a DNS name or IP address each; a client certificate is optional, and
/// verified against the authority when shown. The gateway's own certificate renews itself.
pub fn server_config(
    authority: &Arc<Authority>,
    names: &[String],
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_with(authority, names, KeyExchange::Prefer)
}

/// [`server_config`] under a key exchange policy.
pub fn server_config_with(
    authority: &Arc<Authority>,
    names: &[String],
    policy: KeyExchange,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider_with(policy);
    let roots = Arc::new(roots(authority.certificate().clone())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()?;
    let certificate = RenewingCertificate::new(authority.clone(), names.to_vec(), &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The worker's side: believes this authority (PEM) and nobody else.
pub fn client_config(
    authority: &str,
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(authority, identity, KeyExchange::Prefer)
}

/// [`client_config`] under a key exchange policy.
pub fn client_config_with(
    authority: &str,
    identity: Option<&ClientIdentity>,
    policy: KeyExchange,
) -> Result<Arc<ClientConfig>, TlsError> {
    let authority =
        CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| TlsError::Pem)?;
    let builder = ClientConfig::builder_with_provider(provider_with(policy))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(authority)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
                .map_err(|_| TlsError::Pem)?;
            let certified = CertifiedKey::new(vec![certificate], identity.key.for_tls());
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn roots(authority: CertificateDer<'static>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    Ok(roots)
}

/// The gateway's certificate, issued anew once half of its life is over.
#[derive(Debug)]
struct RenewingCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: Mutex<Issued>,
}

#[derive(Debug)]
struct Issued {
    key: Arc<CertifiedKey>,
    /// Seconds since the epoch.
    renew_at: u64,
}

impl RenewingCertificate {
    fn new(
        authority: Arc<Authority>,
        names: Vec<String>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let issued = issue(&authority, &names, provider)?;
        Ok(Self { authority, names, provider: provider.clone(), current: Mutex::new(issued) })
    }
}

fn issue(
    authority: &Authority,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<Issued, TlsError> {
    let issued = authority.issue_server(names)?;
    let key = provider.key_provider.load_private_key(issued.key)?;
    let now = clock::now_unix();
    let renew_at = now + issued.not_after.saturating_sub(now) / 2;
    Ok(Issued { key: Arc::new(CertifiedKey::new(vec![issued.certificate], key)), renew_at })
}

impl ResolvesServerCert for RenewingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if clock::now_unix() >= current.renew_at {
            match issue(&self.authority, &self.names, &self.provider) {
                Ok(issued) => *current = issued,
                Err(error) => tracing::error!(%error, "cannot renew the gateway's certificate"),
            }
        }
        Some(current.key.clone())
    }
}
