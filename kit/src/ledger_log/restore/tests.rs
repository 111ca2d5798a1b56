use std::path::Path;

use tidegate_ledger::{LeaseId, verify, verify_followed};

use super::*;
use crate::ledger_log::{ledgers, read_batches};

fn config(dir: &Path) -> LedgerConfig {
    LedgerConfig {
        key_file: dir.join("state/ledger.key"),
        origin: None,
        checkpoint_copy: Some(dir.join("elsewhere")),
    }
}

fn store(dir: &Path) -> StateStore {
    StateStore::open(&dir.join("state")).unwrap()
}

async fn open(dir: &Path) -> Result<LedgerLog, LogError> {
    LedgerLog::open(store(dir), config(dir)).await
}

fn event(count: u64) -> Event {
    Event::Refused { lease: Some(LeaseId::from_bytes([1; 16])), reason: "test".into(), count }
}

async fn restore(dir: &Path) -> LedgerLog {
    follow(dir, std::future::ready(())).await.unwrap()
}

async fn follow(dir: &Path, settled: impl Future<Output = ()>) -> Result<LedgerLog, LogError> {
    LedgerLog::follow(store(dir), config(dir), vec![event(100)], settled).await
}

/// What the newest ledger says of the one before.
fn predecessor(dir: &Path) -> Predecessor {
    let newest = ledgers(&dir.join("state/ledger")).unwrap().pop().unwrap();
    let key = std::fs::read_to_string(newest.join("ledger.pub")).unwrap();
    let key = VerifierKey::parse(key.trim()).unwrap();
    let report = verify(&read_batches(&newest.join("batches")).unwrap(), &key, &[] as &[&str]);
    report.after.unwrap()
}

fn batch(dir: &Path, first: u64) -> std::path::PathBuf {
    dir.join(format!("state/ledger/batches/{first:020}"))
}

/// Five entries, of which the last two are lost.
async fn set_back(dir: &Path) -> String {
    let log = open(dir).await.unwrap();
    for n in 1..5 {
        log.append_one(event(n)).await.unwrap();
    }
    for lost in [3, 4] {
        std::fs::remove_file(batch(dir, lost)).unwrap();
    }
    log.vkey()
}

#[tokio::test]
async fn a_new_ledger_names_what_was_found_and_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let old = set_back(dir).await;
    assert!(matches!(open(dir).await, Err(LogError::Behind { log: 3, copy: 5, .. })));
    let log = restore(dir).await;
    let head = log.head();
    assert_eq!(head.size, 2);
    assert_ne!(log.vkey(), old);
    drop(log);
    // It goes on as any other, and the copy is its own.
    let log = open(dir).await.unwrap();
    assert_eq!(log.head(), head);
    log.append_one(event(6)).await.unwrap();

    let folders = ledgers(&dir.join("state/ledger")).unwrap();
    assert_eq!(folders.len(), 2);
    let read = |at: usize| {
        let key = std::fs::read_to_string(folders[at].join("ledger.pub")).unwrap();
        let key = VerifierKey::parse(key.trim()).unwrap();
        (read_batches(&folders[at].join("batches")).unwrap(), key)
    };
    let (batches, key) = read(1);
    let copy = std::fs::read_to_string(dir.join("elsewhere")).unwrap();
    let report = verify(&batches, &key, &[copy]);
    assert!(report.holds() && report.size == 3 && report.agreed == 1, "{:?}", report.faults);
    let after = report.after.unwrap();
    assert_eq!((after.found.size, after.known.as_ref().map(|head| head.size)), (3, Some(5)));
    assert_eq!(after.key.as_deref(), Some(old.as_str()));
    let (batches, key) = read(0);
    assert!(verify_followed(&batches, &key, &[] as &[&str], &after.found).holds());
}

#[tokio::test]
async fn who_was_left_over_writes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let old = open(dir).await.unwrap();
    old.append_one(event(1)).await.unwrap();
    let new = restore(dir).await;
    new.append_one(event(2)).await.unwrap();
    // Its checkpoint can no longer come to the second place, or it looks and finds the new one.
    assert!(old.append_one(event(3)).await.is_err());
    let after = inspect(&store(dir), &config(dir)).await.unwrap();
    assert_eq!((after.found.size, after.known), (3, None), "nothing is lost of the newest");
}

/// A gateway elsewhere that has not noticed yet: what it writes while the restore waits is named.
#[tokio::test]
async fn what_is_written_until_all_have_noticed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let old = open(dir).await.unwrap();
    old.append_one(event(1)).await.unwrap();
    let late = async {
        assert!(dir.join("state/ledger/2/ledger.pub").exists(), "it can be noticed");
        old.append_one(event(2)).await.unwrap();
    };
    let new = follow(dir, late).await.unwrap();
    assert_eq!((predecessor(dir).found.size, predecessor(dir).known), (3, None));
    assert!(old.append_one(event(3)).await.is_err());
    new.append_one(event(4)).await.unwrap();
}

/// Nobody begins anew where a restore broke off, and the next restore names what was there.
#[tokio::test]
async fn a_restore_that_broke_off_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    drop(open(dir).await.unwrap());
    tokio::select! {
        biased;
        _ = follow(dir, std::future::pending()) => unreachable!("it waits for ever"),
        () = async {
            while !dir.join("state/ledger/2/ledger.pub").exists() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    for copy in [true, false] {
        assert!(matches!(open(dir).await, Err(LogError::Unfinished)), "{copy}");
        if copy {
            std::fs::remove_file(dir.join("elsewhere")).unwrap();
        }
    }
    assert_eq!(ledgers(&dir.join("state/ledger")).unwrap().len(), 1, "none to verify yet");
    drop(restore(dir).await);
    assert_eq!(predecessor(dir).found.size, 1);
    assert!(dir.join("state/ledger/3/batches").is_dir());
    assert_eq!(open(dir).await.unwrap().head().size, 2);
}

/// A restore that broke off before the copy, or one on another replica: the mark is of the ledger
/// before, and no further than what the new one names.
#[tokio::test]
async fn a_mark_of_the_ledger_before_is_taken_over_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    set_back(dir).await;
    let mark = std::fs::read_to_string(dir.join("elsewhere")).unwrap();
    drop(restore(dir).await);
    std::fs::write(dir.join("elsewhere"), &mark).unwrap();
    let log = open(dir).await.unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("elsewhere")).unwrap(), log.checkpoint());
    drop(log);
    // One that is further than what was known at the restore is not.
    let other = SigningKey::from_seed(mark.lines().next().unwrap(), [1; 32]).unwrap();
    let further = Checkpoint::sign(9, tidegate_ledger::Digest::from_bytes([2; 32]), &other);
    std::fs::write(dir.join("elsewhere"), further).unwrap();
    assert!(matches!(open(dir).await, Err(LogError::CopyForeign { .. })));
}

#[tokio::test]
async fn a_damaged_and_a_lost_ledger_are_followed_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(matches!(inspect(&store(dir), &config(dir)).await, Err(LogError::NothingToRestore)));
    let log = open(dir).await.unwrap();
    for n in 1..4 {
        log.append_one(event(n)).await.unwrap();
    }
    drop(log);
    let text = std::fs::read_to_string(batch(dir, 2)).unwrap();
    std::fs::write(batch(dir, 2), text.replace("count\\\":2", "count\\\":7")).unwrap();
    assert!(matches!(open(dir).await, Err(LogError::Broken(_))));
    let after = inspect(&store(dir), &config(dir)).await.unwrap();
    assert_eq!((after.found.size, after.known.map(|head| head.size)), (2, Some(4)));

    // All of the state gone, only the second place is left.
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    assert!(matches!(open(dir).await, Err(LogError::Lost { .. })));
    let log = restore(dir).await;
    assert_eq!(log.head().size, 2);
    drop(log);
    assert_eq!(open(dir).await.unwrap().head().size, 2);
}

/// Batches set back to before a restore, keys not: no key signs two histories.
#[tokio::test]
async fn a_second_restore_takes_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    set_back(dir).await;
    let second = restore(dir).await.vkey();
    std::fs::remove_dir_all(dir.join("state/ledger/2")).unwrap();
    assert!(matches!(open(dir).await, Err(LogError::CopyForeign { .. })));
    let third = restore(dir).await;
    assert_ne!(third.vkey(), second);
    assert!(dir.join("state/ledger/3").is_dir());
    let vkey = third.vkey();
    drop(third);
    assert_eq!(open(dir).await.unwrap().vkey(), vkey);
}
