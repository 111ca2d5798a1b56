//! The corpus of messages that must not open, each both ways: by a reader that was told the
//! length, and by one that trusts the message's own.

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use std::collections::BTreeMap;
use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{
    BlockKey, Context, HEADER_LEN, Kind, OpenError, Opener, SEALED_CHUNK_LEN, TAG_LEN,
    open_message, seal_message,
};

const CORPUS: &str = include_str!("../../../tests/vectors/sealed_failures.json");

#[derive(Deserialize)]
struct Corpus {
    key: String,
    salt: String,
    place: Place,
    messages: BTreeMap<String, Message>,
    cases: Vec<Case>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    kind: u8,
    lease: LeaseId,
    layout: LayoutId,
    number: u64,
    count: u64,
}

/// Fields of a place that a case has of its own.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    kind: Option<u8>,
    lease: Option<LeaseId>,
    layout: Option<LayoutId>,
    number: Option<u64>,
    count: Option<u64>,
}

#[derive(Deserialize)]
struct Message {
    plain_len: u64,
    sealed_len: usize,
    sealed_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    message: String,
    why: String,
    #[serde(default)]
    edits: Vec<Edit>,
    #[serde(default)]
    place: Elsewhere,
    key: Option<String>,
    plain_len: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Edit {
    Swap { swap: [usize; 2], len: usize },
    Copy { copy: usize, to: usize, len: usize },
    Remove { remove: usize, len: usize },
    Zero { zero: usize, len: usize },
    Truncate { truncate: usize },
    Append { append: String },
    Xor { xor: usize, mask: u8 },
    Write { write: usize, hex: String },
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Swap { swap: [a, b], len } => {
                let (front, back) = bytes.split_at_mut(*b);
                front[*a..a + len].swap_with_slice(&mut back[..*len]);
            }
            Self::Copy { copy, to, len } => {
                bytes.resize(bytes.len().max(to + len), 0);
                bytes.copy_within(*copy..copy + len, *to);
            }
            Self::Remove { remove, len } => drop(bytes.drain(*remove..remove + len)),
            Self::Zero { zero, len } => bytes[*zero..zero + len].fill(0),
            Self::Truncate { truncate } => {
                assert!(*truncate < bytes.len());
                bytes.truncate(*truncate);
            }
            Self::Append { append } => bytes.extend(unhex(append)),
            Self::Xor { xor, mask } => bytes[*xor] ^= mask,
            Self::Write { write, hex } => {
                let new = unhex(hex);
                bytes[*write..write + new.len()].copy_from_slice(&new);
            }
        }
    }
}

impl Place {
    fn moved(self, to: &Elsewhere) -> Self {
        Self {
            kind: to.kind.unwrap_or(self.kind),
            lease: to.lease.unwrap_or(self.lease),
            layout: to.layout.unwrap_or(self.layout),
            number: to.number.unwrap_or(self.number),
            count: to.count.unwrap_or(self.count),
        }
    }

    fn context(self) -> Context {
        let Self { kind, lease, layout, number, count } = self;
        let kind = match kind {
            1 => Kind::Block,
            2 => Kind::Manifest,
            other => panic!("the corpus has no kind {other}"),
        };
        Context { kind, lease, layout, number, count }
    }
}

impl Corpus {
    fn load() -> Self {
        serde_json::from_str(CORPUS).expect("the corpus is of this form")
    }

    fn sealed(&self, message: &Message) -> Vec<u8> {
        let salt = unhex(&self.salt).try_into().expect("24 bytes");
        let plain = pattern(message.plain_len);
        seal_message(&key(&self.key), &self.place.context(), salt, &plain)
    }
}

fn key(hex: &str) -> BlockKey {
    BlockKey::from_slice(&unhex(hex)).expect("32 bytes")
}

fn unhex(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("the corpus is in hex")
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| (31 * i + i / 251).to_le_bytes()[0]).collect()
}

/// All of a message of a known length in one run, as a worker opens a resident block.
fn open_run(
    key: &BlockKey,
    context: &Context,
    sealed: &[u8],
    plain_len: u64,
) -> Result<Vec<u8>, OpenError> {
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(OpenError)?;
    let opener = Opener::new(key, context, header, plain_len)?;
    // A run may end at any chunk's edge; this reader wants all that was sealed.
    let chunks = opener.chunks();
    if body.len() as u64 != plain_len + TAG_LEN as u64 * chunks {
        return Err(OpenError);
    }
    let mut body = body.to_vec();
    Ok(opener.open_run(0, &mut body)?.to_vec())
}

/// The same chunk by chunk.
fn open_chunks(
    key: &BlockKey,
    context: &Context,
    sealed: &[u8],
    plain_len: u64,
) -> Result<Vec<u8>, OpenError> {
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(OpenError)?;
    let opener = Opener::new(key, context, header, plain_len)?;
    let mut chunks = body.chunks(SEALED_CHUNK_LEN);
    let mut plain = Vec::new();
    for index in 0..opener.chunks() {
        let mut chunk = chunks.next().ok_or(OpenError)?.to_vec();
        plain.extend_from_slice(&opener.open_chunk(index, &mut chunk)?);
    }
    if chunks.next().is_none() { Ok(plain) } else { Err(OpenError) }
}

#[test]
fn the_unedited_messages_open() {
    let corpus = Corpus::load();
    let (key, context) = (key(&corpus.key), corpus.place.context());
    for (name, message) in &corpus.messages {
        let sealed = corpus.sealed(message);
        assert_eq!(sealed.len(), message.sealed_len, "{name}");
        assert_eq!(hex::encode(digest(&SHA256, &sealed)), message.sealed_sha256, "{name}");
        let plain = pattern(message.plain_len);
        assert_eq!(*open_message(&key, &context, &sealed).unwrap(), plain, "{name}");
        assert_eq!(open_run(&key, &context, &sealed, message.plain_len).unwrap(), plain);
        assert_eq!(open_chunks(&key, &context, &sealed, message.plain_len).unwrap(), plain);
    }
}

#[test]
fn no_case_opens() {
    let corpus = Corpus::load();
    assert!(corpus.cases.len() >= 40);
    for case in &corpus.cases {
        let message = &corpus.messages[&case.message];
        let mut sealed = corpus.sealed(message);
        for edit in &case.edits {
            edit.apply(&mut sealed);
        }
        let key = key(case.key.as_ref().unwrap_or(&corpus.key));
        let context = corpus.place.moved(&case.place).context();
        let plain_len = case.plain_len.unwrap_or(message.plain_len);
        // Says what should have been caught, not only which case let it through.
        let name = &format!("{}: {}", case.name, case.why);
        assert!(open_run(&key, &context, &sealed, plain_len).is_err(), "{name} opened as a run");
        assert!(open_chunks(&key, &context, &sealed, plain_len).is_err(), "{name} opened");
        if case.plain_len.is_none() {
            assert!(open_message(&key, &context, &sealed).is_err(), "{name} opened as a message");
        }
    }
}

#[test]
fn every_refusal_reads_the_same() {
    let corpus = Corpus::load();
    let key = key(&corpus.key);
    let sealed = corpus.sealed(&corpus.messages["short"]);
    let context = corpus.place.context();
    let mut refusals = Vec::new();
    for damage in [0, 30, 60, sealed.len() - 1] {
        let mut sealed = sealed.clone();
        sealed[damage] ^= 1;
        refusals.push(open_message(&key, &context, &sealed).unwrap_err().to_string());
    }
    refusals.push(open_message(&key, &context, &sealed[..10]).unwrap_err().to_string());
    assert!(refusals.iter().all(|refusal| refusal == "cannot be opened"), "{refusals:?}");
}

/// A reader gets zeros in its buffer, not what a failed open may have decrypted.
#[test]
fn a_refused_run_leaves_nothing_in_the_buffer() {
    let corpus = Corpus::load();
    let message = &corpus.messages["three-chunks"];
    let sealed = corpus.sealed(message);
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().unwrap();
    let opener =
        Opener::new(&key(&corpus.key), &corpus.place.context(), header, message.plain_len).unwrap();
    let mut body = body.to_vec();
    *body.last_mut().unwrap() ^= 1;
    assert!(opener.open_run(0, &mut body).is_err());
    assert!(body.iter().all(|byte| *byte == 0));
}

/// One call opens one chunk: two good ones in a row are not it, nor is a chunk past the end.
#[test]
fn a_chunk_is_one_chunk() {
    let corpus = Corpus::load();
    let message = &corpus.messages["three-chunks"];
    let sealed = corpus.sealed(message);
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().unwrap();
    let opener =
        Opener::new(&key(&corpus.key), &corpus.place.context(), header, message.plain_len).unwrap();
    assert!(opener.open_chunk(0, &mut body[..2 * SEALED_CHUNK_LEN].to_vec()).is_err());
    assert!(opener.open_chunk(0, &mut body[..SEALED_CHUNK_LEN].to_vec()).is_ok());
    assert!(opener.open_chunk(3, &mut body[..SEALED_CHUNK_LEN].to_vec()).is_err());
    assert!(opener.open_run(0, &mut []).is_err());
}
