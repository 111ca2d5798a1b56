use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tidegate_ledger::{InstanceId, LeaseId};
use zeroize::Zeroizing;

use super::error::TlsError;
use super::peer::uri;
use crate::{clock, keyfile};

/// Longest life of a worker's certificate, in seconds.
pub const MAX_CLIENT_LIFE: u64 = 15 * 60;
/// Certificates start this long before they are made, for peers whose clocks are behind; seconds.
const BACKDATE: u64 = 24 * 3600;
const AUTHORITY_LIFE: u64 = 10 * 365 * 24 * 3600;
const SERVER_LIFE: u64 = 30 * 24 * 3600;

/// The gateway's own certificate authority: ECDSA P-256, issues nothing but gateway and worker
/// certificates.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate of the gateway and its key.
pub struct ServerCertificate {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Seconds since the epoch.
    pub not_after: u64,
}

impl Authority {
    /// Makes a new authority; nothing is stored.
    pub fn generate() -> Result<Self, TlsError> {
        Self::from_pem(&generate_pem()?)
    }

    /// Reads the authority from its 0600 file (certificate and key in PEM), made when missing.
    /// Gateways that start together agree on one.
    pub fn load_or_create(path: &Path) -> Result<Self, TlsError> {
        let bytes = match keyfile::read(path)? {
            Some(bytes) => bytes,
            None => {
                let made = generate_pem()?;
                keyfile::load_or_create(path, || Zeroizing::new(made.as_bytes().to_vec()))?
            }
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| TlsError::Pem)?;
        Self::from_pem(text)
    }

    /// Reads certificate and private key from one PEM text.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let certificate =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| TlsError::Pem)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| TlsError::Pem)?;
        let key = KeyPair::try_from(&key).map_err(TlsError::Issue)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(TlsError::Issue)?;
        let end = text.find(END).ok_or(TlsError::Pem)? + END.len();
        let start = text.find(BEGIN).filter(|start| *start < end).ok_or(TlsError::Pem)?;
        Ok(Self { certificate, pem: format!("{}\n", &text[start..end]), issuer })
    }

    /// The authority's certificate in PEM: what workers pin.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A new key and certificate for the gateway under these DNS names and IP addresses.
    pub fn issue_server(&self, names: &[String]) -> Result<ServerCertificate, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Issue)?;
        let now = clock::now_unix();
        let mut params = CertificateParams::new(names).map_err(TlsError::Issue)?;
        fill(&mut params, "tidegate gateway", now, now + SERVER_LIFE);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&key, &self.issuer).map_err(TlsError::Issue)?;
        Ok(ServerCertificate {
            certificate: signed.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_after: now + SERVER_LIFE,
        })
    }

    /// A certificate for a worker's Ed25519 public key, in PEM, and the second at which it ends:
    /// `not_after`, or [`MAX_CLIENT_LIFE`] from `now` when that is sooner. `now` is the caller's,
    /// who judges the certificate's end by the same clock later.
    pub fn issue_client(
        &self,
        public_key: &[u8; 32],
        lease: &LeaseId,
        rank: u16,
        instance: &InstanceId,
        now: u64,
        not_after: u64,
    ) -> Result<(String, u64), TlsError> {
        // SubjectPublicKeyInfo of RFC 8410, whose only variable part is the key.
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend_from_slice(public_key);
        let key = SubjectPublicKeyInfo::from_der(&spki).map_err(TlsError::Issue)?;
        let not_after = not_after.min(now + MAX_CLIENT_LIFE);
        let mut params = CertificateParams::default();
        fill(&mut params, "tidegate worker", now, not_after);
        let uri = Ia5String::try_from(uri(lease, rank, instance)).map_err(TlsError::Issue)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed: Certificate = params.signed_by(&key, &self.issuer).map_err(TlsError::Issue)?;
        Ok((signed.pem(), not_after))
    }
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn generate_pem() -> Result<Zeroizing<String>, TlsError> {
    let key = KeyPair::generate().map_err(TlsError::Issue)?;
    let now = clock::now_unix();
    let mut params = CertificateParams::default();
    fill(&mut params, "tidegate authority", now, now + AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).map_err(TlsError::Issue)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", certificate.pem(), *key)))
}

fn fill(params: &mut CertificateParams, name: &str, now: u64, not_after: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |seconds| epoch + std::time::Duration::from_secs(seconds);
    params.not_before = at(now.saturating_sub(BACKDATE));
    params.not_after = at(not_after);
    params.serial_number = Some(SerialNumber::from_slice(&keyfile::random::<16>()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.pem).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
