use ed25519_dalek::Signer as _;
use proptest::prelude::*;

use super::*;

fn identity() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[3; 32])
}

fn stated() -> Stated {
    Stated {
        v: 1,
        lease: LeaseId::from_bytes([1; 16]),
        rank: 2,
        instance: InstanceId::from_bytes([4; 16]),
        time: 200,
        keys_destroyed_at: 190,
        unmounted: true,
        cache_bytes: 4096,
        overwritten_bytes: 4096,
        read_back_bytes: 4096,
        mismatched_bytes: 0,
        discarded: Discarded::NotDone("not supported by this file system".into()),
        unlinked: true,
        method: METHOD_OVERWRITE.into(),
        page_cache_bytes_freed_without_overwrite: 12,
        counters: StatedCounters::default(),
        facts: StatedFacts::default(),
        results: None,
    }
}

fn certificate(outcome: Outcome, stated: Option<Stated>) -> WipeCertificate {
    let text = stated.as_ref().map(|s| s.to_canonical().unwrap());
    WipeCertificate {
        version: 1,
        lease: LeaseId::from_bytes([1; 16]),
        rank: 2,
        identity: Some(Digest::from_bytes(identity().verifying_key().to_bytes())),
        observed: Observed {
            outcome,
            attached_at: Some(100),
            released: vec![(0, 10), (20, 30)],
            releases: 2,
            released_bytes: 80 << 20,
            sent_bytes: None,
            last_release_at: Some(150),
            last_seen: Some(200),
            closed_at: 201,
            lease_key_destroyed_at: Some(201),
            wrapped_key_absent: Some(true),
            epoch_key_destroyed: None,
            waited_s: None,
            results_unsent_bytes: None,
        },
        stated_signature: text.map(|t| hex::encode(identity().sign(t.as_bytes()).to_bytes())),
        stated,
    }
}

#[test]
fn both_parts_go_through_text_and_verify() {
    for certificate in [
        certificate(Outcome::Wiped, Some(stated())),
        certificate(Outcome::Withdrawn, Some(stated())),
        certificate(Outcome::Withdrawn, None),
    ] {
        let text = certificate.to_canonical().unwrap();
        assert_eq!(WipeCertificate::parse(&text).unwrap(), certificate);
        assert!(text.contains("\"observed\":{") && text.contains("\"stated\":"));
    }
}

#[test]
fn wiped_is_never_claimed_without_a_complete_statement() {
    let more = |c: WipeCertificate| matches!(c.check(), Err(CertificateError::ClaimsMoreThanSeen));
    assert!(more(certificate(Outcome::Wiped, None)));
    type Change = fn(&mut Stated);
    let short: [(Change, Shortfall); 5] = [
        (|s| s.unmounted = false, Shortfall::StillMounted),
        (|s| s.overwritten_bytes = 4000, Shortfall::NotOverwritten(96)),
        (|s| s.read_back_bytes = 0, Shortfall::NotReadBack(4096)),
        (|s| s.mismatched_bytes = 1, Shortfall::Mismatched(1)),
        (|s| s.unlinked = false, Shortfall::NotUnlinked),
    ];
    for (change, expected) in short {
        let mut statement = stated();
        change(&mut statement);
        assert_eq!(statement.shortfall(), Some(expected));
        assert!(more(certificate(Outcome::Wiped, Some(statement.clone()))));
        assert!(certificate(Outcome::Withdrawn, Some(statement)).check().is_ok());
    }
}

#[test]
fn a_statement_that_was_not_signed_so_is_refused() {
    let good = certificate(Outcome::Wiped, Some(stated()));
    type Change = fn(&mut WipeCertificate);
    let table: [(Change, &str); 7] = [
        (|c| c.stated.as_mut().unwrap().time = 1, "signature"),
        (|c| c.stated_signature = Some("00".repeat(64)), "signature"),
        (|c| c.stated_signature = Some("zz".into()), "signature"),
        (|c| c.identity = Some(Digest::from_bytes([0; 32])), "signature"),
        (|c| c.stated_signature = None, "beside it"),
        (|c| c.rank = 3, "another lease or rank"),
        (|c| c.version = 2, "version 2"),
    ];
    for (change, words) in table {
        let mut changed = good.clone();
        change(&mut changed);
        let error = changed.check().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_digest_covers_every_field() {
    let good = certificate(Outcome::Wiped, Some(stated()));
    let mut other = good.clone();
    other.observed.last_seen = None;
    assert_ne!(good.digest().unwrap(), other.digest().unwrap());
}

#[test]
fn statements_as_they_arrive() {
    let key = identity().verifying_key().to_bytes();
    let text = stated().to_canonical().unwrap();
    let sign = |text: &str| identity().sign(text.as_bytes()).to_bytes();
    assert_eq!(verify_stated(&key, &text, &sign(&text)).unwrap(), stated());
    let spaced = text.replace(",\"v\"", ", \"v\"");
    assert!(matches!(
        verify_stated(&key, &spaced, &sign(&spaced)),
        Err(CertificateError::Syntax(_))
    ));
    let later = text.replace("\"v\":1", "\"v\":2");
    assert!(matches!(
        verify_stated(&key, &later, &sign(&later)),
        Err(CertificateError::Version(2))
    ));
    assert!(matches!(verify_stated(&key, &text, &[0; 63]), Err(CertificateError::Signature)));
}

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(text in "[ -~]{0,200}") {
        prop_assert!(WipeCertificate::parse(&text).is_err());
        prop_assert!(Stated::parse(&text).is_err());
    }
}

#[test]
fn a_stored_certificate_is_the_one_that_its_entry_names() {
    let certificate = certificate(Outcome::Wiped, Some(stated()));
    let (text, digest) = (certificate.to_canonical().unwrap(), certificate.digest().unwrap());
    assert_eq!(WipeCertificate::stored(&text, &digest).unwrap(), certificate);
    let more = text.replace("\"releases\":2", "\"releases\":3");
    assert!(WipeCertificate::parse(&more).is_ok(), "the worker signs its own part only");
    let refused = WipeCertificate::stored(&more, &digest);
    assert!(matches!(refused, Err(CertificateError::NotTheOne)));
    let other = WipeCertificate::stored(&text, &Digest::from_bytes([0; 32]));
    assert!(matches!(other, Err(CertificateError::NotTheOne)));
}
