//! The format's published vectors: C2SP Wycheproof, Cobblestone-256. They have contexts of their
//! own, so they go in below [`crate::Context`].

use sha2::{Digest as _, Sha512};
use wycheproof::TestResult;
use wycheproof::chunked_encryption::{Test, TestFlag, TestName, TestSet};

use crate::chunk::{CHUNK_LEN, HEADER_LEN, SALT_LEN, SEALED_CHUNK_LEN, Shape};
use crate::keys::BlockKey;
use crate::message::{open_under, seal_under};
use crate::opener::Opener;
use crate::schedule::Schedule;

fn vectors(result: TestResult) -> Vec<Test> {
    let set = TestSet::load(TestName::Cobblestone256).unwrap();
    let tests = set.test_groups.into_iter().flat_map(|group| group.tests);
    tests.filter(|test| test.result == result).collect()
}

fn sealed(test: &Test) -> Vec<u8> {
    miniz_oxide::inflate::decompress_to_vec_zlib(&test.ct).unwrap()
}

fn open(test: &Test) -> Option<Vec<u8>> {
    let key = BlockKey::from_slice(&test.key)?;
    open_under(&key, &test.ctx, &sealed(test)).ok().map(|plain| plain.to_vec())
}

/// Chunk by chunk from the end to the front, as a reader that seeks would.
fn open_backwards(test: &Test) -> Option<Vec<u8>> {
    let key = BlockKey::from_slice(&test.key)?;
    let sealed = sealed(test);
    let plain_len = Shape::plain_len(sealed.len())?;
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>()?;
    let opener = Opener::under(&key, &test.ctx, header, plain_len as u64).ok()?;
    let mut plain = vec![0; plain_len];
    for (index, chunk) in body.chunks(SEALED_CHUNK_LEN).enumerate().rev() {
        let mut chunk = chunk.to_vec();
        let opened = opener.open_chunk(index as u64, &mut chunk).ok()?;
        plain[index * CHUNK_LEN..][..opened.len()].copy_from_slice(&opened);
    }
    Some(plain)
}

#[test]
fn published_messages_open() {
    let valid = vectors(TestResult::Valid);
    assert_eq!(valid.len(), 10);
    for test in &valid {
        let plain = open(test).expect(&test.comment);
        assert_eq!(Some(plain.len()), test.msg_length, "{}", test.comment);
        assert_eq!(
            Some(Sha512::digest(&plain).as_slice()),
            test.msg_sha512.as_deref().map(Vec::as_slice)
        );
        assert!(open_backwards(test).as_ref() == Some(&plain), "{}", test.comment);
    }
}

#[test]
fn published_messages_are_sealed_the_same() {
    for test in vectors(TestResult::Valid) {
        let (plain, sealed) = (open(&test).unwrap(), sealed(&test));
        let salt = *sealed.first_chunk::<SALT_LEN>().unwrap();
        let again = seal_under(&BlockKey::from_slice(&test.key).unwrap(), &test.ctx, salt, &plain);
        assert!(again == sealed, "{} differs", test.comment);
    }
}

#[test]
fn published_base_nonces_are_derived() {
    for test in vectors(TestResult::Valid) {
        let sealed = sealed(&test);
        let salt = sealed.first_chunk::<SALT_LEN>().unwrap();
        let key = BlockKey::from_slice(&test.key).unwrap();
        let (schedule, _) = Schedule::derive(&key, &test.ctx, salt);
        assert_eq!(
            Some(schedule.base_nonce()),
            test.base_nonce.as_deref().map(Vec::as_slice),
            "{}",
            test.comment
        );
    }
}

#[test]
fn published_failures_do_not_open() {
    let invalid = vectors(TestResult::Invalid);
    assert_eq!(invalid.len(), 25);
    for test in &invalid {
        assert!(open(test).is_none(), "{} opened", test.comment);
        assert!(open_backwards(test).is_none(), "{} opened backwards", test.comment);
    }
}

/// Where a published failure begins with good chunks, those open, and nothing behind them does.
#[test]
fn published_prefixes_open_and_end() {
    let partial = |test: &Test| test.flags.contains(&TestFlag::PartialPlaintext);
    for test in vectors(TestResult::Invalid).into_iter().filter(partial) {
        let sealed = sealed(&test);
        let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().unwrap();
        let key = BlockKey::from_slice(&test.key).unwrap();
        let longest = (body.len() / SEALED_CHUNK_LEN + 1) * CHUNK_LEN;
        let opener = Opener::under(&key, &test.ctx, header, longest as u64).unwrap();
        let mut prefix = Vec::new();
        for (index, chunk) in body.chunks(SEALED_CHUNK_LEN).enumerate() {
            match opener.open_chunk(index as u64, &mut chunk.to_vec()) {
                Ok(opened) => prefix.extend_from_slice(&opened),
                Err(_) => break,
            }
        }
        assert_eq!(Some(prefix.len()), test.msg_length, "{}", test.comment);
        assert_eq!(
            Some(Sha512::digest(&prefix).as_slice()),
            test.msg_sha512.as_deref().map(Vec::as_slice)
        );
    }
}
