//! The format and the key tree written a second time, from other parts (RustCrypto's `aes-gcm`,
//! ring's HKDF), and compared with the crate.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use proptest::prelude::*;
use ring::hkdf::{HKDF_SHA512, KeyType, Prk};
use tidegate_plan::{LayoutId, LeaseId, TokenId};
use tidegate_seal::{
    BlockKey, CHUNK_LEN, Context, HEADER_LEN, Kind, LeaseKey, Opener, SEALED_CHUNK_LEN, Sealer,
    depth, open_message, seal_message,
};

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> [u8; N] {
    let mut okm = [0; N];
    let prk = Prk::new_less_safe(HKDF_SHA512, prk);
    let expanded = prk.expand(info, Bytes(N));
    expanded.and_then(|expanded| expanded.fill(&mut okm)).expect("N is short");
    okm
}

fn seal(key: &[u8; 32], context: &[u8], salt: &[u8; 24], plain: &[u8]) -> Vec<u8> {
    let info = [b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0", salt.as_slice(), context];
    let okm: [u8; 76] = expand(key, &info);
    let aead = Aes256Gcm::new_from_slice(&okm[..32]).expect("32 bytes");
    let mut base = [0; 16];
    base[4..].copy_from_slice(&okm[32..44]);
    let base = u128::from_be_bytes(base);
    let mut out = [salt, &okm[44..]].concat();
    for index in 0..=plain.len() / CHUNK_LEN {
        let chunk = &plain[index * CHUNK_LEN..plain.len().min((index + 1) * CHUNK_LEN)];
        let nonce = (base ^ index as u128).to_be_bytes();
        let nonce = Nonce::try_from(&nonce[4..]).expect("12 bytes");
        out.extend(aead.encrypt(&nonce, chunk).expect("a chunk is short"));
    }
    out
}

fn encode(context: &Context) -> Vec<u8> {
    let mut out = b"tidegate sealed1".to_vec();
    out.push(match context.kind {
        Kind::Block => 1,
        Kind::Manifest => 2,
        Kind::LeaseKey => 3,
        Kind::Results => 4,
    });
    out.extend(context.lease.as_bytes());
    out.extend(context.layout.as_bytes());
    out.extend(context.number.to_be_bytes());
    out.extend(context.count.to_be_bytes());
    out
}

/// Lengths that lie around the chunks' edges as often as elsewhere.
fn length() -> impl Strategy<Value = usize> {
    let edges = (0..5_usize, -2..=2_isize)
        .prop_map(|(chunks, off)| (chunks * CHUNK_LEN).saturating_add_signed(off));
    prop_oneof![edges, 0..5 * CHUNK_LEN]
}

fn context() -> impl Strategy<Value = Context> {
    let kind = prop_oneof![
        Just(Kind::Block),
        Just(Kind::Manifest),
        Just(Kind::LeaseKey),
        Just(Kind::Results)
    ];
    (kind, any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u64>(), any::<u64>()).prop_map(
        |(kind, lease, layout, number, count)| Context {
            kind,
            lease: LeaseId::from_bytes(lease),
            layout: LayoutId::from_bytes(layout),
            number,
            count,
        },
    )
}

fn plain(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(167) >> 3).to_le_bytes()[0] ^ seed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn both_seal_the_same_bytes(
        key: [u8; 32], salt: [u8; 24], seed: u8, context in context(), len in length()
    ) {
        let plain = plain(len, seed);
        prop_assert_eq!(context.encode().to_vec(), encode(&context));
        let theirs = seal(&key, &encode(&context), &salt, &plain);
        let ours = seal_message(&BlockKey::from_bytes(key), &context, salt, &plain);
        prop_assert!(ours == theirs);
        prop_assert_eq!(ours.len() as u64, 56 + len as u64 + 16 * (len as u64 / 16384 + 1));
        let opened = open_message(&BlockKey::from_bytes(key), &context, &theirs).unwrap();
        prop_assert!(*opened == plain);
    }

    /// Any run of chunks, from anywhere, opens to the same bytes, contiguous at the front.
    #[test]
    fn any_run_opens_in_place(key: [u8; 32], seed: u8, len in length(), ends: (u16, u16)) {
        let (plain, key) = (plain(len, seed), BlockKey::from_bytes(key));
        let context = Context {
            kind: Kind::Block,
            lease: LeaseId::from_bytes([1; 16]),
            layout: LayoutId::from_bytes([2; 32]),
            number: 0,
            count: 1,
        };
        let sealed = seal_message(&key, &context, [3; 24], &plain);
        let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().unwrap();
        let opener = Opener::new(&key, &context, header, len as u64).unwrap();
        let chunks = usize::try_from(opener.chunks()).unwrap();
        let first = usize::from(ends.0) % chunks;
        let end = first + 1 + usize::from(ends.1) % (chunks - first);
        let mut run =
            body[first * SEALED_CHUNK_LEN..body.len().min(end * SEALED_CHUNK_LEN)].to_vec();
        let opened = opener.open_run(first as u64, &mut run).unwrap();
        prop_assert!(*opened == plain[first * CHUNK_LEN..len.min(end * CHUNK_LEN)]);
    }

    #[test]
    fn a_flipped_bit_never_opens(key: [u8; 32], len in length(), at: u32, bit in 0..8_u8) {
        let context = Context {
            kind: Kind::Block,
            lease: LeaseId::from_bytes([1; 16]),
            layout: LayoutId::from_bytes([2; 32]),
            number: 0,
            count: 1,
        };
        let key = BlockKey::from_bytes(key);
        let mut sealed = seal_message(&key, &context, [3; 24], &plain(len, 0));
        let at = at as usize % sealed.len();
        sealed[at] ^= 1 << bit;
        prop_assert!(open_message(&key, &context, &sealed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_open(
        bytes in prop::collection::vec(any::<u8>(), 0..40_000), context in context()
    ) {
        prop_assert!(open_message(&BlockKey::from_bytes([0; 32]), &context, &bytes).is_err());
    }

    /// The key of a block, derived step by step from the lease key.
    #[test]
    fn block_keys_are_the_tree_s(lease_key: [u8; 32], blocks in 1..5000_u32, block: u32) {
        let block = block % blocks;
        let mut key: [u8; 32] = expand(&lease_key, &[b"tidegate/v1 block tree"]);
        for level in (0..depth(blocks)).rev() {
            let right = block >> level & 1 == 1;
            let label: &[u8] = if right { b"tidegate/v1 right" } else { b"tidegate/v1 left" };
            key = expand(&key, &[label]);
        }
        key = expand(&key, &[b"tidegate/v1 leaf"]);
        let root = LeaseKey::from_bytes(lease_key).tree_root();
        let cover = root.cover(depth(blocks), 0..blocks);
        let ours = cover.leaf(block).unwrap();
        prop_assert_eq!(ours.expose(), &key);
    }
}

#[test]
fn the_keys_of_a_lease_have_their_labels() {
    let lease = LeaseKey::from_bytes([9; 32]);
    let own = |info: &[&[u8]]| expand::<32>(&[9; 32], info);
    assert_eq!(lease.manifest_key(258).expose(), &own(&[b"tidegate/v1 manifest", &[1, 2]]));
    assert_eq!(lease.results_key().expose(), &own(&[b"tidegate/v1 results"]));
    let token = TokenId::from_bytes([4; 16]);
    assert_eq!(lease.join_secret(&token).expose(), &own(&[b"tidegate/v1 join", &[4; 16]]));
}

#[test]
fn a_sealer_refuses_what_the_format_has_not() {
    let context = Context {
        kind: Kind::Block,
        lease: LeaseId::from_bytes([1; 16]),
        layout: LayoutId::from_bytes([2; 32]),
        number: 0,
        count: 1,
    };
    let mut sealer = Sealer::new(&BlockKey::from_bytes([1; 32]), &context, [0; 24]);
    assert!(sealer.seal_chunk(&mut vec![0; CHUNK_LEN + 1]).is_err());
    assert!(sealer.seal_chunk(&mut vec![0; CHUNK_LEN]).is_ok());
    assert!(!sealer.finished());
    assert!(sealer.seal_chunk(&mut []).is_ok());
    assert!(sealer.finished());
    assert!(sealer.seal_chunk(&mut []).is_err());
}
