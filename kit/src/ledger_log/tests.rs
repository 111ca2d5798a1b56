use std::path::Path;

use tidegate_ledger::{Batch, Entry, Event, LeaseId, SigningKey, VerifierKey, verify};

use super::*;

fn config(dir: &Path) -> LedgerConfig {
    LedgerConfig {
        key_file: dir.join("state/ledger.key"),
        origin: None,
        checkpoint_copy: Some(dir.join("elsewhere/checkpoint")),
    }
}

async fn try_open(dir: &Path) -> Result<LedgerLog, LogError> {
    std::fs::create_dir_all(dir.join("elsewhere")).unwrap();
    LedgerLog::open(StateStore::open(&dir.join("state")).unwrap(), config(dir)).await
}

async fn open(dir: &Path) -> LedgerLog {
    try_open(dir).await.unwrap()
}

fn event(count: u64) -> Event {
    Event::Refused { lease: Some(LeaseId::from_bytes([1; 16])), reason: "test".into(), count }
}

fn batches(dir: &Path) -> Vec<(String, Vec<u8>)> {
    read_batches(&dir.join("state").join("ledger/batches")).unwrap()
}

fn entries(dir: &Path) -> Vec<Entry> {
    batches(dir)
        .iter()
        .flat_map(|(_, bytes)| Batch::parse(bytes).unwrap().entries)
        .map(|text| Entry::parse(&text).unwrap())
        .collect()
}

#[tokio::test]
async fn a_ledger_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    let vkey = log.vkey();
    assert_eq!(log.head().size, 1);
    let receipts = log.append(vec![event(1), event(2)]).await.unwrap();
    assert_eq!(receipts.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2]);
    for receipt in &receipts {
        let (entry, checkpoint) = receipt.verify(log.verifier()).unwrap();
        assert_eq!((entry.event, checkpoint.size), (event(entry.index), 3));
    }
    assert!(log.append(vec![]).await.unwrap().is_empty());
    let before = log.checkpoint();
    drop(log);
    let log = open(dir.path()).await;
    assert_eq!((log.vkey(), log.checkpoint()), (vkey.clone(), before.clone()));
    assert_eq!(log.append_one(event(3)).await.unwrap().index, 3);
    let copy = std::fs::read_to_string(dir.path().join("elsewhere/checkpoint")).unwrap();
    assert_eq!(copy, log.checkpoint());
    let key = VerifierKey::parse(&vkey).unwrap();
    let report = verify(&batches(dir.path()), &key, &[before, copy]);
    assert!(report.holds() && report.size == 4 && report.agreed == 2, "{:?}", report.faults);
}

/// Four logs on one new directory, each with many callers: one consistent ledger, every receipt
/// good, every event in it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_writers_make_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let start = Arc::new(tokio::sync::Barrier::new(4));
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (path, start) = (path.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let log = open(&path).await;
                let appends = (0..25).map(|n| {
                    let log = log.clone();
                    tokio::spawn(async move { log.append_one(event(writer * 100 + n)).await })
                });
                let mut receipts = Vec::new();
                for append in appends.collect::<Vec<_>>() {
                    receipts.push(append.await.unwrap().unwrap());
                }
                (log.vkey(), receipts, log.checkpoint())
            })
        })
        .collect();
    let mut indices = std::collections::BTreeSet::new();
    let mut vkeys = std::collections::BTreeSet::new();
    let mut known = Vec::new();
    for writer in writers {
        let (vkey, receipts, checkpoint) = writer.await.unwrap();
        let key = VerifierKey::parse(&vkey).unwrap();
        for receipt in receipts {
            receipt.verify(&key).unwrap();
            assert!(indices.insert(receipt.index), "two events share entry {}", receipt.index);
            known.push(receipt.checkpoint);
        }
        known.push(checkpoint);
        vkeys.insert(vkey);
    }
    assert_eq!((indices.len(), vkeys.len()), (100, 1));
    let key = VerifierKey::parse(&vkeys.pop_first().unwrap()).unwrap();
    known.push(std::fs::read_to_string(path.join("elsewhere/checkpoint")).unwrap());
    let batches = batches(&path);
    let report = verify(&batches, &key, &known);
    assert!(report.holds(), "{:?}", report.faults);
    assert_eq!(report.size, 101);
    assert!(batches.len() < 101, "nothing was written in groups");
    let counts: std::collections::BTreeSet<_> = entries(&path)
        .into_iter()
        .filter_map(|e| if let Event::Refused { count, .. } = e.event { Some(count) } else { None })
        .collect();
    assert_eq!(counts.len(), 100);
    // The second place is never behind a checkpoint that somebody was given.
    let newest = known.last().map(|note| note.lines().nth(1).unwrap().to_owned());
    assert_eq!(newest.as_deref(), Some("101"));
}

#[tokio::test]
async fn a_log_behind_its_copy_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    for n in 1..=3 {
        log.append_one(event(n)).await.unwrap();
    }
    drop(log);
    let last = dir.path().join("state").join("ledger/batches").join("00000000000000000003");
    let cut = std::fs::read(&last).unwrap();
    std::fs::remove_file(&last).unwrap();
    let refused = try_open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, LogError::Behind { log: 3, copy: 4, .. }), "{refused}");
    // Cut in the middle: the batches behind the hole say so, even without a copy.
    std::fs::write(&last, cut).unwrap();
    std::fs::remove_file(dir.path().join("elsewhere/checkpoint")).unwrap();
    let hole = last.with_file_name("00000000000000000002");
    let taken = std::fs::read(&hole).unwrap();
    std::fs::remove_file(&hole).unwrap();
    let refused = try_open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, LogError::Gap { end: 2, batch: 3 }), "{refused}");
    std::fs::write(&hole, taken).unwrap();
    assert_eq!(open(dir.path()).await.head().size, 4);
}

#[tokio::test]
async fn a_rewritten_log_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    log.append_one(event(1)).await.unwrap();
    drop(log);
    let copy = dir.path().join("elsewhere/checkpoint");
    let note = std::fs::read_to_string(&copy).unwrap();
    // Whoever holds the key writes another history of the same length.
    std::fs::remove_dir_all(dir.path().join("state/ledger")).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let log = open(dir.path()).await;
    log.append_one(event(2)).await.unwrap();
    drop(log);
    std::fs::write(&copy, note).unwrap();
    let refused = try_open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, LogError::Forked { size: 2, .. }), "{refused}");
    std::fs::write(&copy, "nonsense").unwrap();
    assert!(matches!(try_open(dir.path()).await, Err(LogError::CopyForeign { .. })));
    std::fs::remove_file(&copy).unwrap();
    // A changed byte.
    let batch = dir.path().join("state").join("ledger/batches").join("00000000000000000001");
    let text = std::fs::read_to_string(&batch).unwrap();
    std::fs::write(&batch, text.replace("count\\\":2", "count\\\":3")).unwrap();
    let refused = try_open(dir.path()).await.unwrap_err();
    assert!(matches!(&refused, LogError::Broken(fault) if fault.first == 1), "{refused}");
}

#[tokio::test]
async fn a_lost_key_is_not_replaced_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    let key = dir.path().join("state/ledger.key");
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(try_open(dir.path()).await, Err(LogError::KeyMissing { batches: 1, .. })));
    assert!(!key.exists());
    let other = SigningKey::from_seed("tidegate/other", [1; 32]).unwrap();
    keyfile::create(&key, other.to_text().as_bytes()).unwrap();
    assert!(try_open(dir.path()).await.is_err());
}

#[tokio::test]
async fn a_copy_that_cannot_be_written_stops_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    let before = log.head();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::remove_dir_all(&elsewhere).unwrap();
    let refused = log.append_one(event(1)).await.unwrap_err();
    let LogError::Shared(cause) = refused else { panic!("{refused}") };
    assert!(matches!(*cause, LogError::Copy { .. }), "{cause}");
    assert_eq!(log.head(), before, "a checkpoint was shown that is not in its second place");
    std::fs::create_dir(&elsewhere).unwrap();
    let receipt = log.append_one(event(2)).await.unwrap();
    // The entry that was refused is in the log all the same; nothing was released for it.
    assert_eq!((receipt.index, log.head().size), (2, 3));
}

#[tokio::test]
async fn one_callers_bad_event_does_not_fail_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    let long = Event::Refused { lease: None, reason: "x".repeat(70_000), count: 1 };
    let (good, bad, other) =
        tokio::join!(log.append_one(event(1)), log.append_one(long), log.append_one(event(2)));
    assert!(good.is_ok() && other.is_ok() && bad.is_err());
    assert_eq!(log.head().size, 3);
    let again = Event::LedgerOpened { origin: "again".into(), after: None };
    assert!(log.append_one(again).await.is_err());
}

#[tokio::test]
async fn documents_are_erasable_and_the_log_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    let commitment = log.put_document("s3://bucket/Prüfung").await.unwrap();
    let event = Event::SnapshotTaken {
        snapshot: tidegate_ledger::SnapshotId::from_bytes([7; 32]),
        source: commitment,
        files: 1,
        bytes: 2,
        unshown: 0,
    };
    log.append_one(event).await.unwrap();
    let folder = dir.path().join("state").join(DOCUMENTS);
    assert_eq!(log.document(&commitment).await.unwrap().as_deref(), Some("s3://bucket/Prüfung"));
    assert!(read_document(&folder, &commitment).unwrap().is_some());
    let other = log.put_document("other").await.unwrap();
    std::fs::copy(folder.join(other.to_string()), folder.join(commitment.to_string())).unwrap();
    assert!(log.document(&commitment).await.is_err());
    assert!(read_document(&folder, &commitment).is_err());
    log.erase_document(&commitment).await.unwrap();
    assert_eq!(log.document(&commitment).await.unwrap(), None);
    assert_eq!(read_document(&folder, &commitment).unwrap(), None);
    assert!(verify(&batches(dir.path()), log.verifier(), &[log.checkpoint()]).holds());
    let stored = std::fs::read_to_string(
        dir.path().join("state").join("ledger/batches").join("00000000000000000001"),
    );
    assert!(!stored.unwrap().contains("bucket"));
}
