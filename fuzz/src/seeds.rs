//! Valid inputs, made by the same code that writes them in earnest.

use serde_json::json;
use tidegate_ledger::{
    Digest, Discarded, Event, LeaseId, Ledger, ListedResult, METHOD_OVERWRITE, Observed, Outcome,
    ResultsAct, ResultsListing, SelectionId, SigningKey, SnapshotId, Stated, StatedCounters,
    StatedFacts, WipeCertificate,
};
use tidegate_plan::{
    Entry, InstanceId, Kind, Layout, LayoutId, RelPath, Selection, SelectionSpec, Snapshot,
    Timestamp, Unshown, Version, build_manifest,
};
use tidegate_seal::{BlockKey, Context, Cover, LeaseKey, Release, depth, seal_message};
use tidegate_wire::{Base64, Problem, ProblemKind, frame_head};

/// What the seeds of `targets::sealed` hold.
pub(crate) const PLAIN: &[u8] = &[0x5a; 20_000];

/// A snapshot with one of everything.
pub fn small_snapshot() -> Snapshot {
    let entry = |path: &str, kind: Kind, size: u64| Entry {
        path: RelPath::new(path).expect("a plain path"),
        version: match kind {
            Kind::File => {
                Version::Inode { dev: 1, ino: size, ctime: Timestamp { secs: 3, nanos: 4 } }
            }
            _ => Version::None,
        },
        kind,
        size,
        mode: 0o644,
        mtime: Timestamp { secs: -5, nanos: 6 },
    };
    let mut object = entry("o/object", Kind::File, 70_000);
    object.version = Version::Object { etag: "\"0\"".into(), version_id: Some("v1".into()) };
    let entries = vec![
        entry("a/empty", Kind::File, 0),
        entry("a/small", Kind::File, 10),
        entry("a/link", Kind::Symlink(b"small".as_slice().into()), 5),
        entry("big", Kind::File, (4 << 20) + 77),
        entry("dir", Kind::Dir, 0),
        object,
    ];
    let unshown =
        vec![Unshown { name: b"a//b".as_slice().into(), reason: "empty component".into() }];
    Snapshot::build("/source".into(), entries, unshown)
}

pub fn snapshots() -> Vec<Vec<u8>> {
    let empty = Snapshot::build("s3://bucket".into(), Vec::new(), Vec::new());
    [small_snapshot(), empty].map(|snapshot| snapshot.as_bytes().to_vec()).into()
}

pub fn manifests() -> Vec<Vec<u8>> {
    let snapshot = small_snapshot();
    let all = Selection::resolve(&snapshot, &SelectionSpec::default()).expect("all of it");
    let share = |ranks, rank| {
        let layout = Layout::build(&snapshot, &all, ranks).expect("a small layout");
        build_manifest(&snapshot, &all, &layout, rank)
    };
    vec![share(1, 0), share(2, 0), share(2, 1)]
}

pub fn paths() -> Vec<Vec<u8>> {
    vec![b"a/b/c".to_vec(), b"\xff\xfe/x".to_vec(), vec![b'n'; 255]]
}

pub fn selections() -> Vec<Vec<u8>> {
    let spec = json!({"include": ["a/**", "*.{bin,txt}", "[!x]?"], "exclude": ["**/tmp"], "list": ["big"]});
    vec![spec.to_string().into_bytes(), b"{}".to_vec()]
}

/// The context that [`sealed`] is sealed under.
pub(crate) fn seal_context() -> Context {
    Context {
        kind: tidegate_seal::Kind::Block,
        lease: LeaseId::from_bytes([1; 16]),
        layout: LayoutId::from_bytes([2; 32]),
        number: 3,
        count: 9,
    }
}

pub fn sealed() -> Vec<Vec<u8>> {
    let key = BlockKey::from_bytes([7; 32]);
    vec![seal_message(&key, &seal_context(), [9; 24], PLAIN)]
}

fn some_cover() -> Cover {
    LeaseKey::from_bytes([3; 32]).tree_root().cover(depth(100), 5..77)
}

pub fn covers() -> Vec<Vec<u8>> {
    let empty = LeaseKey::from_bytes([3; 32]).tree_root().cover(depth(100), 4..4);
    vec![some_cover().to_bytes().to_vec(), empty.to_bytes().to_vec()]
}

pub fn releases() -> Vec<Vec<u8>> {
    let release = Release { manifest_key: BlockKey::from_bytes([8; 32]), cover: some_cover() };
    vec![release.to_bytes().to_vec()]
}

pub(crate) fn signing_key() -> SigningKey {
    SigningKey::from_seed("ledger.example", [4; 32]).expect("a plain name")
}

fn first_batch() -> tidegate_ledger::Batch {
    let key = signing_key();
    let ledger = Ledger::new(key.verifier().clone());
    let events = [
        Event::LedgerOpened { origin: key.name().to_owned(), after: None },
        Event::Refused { lease: None, reason: "unauthenticated".into(), count: 3 },
    ];
    ledger
        .propose(events, 1_700_000_000, InstanceId::from_bytes([6; 16]), &key)
        .expect("two events")
}

pub(crate) fn batch() -> Vec<u8> {
    first_batch().to_bytes().expect("a short batch")
}

pub(crate) fn note() -> Vec<u8> {
    first_batch().checkpoint.into_bytes()
}

pub fn notes() -> Vec<Vec<u8>> {
    vec![note(), signing_key().vkey().into_bytes()]
}

pub fn batches() -> Vec<Vec<u8>> {
    vec![batch()]
}

pub fn entries() -> Vec<Vec<u8>> {
    first_batch().entries.into_iter().map(String::into_bytes).collect()
}

/// A statement, and a certificate of a lease that was withdrawn.
pub fn certificates() -> Vec<Vec<u8>> {
    let lease = LeaseId::from_bytes([1; 16]);
    let stated = Stated {
        v: Stated::VERSION,
        lease,
        rank: 0,
        instance: InstanceId::from_bytes([2; 16]),
        time: 9,
        keys_destroyed_at: 8,
        unmounted: true,
        cache_bytes: 10,
        overwritten_bytes: 10,
        read_back_bytes: 10,
        mismatched_bytes: 0,
        discarded: Discarded::NotDone("not supported".into()),
        unlinked: true,
        method: METHOD_OVERWRITE.into(),
        page_cache_bytes_freed_without_overwrite: 7,
        counters: StatedCounters::default(),
        facts: StatedFacts { swap: vec!["/dev/sda2".into()], ..StatedFacts::default() },
        results: None,
    };
    let certificate = WipeCertificate {
        version: WipeCertificate::VERSION,
        lease,
        rank: 0,
        identity: None,
        observed: Observed {
            outcome: Outcome::Withdrawn,
            attached_at: Some(3),
            released: vec![(0, 5), (7, 9)],
            releases: 2,
            released_bytes: 7 << 22,
            sent_bytes: None,
            last_release_at: Some(4),
            last_seen: Some(5),
            closed_at: 6,
            lease_key_destroyed_at: Some(6),
            wrapped_key_absent: Some(true),
            epoch_key_destroyed: None,
            waited_s: None,
            results_unsent_bytes: None,
        },
        stated: None,
        stated_signature: None,
    };
    let texts = [stated.to_canonical(), certificate.to_canonical()];
    texts.map(|text| text.expect("plain values").into_bytes()).into()
}

/// Bytes of every field's shape, so that mutations get past the first missing key.
pub fn messages() -> Vec<Vec<u8>> {
    let (id16, id32) = ("00".repeat(16), "11".repeat(32));
    let facts = json!({"host": "h", "kernel": "6.9", "swap": [], "core_pattern": "core",
        "core_dumps_off": true, "init_on_free": false, "cache_fs": "ext4", "version": "0"});
    let receipt = json!({"entry": "{}", "index": 1, "proof": ["AAAA"], "checkpoint": "c"});
    let bytes = |n: usize| serde_json::to_value(Base64(vec![1; n])).unwrap_or_default();
    let attach = json!({"lease": id16, "token": id16, "nonce": bytes(32), "instance": id16,
        "identity_key": bytes(32), "hpke_key": bytes(64), "facts": facts,
        "evidence": {"kind": "none", "bytes": ""}, "proof": bytes(32), "signature": bytes(64)});
    let terms = json!({"lease": id16, "snapshot": id32, "layout": id32, "rank": 0, "ranks": 1,
        "blocks": 3, "first_block": 0, "end_block": 3, "manifest_len": 200, "bytes": 9, "files": 1,
        "deadline": 2, "heartbeat": 5, "grace": 20});
    let attributes = json!({"mode": 420, "mtime_s": -1, "mtime_ns": 5});
    let part = json!({"part": 0, "len": 9, "hash": bytes(32), "tag": "\"t\"", "proof": bytes(32)});
    let messages = [
        json!({"path": "a/ü", "seq": 4, "attributes": attributes, "content": id32, "key": bytes(99),
            "len": 7}),
        json!({"upload": "u", "content": id32, "key": bytes(99), "part": 1, "len": 9}),
        json!({"upload": "u", "path": "a", "version": "v", "receipt": part}),
        json!({"upload": "u", "path": "a", "seq": 4, "attributes": attributes, "content": id32,
            "len": 18, "parts": [part, part]}),
        json!({"seq": 1, "change": {"do": "rename", "from": "a", "to": "b"}}),
        json!({"found": [{"path": "a", "directory": false, "len": 1, "attributes": attributes,
            "version": "v"}], "next": "a"}),
        json!({"path": "a", "version": "v", "offset": 1, "len": 2}),
        json!({"nonce": bytes(32), "expires_in": 30, "time": 1}),
        attach,
        json!({"terms": terms, "certificate": "-----", "certificate_expires": 9, "revision": 2,
            "receipt": receipt, "time": 1}),
        json!({"first_block": 0, "end_block": 3}),
        json!({"lease": id16, "layout": id32, "rank": 0, "epoch": 1, "first_block": 0, "end_block": 3,
            "expiry": 9, "sealed": bytes(99), "receipt": receipt, "time": 1}),
        json!({"instance": id16, "counters": {"blocks_fetched": 1, "bytes_fetched": 2, "bytes_read": 3,
            "reads": 4, "read_errors": 0, "refetched": 0, "resident": 1}}),
        json!({"directive": "drain", "deadline": 9, "certificate": ["-----", 9], "time": 1}),
        json!({"statement": "{}", "facts": facts, "signature": bytes(64)}),
        json!({"certificate": "{}", "receipt": receipt}),
        json!({"version": 1, "gateways": ["https://[::1]:1"], "ca": "-----BEGIN CERTIFICATE-----",
            "ledger_key": "k+0+A", "lease": id16, "rank": 0, "token": id16, "secret": bytes(32)}),
    ];
    let problem =
        serde_json::to_vec(&Problem::new(ProblemKind::LeaseOver, "over")).unwrap_or_default();
    let framed = frame_head(&messages[0]).unwrap_or_default();
    let messages = messages.iter().map(|message| message.to_string().into_bytes());
    messages.chain([problem, framed]).collect()
}

/// A listing of results, of one file that was stored and one that was renamed.
pub fn listings() -> Vec<Vec<u8>> {
    let file = |path: &str, from: Option<&str>, blake3| ListedResult {
        path: path.into(),
        from: from.map(Into::into),
        bytes: 7,
        blake3,
    };
    let listing = ResultsListing {
        v: ResultsListing::VERSION,
        act: ResultsAct::Stored,
        lease: LeaseId::from_bytes([1; 16]),
        rank: 2,
        snapshot: SnapshotId::from_bytes([3; 32]),
        selection: SelectionId::from_bytes([4; 32]),
        image: Some("sha256:00".into()),
        home: "s3://bucket/prefix/".into(),
        files: vec![
            file("a/ü.pt", None, Some(Digest::from_bytes([5; 32]))),
            file("b", Some("a"), None),
        ],
    };
    vec![listing.to_canonical().expect("plain values").into_bytes()]
}
