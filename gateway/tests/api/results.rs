//! Results come home, whole, counted and written down.

use tidegate_gateway::ResultsRequest;
use tidegate_ledger::{Event, ResultsAct};
use tidegate_wire::{Change, ListReply, ListRequest, ReadRequest, Stored};

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

    let rename = Change::Rename { from: "model".into(), to: "a/model".into() };
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
