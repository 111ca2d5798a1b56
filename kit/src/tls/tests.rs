use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConfig, Error, HandshakeKind,
    NamedGroup, ProtocolVersion, ServerConfig,
};
use tidegate_ledger::{InstanceId, LeaseId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::clock::now_unix;

fn lease() -> LeaseId {
    LeaseId::from_bytes([1; 16])
}

fn instance() -> InstanceId {
    InstanceId::from_bytes([2; 16])
}

fn authority() -> Arc<Authority> {
    Arc::new(Authority::generate().unwrap())
}

fn names() -> Vec<String> {
    vec!["gateway.example".into(), "127.0.0.1".into()]
}

fn identity(authority: &Authority, not_after: u64) -> ClientIdentity {
    let key = IdentityKey::generate();
    let (public, now) = (key.public_key(), now_unix());
    let issued = authority.issue_client(&public, &lease(), 3, &instance(), now, not_after);
    ClientIdentity { certificate: issued.unwrap().0, key }
}

/// What both sides of a finished handshake saw.
#[derive(Debug)]
struct Seen {
    version: Option<ProtocolVersion>,
    suite: Option<CipherSuite>,
    group: Option<NamedGroup>,
    kind: Option<HandshakeKind>,
    alpn: Option<Vec<u8>>,
    peer: Result<Option<PeerIdentity>, PeerError>,
}

/// A real handshake and one byte each way; the error is the side's that found it.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Seen, Error> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await?;
        let (_, connection) = stream.get_ref();
        std::io::Result::Ok(Seen {
            version: connection.protocol_version(),
            suite: connection.negotiated_cipher_suite().map(|s| s.suite()),
            group: connection.negotiated_key_exchange_group().map(|g| g.name()),
            kind: connection.handshake_kind(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            peer: PeerIdentity::of(connection),
        })
    });
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_u8(7).await?;
        assert_eq!(stream.read_u8().await?, 7);
        std::io::Result::Ok(())
    };
    let connected = connecting.await;
    let served = serving.await.unwrap();
    let cause =
        |e: &std::io::Error| e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
    let alert = |e: &Error| matches!(e, Error::AlertReceived(_));
    let causes: Vec<_> = [connected.as_ref().err(), served.as_ref().err()]
        .into_iter()
        .flatten()
        .filter_map(cause)
        .collect();
    match causes.iter().find(|e| !alert(e)).or_else(|| causes.first()) {
        Some(error) => Err(error.clone()),
        None => Ok(served.unwrap()),
    }
}

#[tokio::test]
async fn tls_1_3_with_aes_256_and_the_hybrid_key_exchange() {
    let authority = authority();
    let server = server_config(&authority, &names()).unwrap();
    let client = client_config(authority.certificate_pem(), None).unwrap();
    for name in ["gateway.example", "127.0.0.1"] {
        let seen = handshake(server.clone(), client.clone(), name).await.unwrap();
        assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(seen.suite, Some(CipherSuite::TLS13_AES_256_GCM_SHA384));
        assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
        // The second connection of a client is no resumption of the first.
        assert_eq!(seen.kind, Some(HandshakeKind::Full));
        assert_eq!(seen.alpn.as_deref(), Some(&b"http/1.1"[..]));
        assert_eq!(seen.peer, Ok(None));
    }
    assert!(provider().cipher_suites.iter().all(|suite| suite.tls13().is_some()));
}

#[tokio::test]
async fn a_worker_is_known_by_its_certificate() {
    let authority = authority();
    let not_after = now_unix() + 600;
    let identity = identity(&authority, not_after);
    let server = server_config(&authority, &names()).unwrap();
    let client = client_config(authority.certificate_pem(), Some(&identity)).unwrap();
    let seen = handshake(server, client, "127.0.0.1").await.unwrap();
    let peer = seen.peer.unwrap().unwrap();
    let expected = PeerIdentity {
        lease: lease(),
        rank: 3,
        instance: instance(),
        public_key: identity.key.public_key(),
        not_after,
    };
    assert_eq!(peer, expected);
    let message = b"attach";
    let signature = identity.key.sign(message);
    assert!(tidegate_ledger::verify_signature(&peer.public_key, message, &signature));
    let again = IdentityKey::from_seed(&identity.key.seed());
    assert_eq!(again.public_key(), identity.key.public_key());
}

#[test]
fn a_workers_certificate_is_never_longer_than_a_quarter_of_an_hour() {
    let authority = authority();
    let key = IdentityKey::generate();
    // Not the machine's clock: the caller's counts.
    let now = now_unix() + 3600;
    let (pem, end) =
        authority.issue_client(&key.public_key(), &lease(), 0, &instance(), now, u64::MAX).unwrap();
    assert_eq!(end, now + MAX_CLIENT_LIFE);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(PeerIdentity::from_certificate(&der).unwrap().not_after, end);
}

#[tokio::test]
async fn the_policy_decides_on_peers_without_ml_kem() {
    let authority = authority();
    let mut old = Arc::unwrap_or_clone(provider());
    old.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let root = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(old))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let prefer = server_config(&authority, &names()).unwrap();
    let seen = handshake(prefer, client.clone(), "127.0.0.1").await.unwrap();
    assert_eq!(seen.group, Some(NamedGroup::X25519));
    let require = server_config_with(&authority, &names(), KeyExchange::Require).unwrap();
    let refused = handshake(require.clone(), client, "127.0.0.1").await.unwrap_err();
    assert!(matches!(refused, Error::PeerIncompatible(_)), "{refused:?}");
    let pem = authority.certificate_pem();
    let client = client_config_with(pem, None, KeyExchange::Require).unwrap();
    let seen = handshake(require, client, "127.0.0.1").await.unwrap();
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn strangers_are_refused_on_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let server = server_config(&ours, &names()).unwrap();
    let later = now_unix() + 600;

    let client = client_config(theirs.certificate_pem(), None).unwrap();
    let error = handshake(server.clone(), client, "127.0.0.1").await.unwrap_err();
    let foreign = |e: &Error| {
        matches!(
            e,
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            )
        )
    };
    assert!(foreign(&error), "{error:?}");

    let client = client_config(ours.certificate_pem(), Some(&identity(&theirs, later))).unwrap();
    let error = handshake(server.clone(), client, "127.0.0.1").await.unwrap_err();
    assert!(foreign(&error), "{error:?}");

    let expired = identity(&ours, now_unix() - 1);
    let client = client_config(ours.certificate_pem(), Some(&expired)).unwrap();
    let error = handshake(server.clone(), client, "127.0.0.1").await.unwrap_err();
    let over = matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    );
    assert!(over, "{error:?}");

    // A certificate without its private key proves nothing.
    let mut stolen = identity(&ours, later);
    stolen.key = IdentityKey::generate();
    let client = client_config(ours.certificate_pem(), Some(&stolen)).unwrap();
    let error = handshake(server.clone(), client, "127.0.0.1").await.unwrap_err();
    let unproved = Error::InvalidCertificate(CertificateError::BadSignature);
    assert!(error == unproved || error == Error::AlertReceived(AlertDescription::DecryptError));

    let client = client_config(ours.certificate_pem(), None).unwrap();
    let error = handshake(server, client.clone(), "other.example").await.unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");

    // A worker cannot stand in for the gateway with its own certificate.
    let worker = identity(&ours, later);
    let chain = vec![CertificateDer::from_pem_slice(worker.certificate.as_bytes()).unwrap()];
    let key = Arc::new(CertifiedKey::new(chain, worker.key.for_tls()));
    let posing = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    let error = handshake(Arc::new(posing), client, "127.0.0.1").await.unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

#[test]
fn gateways_that_start_together_agree_on_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca/authority.pem");
    let pems: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Authority::load_or_create(&path).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap().certificate_pem().to_owned()).collect()
    });
    assert!(pems.iter().all(|pem| *pem == pems[0]));
    assert!(!pems[0].contains("PRIVATE"));
    std::fs::write(&path, "nonsense").unwrap();
    assert!(matches!(Authority::load_or_create(&path), Err(TlsError::Pem)));
}

#[test]
fn certificates_that_name_no_worker_are_no_identity() {
    let authority = authority();
    let server = authority.issue_server(&names()).unwrap();
    assert_eq!(PeerIdentity::from_certificate(&server.certificate), Err(PeerError));
    assert_eq!(PeerIdentity::from_certificate(authority.certificate()), Err(PeerError));
    assert_eq!(
        PeerIdentity::from_certificate(&CertificateDer::from(vec![1, 2, 3])),
        Err(PeerError)
    );
    assert!(matches!(client_config("no pem", None), Err(TlsError::Pem)));
}
