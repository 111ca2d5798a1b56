use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use tidegate_ledger::{InstanceId, LeaseId};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Ed25519 public keys in certificates (RFC 8410).
const ED25519_OID: &str = "1.3.101.112";

/// Who the other side is, as the gateway wrote it into the certificate.
///
/// Only meaningful for a certificate that the handshake verified. A connection may outlive its
/// certificate, so `not_after` is checked against the clock again at each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub lease: LeaseId,
    pub rank: u16,
    pub instance: InstanceId,
    /// Ed25519 public key of the worker.
    pub public_key: [u8; 32],
    /// Seconds since the epoch.
    pub not_after: u64,
}

/// The certificate is not one that a gateway issues to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate names no lease, rank and instance")]
pub struct PeerError;

impl PeerIdentity {
    /// The peer of a connection after its handshake; `None` when it showed no certificate.
    pub fn of(connection: &CommonState) -> Result<Option<Self>, PeerError> {
        let chain = connection.peer_certificates().unwrap_or_default();
        chain.first().map(Self::from_certificate).transpose()
    }

    pub fn from_certificate(der: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| PeerError)?;
        let key = &certificate.tbs_certificate.subject_pki;
        if !rest.is_empty() || key.algorithm.algorithm.to_id_string() != ED25519_OID {
            return Err(PeerError);
        }
        let names = certificate.subject_alternative_name().map_err(|_| PeerError)?;
        let [GeneralName::URI(uri)] = names.ok_or(PeerError)?.value.general_names.as_slice() else {
            return Err(PeerError);
        };
        let (lease, rank, instance) = parse_uri(uri).ok_or(PeerError)?;
        let public_key = <[u8; 32]>::try_from(key.subject_public_key.data.as_ref());
        let not_after = u64::try_from(certificate.validity().not_after.timestamp());
        Ok(Self {
            lease,
            rank,
            instance,
            public_key: public_key.map_err(|_| PeerError)?,
            not_after: not_after.map_err(|_| PeerError)?,
        })
    }
}

/// `tidegate://lease/<id>/rank/<r>/instance/<id>`.
pub(super) fn uri(lease: &LeaseId, rank: u16, instance: &InstanceId) -> String {
    format!("tidegate://lease/{lease}/rank/{rank}/instance/{instance}")
}

fn parse_uri(text: &str) -> Option<(LeaseId, u16, InstanceId)> {
    let mut parts = text.strip_prefix("tidegate://lease/")?.split('/');
    let lease = parts.next()?.parse().ok()?;
    let rank = parts.nth(1)?.parse().ok()?;
    let instance = parts.nth(1)?.parse().ok()?;
    // Writing it again settles separators, leading zeroes and trailing parts at once.
    (uri(&lease, rank, &instance) == text).then_some((lease, rank, instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_uri_is_read() {
        let (lease, instance) = (LeaseId::from_bytes([1; 16]), InstanceId::from_bytes([2; 16]));
        let good = uri(&lease, 7, &instance);
        assert_eq!(parse_uri(&good), Some((lease, 7, instance)));
        for bad in [
            good.replace("rank/7", "rank/07"),
            good.replace("rank/7", "rank/70000"),
            good.replace("rank", "rang"),
            good.replace("tidegate:", "https:"),
            format!("{good}/more"),
            good[..good.len() - 1].to_owned(),
            "tidegate://lease/".into(),
            String::new(),
        ] {
            assert_eq!(parse_uri(&bad), None, "{bad}");
        }
    }
}
