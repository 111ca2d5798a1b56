//! Results come home, whole, counted and written down.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tidegate_gateway::ResultsRequest;
use tidegate_kit::ledger_log::read_document;
use tidegate_ledger::{Event, ResultsAct, ResultsListing};
use tidegate_wire::{
    Attributes, Change, ChangeRequest, CommitRequest, CopyRequest, ListReply, ListRequest,
    PartReceipt, ProblemKind, ReadRequest, Stored,
};

use crate::bringing::{Bringer, Content, allow, place, wanted};
use crate::worker::Home;

/// Bytes of two parts and some.
fn large() -> Vec<u8> {
    (0..35_000_000_u32).map(|n| (n % 249) as u8).collect()
}

fn acts(events: &[Event]) -> Vec<(ResultsAct, u64, u64)> {
    let of_results = events.iter().filter_map(|event| match event {
        Event::Results { act, files, bytes, .. } => Some((*act, *files, *bytes)),
        _ => None,
    });
    of_results.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_home_are_renamed_listed_and_read_again() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, ResultsRequest { resume: true, ..wanted(&home) }).await;
    assert!(bringer.terms.directories && bringer.terms.resume);
    let at = |path: &str| place(&home).join(path);

    let small = bringer.store("a/b/ü.pt", 1, b"weights").await;
    assert_eq!(std::fs::read(at("a/b/ü.pt")).unwrap(), b"weights");
    assert_eq!(small.blake3.0, blake3::hash(b"weights").as_bytes());
    let empty = bringer.store("empty", 2, b"").await;
    assert_eq!(empty.blake3.0, blake3::hash(b"").as_bytes());
    assert_eq!(std::fs::read(at("empty")).unwrap(), b"");

    let content = Content::new(large());
    let (stored, commit) = bringer.bring("model", 3, &content).await;
    assert!(std::fs::read(at("model")).unwrap() == content.bytes);
    assert_eq!(stored.blake3.0, blake3::hash(&content.bytes).as_bytes());
    // Its answer was lost.
    let again: Stored = bringer.posted("commit", &commit).await;
    assert_eq!(again, stored);

    let rename = Change::Rename { from: "model".into(), to: "a/model".into(), version: None };
    let changed = bringer.change(4, rename.clone()).await;
    assert!(!at("model").exists() && at("a/model").exists());
    assert_eq!(bringer.change(4, rename).await, changed, "it has the name already");

    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page: ListReply = bringer.posted("list", &ListRequest { after }).await;
        found.extend(page.found);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let names: Vec<_> = found.iter().map(|found| (found.path.as_str(), found.len)).collect();
    assert_eq!(
        names,
        [("a", 0), ("a/b", 0), ("a/b/ü.pt", 7), ("a/model", 35_000_000), ("empty", 0)]
    );
    assert_eq!(found[3].version, changed.version);
    assert_eq!(
        (found[3].attributes.mode & 0o777, found[3].attributes.mtime_s),
        (0o640, 1_700_000_001)
    );

    let read = ReadRequest {
        path: "a/model".into(),
        version: changed.version,
        offset: 20_000_000,
        len: 1000,
    };
    let bytes = bringer.post("read", &read).await;
    assert_eq!(bytes.status, 200);
    assert!(bytes.body == content.bytes[20_000_000..20_001_000]);
    bringer.change(5, Change::Unlink { path: "empty".into() }).await;
    assert!(!at("empty").exists());

    let acts = acts(&home.events().await);
    assert_eq!(acts[..2], [(ResultsAct::Stored, 1, 7), (ResultsAct::Stored, 1, 0)]);
    assert!(acts.contains(&(ResultsAct::Stored, 1, 35_000_000)));
    assert!(acts.contains(&(ResultsAct::Renamed, 1, 35_000_000)));
    assert!(acts.contains(&(ResultsAct::Read, 1, 35_000_000)));
    assert_eq!(acts.last(), Some(&(ResultsAct::Removed, 1, 0)));
}

/// What a page of listings says, with the paths that are there.
fn listing(home: &Home, event: &Event) -> ResultsListing {
    let Event::Results { listing, .. } = event else { panic!("{event:?}") };
    let documents = home.state().join("ledger/documents");
    let text = read_document(&documents, listing).unwrap().unwrap();
    ResultsListing::parse(&text).unwrap()
}

fn mark(path: &Path, name: &str) -> Option<String> {
    let mut value = [0; 256];
    let len = rustix::fs::getxattr(path, format!("user.tidegate.{name}"), &mut value).ok()?;
    Some(String::from_utf8_lossy(&value[..len]).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_says_which_data_made_it_and_so_does_the_ledger() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let stored = bringer.store("metrics.json", 1, b"{}").await;
    let file = place(&home).join("metrics.json");
    let lease = bringer.worker.join.lease;
    assert_eq!(mark(&file, "lease"), Some(lease.to_string()));
    assert_eq!(mark(&file, "image"), Some("sha256:0a1b".into()));
    assert_eq!(mark(&file, "blake3"), Some(blake3::hash(b"{}").to_hex().to_string()));
    assert!(mark(&file, "snapshot").is_some() && mark(&file, "selection").is_some());
    let meta = std::fs::metadata(&file).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o640, 1_700_000_001, 5));

    let events = home.events().await;
    let event = events.iter().find(|event| matches!(event, Event::Results { .. })).unwrap();
    let listing = listing(&home, event);
    assert_eq!((listing.act, listing.lease, listing.rank), (ResultsAct::Stored, lease, 0));
    assert_eq!(mark(&file, "snapshot"), Some(listing.snapshot.to_string()));
    assert_eq!(mark(&file, "selection"), Some(listing.selection.to_string()));
    assert_eq!(listing.image.as_deref(), Some("sha256:0a1b"));
    assert_eq!(listing.home, place(&home).display().to_string());
    assert_eq!(listing.files[0].path, "metrics.json");
    assert_eq!(listing.files[0].blake3.unwrap().as_bytes().as_slice(), stored.blake3.0);

    let terms = events.iter().find_map(|event| match event {
        Event::LeaseGranted { results, .. } => *results,
        _ => None,
    });
    let documents = home.state().join("ledger/documents");
    let terms = read_document(&documents, &terms.unwrap()).unwrap().unwrap();
    let terms: serde_json::Value = serde_json::from_str(&terms).unwrap();
    assert_eq!(terms["home"], listing.home);
    assert_eq!((&terms["resume"], &terms["files"]), (&false.into(), &1_000_000.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grew_is_put_together_from_what_is_at_home() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let content = Content::new(large());
    let (stored, commit) = bringer.bring("log", 1, &content).await;
    // The last part has become longer, and the upload was begun with an earlier content.
    let grown = Content::new([content.bytes.clone(), vec![7; 100]].concat());
    let upload = bringer.begin("log", &content).await;
    let mut receipts = Vec::new();
    for part in 0..2 {
        let copy = CopyRequest {
            upload: upload.clone(),
            path: "log".into(),
            version: stored.version.clone(),
            receipt: commit.parts[part].clone(),
        };
        receipts.push(bringer.posted::<PartReceipt>("copy", &copy).await);
        let stale = CopyRequest { version: "other".into(), ..copy.clone() };
        assert_eq!(bringer.post("copy", &stale).await.problem(), ProblemKind::SourceChanged);
        let other = PartReceipt { part: 2, ..copy.receipt.clone() };
        let other = CopyRequest { receipt: other, ..copy };
        assert_ne!(bringer.post("copy", &other).await.status, 200);
    }
    let before = bringer.part(&upload, &content, 2).await;
    receipts.push(bringer.part(&upload, &grown, 2).await);
    let mut torn = receipts.clone();
    torn[2] = before;
    let torn = CommitRequest {
        len: content.len(),
        ..bringer.commit_request(&upload, ("log", 2), &grown, torn)
    };
    let refused = bringer.post("commit", &torn).await;
    assert_eq!(refused.problem(), ProblemKind::Absent, "that part was written over");
    let commit = bringer.commit_request(&upload, ("log", 2), &grown, receipts);
    let stored = bringer.posted::<Stored>("commit", &commit).await;
    assert_eq!(stored.blake3.0, blake3::hash(&grown.bytes).as_bytes());
    assert!(std::fs::read(place(&home).join("log")).unwrap() == grown.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_change_at_home_as_on_the_worker() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let at = |path: &str| place(&home).join(path);
    let path = || "a/b".to_owned();
    for seq in [1, 1] {
        bringer.change(seq, Change::MakeDirectory { path: path(), mode: 0o750 }).await;
    }
    assert_eq!(std::fs::metadata(at("a/b")).unwrap().mode() & 0o777, 0o750);
    bringer.store("a/b/one", 2, b"1").await;
    bringer.store("two", 3, b"2").await;
    let over = Change::Rename { from: "two".into(), to: "a/b/one".into(), version: None };
    bringer.change(4, over).await;
    assert_eq!(std::fs::read(at("a/b/one")).unwrap(), b"2");
    let refused =
        async |seq, change| bringer.post("change", &ChangeRequest { seq, change }).await.problem();
    let occupied = ProblemKind::Occupied;
    assert_eq!(refused(5, Change::RemoveDirectory { path: path() }).await, occupied);
    assert_eq!(refused(5, Change::Unlink { path: path() }).await, occupied);
    let onto = Change::Rename { from: "a/b/one".into(), to: "a".into(), version: None };
    assert_eq!(refused(5, onto).await, occupied);
    let gone = Change::Rename { from: "x".into(), to: "y".into(), version: None };
    assert_eq!(refused(5, gone).await, ProblemKind::Absent);

    let moved = Change::RenameDirectory { from: "a".into(), to: "c".into() };
    bringer.change(6, moved.clone()).await;
    bringer.change(6, moved).await;
    assert_eq!(std::fs::read(at("c/b/one")).unwrap(), b"2");
    let late = bringer.store("a/b/late", 5, b"late").await;
    assert!(late.superseded && !at("a").exists(), "what was under way when its directory moved");

    let attributes = Attributes { mode: 0o600, mtime_s: 7, mtime_ns: 0 };
    let set = Change::SetAttributes { path: "c/b/one".into(), attributes };
    bringer.change(7, set).await;
    let meta = std::fs::metadata(at("c/b/one")).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.mtime()), (0o600, 7));
    for seq in [8, 8] {
        bringer.change(seq, Change::Unlink { path: "c/b/one".into() }).await;
    }
    for path in ["c/b", "c", "c"] {
        bringer.change(9, Change::RemoveDirectory { path: path.into() }).await;
    }
    assert!(!at("c").exists());
}

/// A request that was long under way, for a name that lies in what took the place since.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_for_the_place_of_a_directory_changes_nothing() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    bringer.store("best/x", 1, b"old").await;
    bringer.store("tmp/x", 2, b"new").await;
    let unlink = || Change::Unlink { path: "best/x".into() };
    bringer.change(4, unlink()).await;
    bringer.change(5, Change::RemoveDirectory { path: "best".into() }).await;
    let moved = Change::RenameDirectory { from: "tmp".into(), to: "best".into() };
    bringer.change(6, moved).await;
    bringer.change(4, unlink()).await;
    assert_eq!(std::fs::read(place(&home).join("best/x")).unwrap(), b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_moves_nothing_but_the_version_that_it_names() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let first = bringer.store("tmp", 1, b"first").await.version;
    bringer.store("tmp", 2, b"second one").await;
    let (from, to) = ("tmp".to_owned(), "best".to_owned());
    let change = Change::Rename { from, to, version: Some(first) };
    let refused = bringer.post("change", &ChangeRequest { seq: 3, change }).await;
    assert_eq!(refused.problem(), ProblemKind::SourceChanged);
    assert!(place(&home).join("tmp").exists() && !place(&home).join("best").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_request_for_a_path_wins() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    bringer.store("a", 5, b"new").await;
    let late = bringer.store("a", 4, b"old").await;
    assert!(late.superseded && late.version.is_empty() && late.blake3.0.is_empty());
    let late = bringer.change(3, Change::Unlink { path: "a".into() }).await;
    assert!(late.version.is_empty());
    assert_eq!(std::fs::read(place(&home).join("a")).unwrap(), b"new");
    assert_eq!(acts(&home.events().await), [(ResultsAct::Stored, 1, 3)]);
    bringer.change(6, Change::Rename { from: "a".into(), to: "b".into(), version: None }).await;
    assert!(bringer.store("a", 5, b"new").await.superseded, "its name is another's by now");
    assert!(!place(&home).join("a").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_together_shares_an_entry() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let stores = (0..40_u64).map(|n| {
        let bringer = &bringer;
        async move { bringer.store(&format!("many/{n}"), n, &n.to_be_bytes()).await }
    });
    futures_util::future::join_all(stores).await;
    let acts = acts(&home.events().await);
    assert_eq!(acts.iter().map(|(_, files, _)| files).sum::<u64>(), 40);
    assert!(acts.len() < 40, "{acts:?}");
    assert_eq!(std::fs::read_dir(place(&home).join("many")).unwrap().count(), 40);
}
