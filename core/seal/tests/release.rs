//! Key release, wrapped lease keys and attach proofs.

use getrandom::SysRng;
use proptest::prelude::*;
use tidegate_plan::{LeaseId, TokenId};
use tidegate_seal::rand_core::UnwrapErr;
use tidegate_seal::{
    EpochKey, HPKE_PUBLIC_LEN, HpkeKeyPair, JoinSecret, LeaseKey, Release, SealError,
    WRAPPED_KEY_LEN, attach_proof, depth, seal_release, unwrap_lease_key, verify_attach_proof,
    wrap_lease_key,
};

const TOKEN: TokenId = TokenId::from_bytes([8; 16]);

fn release() -> Release {
    let lease = LeaseKey::from_bytes([7; 32]);
    Release {
        manifest_key: lease.manifest_key(3),
        cover: lease.tree_root().cover(depth(1000), 100..317),
    }
}

fn secret(byte: u8) -> JoinSecret {
    JoinSecret::from_bytes([byte; 32])
}

#[test]
fn a_release_opens_for_its_worker_alone() {
    let mut rng = UnwrapErr(SysRng);
    let worker = HpkeKeyPair::generate(&mut rng);
    let public = worker.public();
    assert_eq!(public.len(), HPKE_PUBLIC_LEN);
    let sealed =
        seal_release(&public, &secret(1), &TOKEN, b"lease 1", &release(), &mut rng).unwrap();

    let opened = worker.open_release(&secret(1), &TOKEN, b"lease 1", &sealed).unwrap();
    assert_eq!(opened.to_bytes(), release().to_bytes());

    let other = HpkeKeyPair::generate(&mut rng);
    let token = TokenId::from_bytes([9; 16]);
    assert!(other.open_release(&secret(1), &TOKEN, b"lease 1", &sealed).is_err());
    assert!(worker.open_release(&secret(2), &TOKEN, b"lease 1", &sealed).is_err());
    assert!(worker.open_release(&secret(1), &token, b"lease 1", &sealed).is_err());
    assert!(worker.open_release(&secret(1), &TOKEN, b"lease 2", &sealed).is_err());
}

#[test]
fn a_changed_release_does_not_open() {
    let mut rng = UnwrapErr(SysRng);
    let worker = HpkeKeyPair::generate(&mut rng);
    let sealed =
        seal_release(&worker.public(), &secret(1), &TOKEN, b"", &release(), &mut rng).unwrap();
    for at in [0, 600, 1100, 1119, 1120, 1200, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(worker.open_release(&secret(1), &TOKEN, b"", &changed).is_err(), "byte {at}");
    }
    for len in [0, 1, 1119, 1120, 1135, 1136, sealed.len() - 1] {
        assert!(worker.open_release(&secret(1), &TOKEN, b"", &sealed[..len]).is_err());
    }
}

#[test]
fn two_releases_of_the_same_keys_differ() {
    let mut rng = UnwrapErr(SysRng);
    let public = HpkeKeyPair::generate(&mut rng).public();
    let mut seal = || seal_release(&public, &secret(1), &TOKEN, b"", &release(), &mut rng).unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn a_bad_public_key_is_refused() {
    let mut rng = UnwrapErr(SysRng);
    for public in [vec![], vec![0; HPKE_PUBLIC_LEN - 1], vec![0xff; HPKE_PUBLIC_LEN]] {
        let refused = seal_release(&public, &secret(1), &TOKEN, b"", &release(), &mut rng);
        assert_eq!(refused.unwrap_err(), SealError::PublicKey);
    }
}

#[test]
fn a_wrapped_lease_key_is_bound_to_lease_and_epoch() {
    let (epoch_key, lease) = (EpochKey::from_bytes([1; 32]), LeaseId::from_bytes([2; 16]));
    let key = LeaseKey::from_bytes([3; 32]);
    let wrapped = wrap_lease_key(&epoch_key, 5, &lease, &key, [4; 24]);
    assert_eq!(wrapped.len(), WRAPPED_KEY_LEN);
    let again = unwrap_lease_key(&epoch_key, 5, &lease, &wrapped).unwrap();
    assert_eq!(again.expose(), key.expose());

    let other = LeaseId::from_bytes([9; 16]);
    assert!(unwrap_lease_key(&epoch_key, 6, &lease, &wrapped).is_err());
    assert!(unwrap_lease_key(&epoch_key, 5, &other, &wrapped).is_err());
    assert!(unwrap_lease_key(&EpochKey::from_bytes([0; 32]), 5, &lease, &wrapped).is_err());
    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 0x40;
        assert!(unwrap_lease_key(&epoch_key, 5, &lease, &changed).is_err(), "byte {at}");
    }
}

#[test]
fn an_attach_proof_is_of_its_secret_and_transcript() {
    let proof = attach_proof(&secret(1), b"transcript");
    assert!(verify_attach_proof(&secret(1), b"transcript", &proof));
    assert!(!verify_attach_proof(&secret(2), b"transcript", &proof));
    assert!(!verify_attach_proof(&secret(1), b"another", &proof));
    assert!(!verify_attach_proof(&secret(1), b"transcript", &proof[..31]));
    assert!(!verify_attach_proof(&secret(1), b"transcript", &[]));
}

/// HMAC-SHA-256 under HKDF-Expand-SHA-512, from ring.
#[test]
fn an_attach_proof_is_what_its_standards_say() {
    use ring::{hkdf, hmac};
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    let info: [&[u8]; 1] = [b"tidegate/v1 attach proof"];
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA512, &[1; 32]);
    prk.expand(&info, Len).unwrap().fill(&mut key).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"transcript");
    assert_eq!(tag.as_ref(), attach_proof(&secret(1), b"transcript"));
}

proptest! {
    #[test]
    fn arbitrary_releases_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(release) = Release::from_bytes(&bytes) {
            prop_assert_eq!(&*release.to_bytes(), &bytes);
        }
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(release) = Release::from_bytes(&bytes) {
            prop_assert_eq!(&*release.to_bytes(), &bytes);
        }
    }
}
