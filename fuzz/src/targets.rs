//! One function for each parser.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_ledger::{
    Batch, Checkpoint, Entry, Ledger, ResultsListing, SigningKey, Stated, VerifierKey,
    WipeCertificate, open_note, verify,
};
use tidegate_plan::{Manifest, RelPath, SelectionSpec, Snapshot};
use tidegate_seal::{BlockKey, Cover, HEADER_LEN, Opener, Release, open_message};
use tidegate_wire::{
    AttachRequest, AttachResponse, BeginRequest, Challenge, ChangeRequest, CommitRequest,
    CopyRequest, Heartbeat, HeartbeatReply, JoinFile, KeyGrant, KeyRequest, ListReply,
    MAX_RESULT_HEAD, PartReceipt, PartRequest, Problem, ReadRequest, StoreRequest, Stored,
    WipeReceipt, WipeStatement, frame_head, head_len,
};

use crate::seeds;

/// Manifest of a share: accepted bytes can be walked, looked up and located to the end.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    for i in 0..manifest.len() {
        let record = manifest.record(i);
        let found = manifest.lookup(record.parent, record.name);
        assert!(i == 0 || found == Some(i), "a record is not found under its own name");
        assert_eq!(manifest.path(i).is_empty(), i == 0);
        assert!(manifest.children(i).end <= manifest.len());
        let _ = manifest.link_target(i);
        for offset in [0, 1, record.size / 2, record.size.saturating_sub(1), record.size, u64::MAX]
        {
            let Some(piece) = manifest.locate(i, offset) else { continue };
            assert!(piece.len >= 1 && piece.extent_at <= piece.at);
            let block = manifest.block(piece.block);
            let inside = block
                .is_some_and(|b| u64::from(piece.at) + u64::from(piece.len) <= b.plain_len.into());
            assert!(inside, "a piece is outside its block");
        }
    }
    let _ = (manifest.get(manifest.len()), manifest.block(u32::MAX), manifest.lookup(0, b"absent"));
}

/// Snapshot: canonical, so that its id means its content.
pub fn snapshot(data: &[u8]) {
    let Ok(snapshot) = Snapshot::from_bytes(data.to_vec()) else { return };
    let (entries, unshown) = (snapshot.entries().collect(), snapshot.unshown().to_vec());
    let again = Snapshot::build(snapshot.source().to_owned(), entries, unshown);
    assert_eq!(again.as_bytes(), data, "two encodings of one snapshot");
}

/// A path as a store or a tree names it.
pub fn path(data: &[u8]) {
    let Ok(path) = RelPath::new(data) else { return };
    assert!(path.components().all(|name| !matches!(name, b"" | b"." | b"..")));
    assert!(!data.contains(&0));
    let _ = (path.parent(), path.name(), path.to_string());
}

/// Globs and lists as a user or the admin socket writes them.
pub fn selection(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<SelectionSpec>(data) else { return };
    let _ = tidegate_plan::Selection::resolve(&seeds::small_snapshot(), &spec);
}

/// Header of a sealed block and all that follows it.
pub fn sealed(data: &[u8]) {
    let key = BlockKey::from_bytes([7; 32]);
    let context = seeds::seal_context();
    if let Ok(plain) = open_message(&key, &context, data) {
        assert_eq!(&plain[..], seeds::PLAIN, "something else than what was sealed opened");
    }
    let Some((header, body)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    for plain_len in [0, seeds::PLAIN.len() as u64, data.len() as u64, u64::MAX] {
        let Ok(opener) = Opener::new(&key, &context, header, plain_len) else { continue };
        for index in [0, 1, opener.chunks(), u64::MAX] {
            let _ = opener.open_chunk(index, &mut body.to_vec());
            let _ = opener.open_run(index, &mut body.to_vec());
        }
    }
}

/// Cover of a key tree.
pub fn cover(data: &[u8]) {
    let Ok(cover) = Cover::from_bytes(data) else { return };
    assert_eq!(cover.to_bytes()[..], *data, "two encodings of one cover");
    let range = cover.range();
    let inside =
        [range.start, range.start + (range.end - range.start) / 2, range.end.saturating_sub(1)];
    for block in inside.into_iter().filter(|block| range.contains(block)) {
        assert!(cover.leaf(block).is_some(), "a cover misses a block of its range");
    }
    assert!(cover.leaf(range.end).is_none());
}

/// Keys as they stand inside a release.
pub fn release(data: &[u8]) {
    if let Ok(release) = Release::from_bytes(data) {
        assert_eq!(release.to_bytes()[..], *data, "two encodings of one release");
    }
}

/// A signed note, and the checkpoint in it.
pub fn note(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = seeds::signing_key();
    let _ = open_note(text, &[key.verifier()]);
    if let Ok(checkpoint) = Checkpoint::open(text, key.verifier()) {
        assert_eq!(
            text.as_bytes(),
            seeds::note(),
            "a note that was never signed opened: {checkpoint:?}"
        );
    }
    let _ = (VerifierKey::parse(text), SigningKey::parse(text));
}

/// One ledger entry.
pub fn entry(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(entry) = Entry::parse(text) else { return };
    assert_eq!(entry.to_canonical().ok().as_deref(), Some(text), "two encodings of one entry");
}

/// The document behind an entry about results.
pub fn listing(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(listing) = ResultsListing::parse(text) else { return };
    assert_eq!(listing.to_canonical().ok().as_deref(), Some(text), "two encodings of one listing");
}

/// A stored batch, alone and in a ledger that is verified.
pub fn batch(data: &[u8]) {
    let key = seeds::signing_key();
    if let Ok(batch) = Batch::parse(data) {
        assert_eq!(batch.to_bytes().ok().as_deref(), Some(data), "two encodings of one batch");
        let _ = Ledger::new(key.verifier().clone()).accept(&batch);
    }
    let report = verify(&[("00000000000000000000", data)], key.verifier(), &[] as &[&str]);
    if report.holds() && report.size > 0 {
        assert_eq!(data, seeds::batch(), "a batch that was never signed verifies");
    }
}

/// A wipe certificate and the worker's statement in it.
pub fn certificate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(stated) = Stated::parse(text) {
        assert_eq!(stated.to_canonical().ok().as_deref(), Some(text));
        let _ = stated.shortfall();
    }
    if let Ok(certificate) = WipeCertificate::parse(text) {
        assert_eq!(certificate.to_canonical().ok().as_deref(), Some(text));
        let _ = (certificate.check(), certificate.digest());
    }
}

/// Every JSON message of the worker's API, and the join file.
pub fn wire(data: &[u8]) {
    fn stable<T: Serialize + DeserializeOwned + PartialEq>(data: &[u8]) {
        let Ok(value) = serde_json::from_slice::<T>(data) else { return };
        let again = serde_json::to_vec(&value).unwrap_or_default();
        let same = serde_json::from_slice::<T>(&again).is_ok_and(|read| read == value);
        assert!(same, "a message does not survive being written and read");
    }
    stable::<Challenge>(data);
    stable::<AttachRequest>(data);
    stable::<AttachResponse>(data);
    stable::<KeyRequest>(data);
    stable::<KeyGrant>(data);
    stable::<Heartbeat>(data);
    stable::<HeartbeatReply>(data);
    stable::<WipeStatement>(data);
    stable::<WipeReceipt>(data);
    stable::<Problem>(data);
    if let Ok(request) = serde_json::from_slice::<AttachRequest>(data) {
        assert!(request.transcript().starts_with(b"tidegate/v1 attach\0"));
    }
    stable::<StoreRequest>(data);
    stable::<BeginRequest>(data);
    stable::<PartRequest>(data);
    stable::<PartReceipt>(data);
    stable::<CopyRequest>(data);
    stable::<CommitRequest>(data);
    stable::<ChangeRequest>(data);
    stable::<ListReply>(data);
    stable::<ReadRequest>(data);
    stable::<Stored>(data);
    if let Some((prefix, rest)) = data.split_first_chunk()
        && let Some(len) = head_len(*prefix)
    {
        assert!(len <= MAX_RESULT_HEAD);
        if let Some(Ok(head)) = rest.get(..len).map(serde_json::from_slice::<StoreRequest>) {
            let framed = frame_head(&head).unwrap_or_default();
            assert_eq!(framed.first_chunk().copied().and_then(head_len), Some(framed.len() - 4));
        }
    }
    if let Ok(file) = JoinFile::parse(data) {
        assert!(!format!("{file:?}").contains("secret"));
    }
}
