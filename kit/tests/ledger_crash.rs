//! A writer killed at any moment leaves a ledger that holds, and in it every entry for which it
//! was given a receipt.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate_kit::ledger_log::{LedgerConfig, LedgerLog, read_batches};
use tidegate_kit::state::StateStore;
use tidegate_ledger::{Batch, Event, VerifierKey, verify};

/// Where the child process writes; unset in an ordinary run.
const DIRECTORY: &str = "TIDEGATE_TEST_CRASH_DIR";

async fn open(dir: &Path) -> LedgerLog {
    let config = LedgerConfig {
        key_file: dir.join("state/ledger.key"),
        origin: None,
        checkpoint_copy: Some(dir.join("checkpoint")),
    };
    let store = StateStore::open(&dir.join("state")).expect("a private directory is a state");
    LedgerLog::open(store, config).await.expect("a ledger opens whatever died before")
}

/// Appends until it is killed, saying each receipt after it has it.
#[test]
fn child_that_appends() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = open(&dir).await;
        let writers: Vec<_> = (0..4u64)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    for count in 0.. {
                        let event = Event::Refused { lease: None, reason: "test".into(), count };
                        let receipt = log.append_one(event).await.unwrap();
                        let line = format!("receipt {} {}\n", receipt.index, receipt.entry);
                        std::io::stdout().write_all(line.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// Two processes append to one ledger; each is killed after some receipts, five times over.
#[test]
fn killed_writers_lose_no_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let mut receipts = Vec::new();
    for round in 0..5 {
        let children: Vec<_> = (0..2)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "child_that_appends", "--nocapture", "--test-threads=1"])
                    .env(DIRECTORY, dir.path())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let readers: Vec<_> = children
            .into_iter()
            .map(|mut child| {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
                    let receipt = |line: String| {
                        let (index, entry) = line.strip_prefix("receipt ")?.split_once(' ')?;
                        Some((index.parse::<u64>().ok()?, entry.to_owned()))
                    };
                    let mut seen: Vec<_> = lines
                        .by_ref()
                        .map_while(Result::ok)
                        .filter_map(receipt)
                        .take(7 + round)
                        .collect();
                    child.kill().unwrap();
                    // What it said before it died counts too.
                    seen.extend(lines.map_while(Result::ok).filter_map(receipt));
                    child.wait().unwrap();
                    seen
                })
            })
            .collect();
        for reader in readers {
            receipts.extend(reader.join().unwrap());
        }
    }
    assert!(receipts.len() >= 2 * (7 + 8 + 9 + 10 + 11));

    let batches = read_batches(&dir.path().join("state/ledger/batches")).unwrap();
    let entries: Vec<String> =
        batches.iter().flat_map(|(_, bytes)| Batch::parse(bytes).unwrap().entries).collect();
    for (index, entry) in &receipts {
        assert_eq!(entries[usize::try_from(*index).unwrap()], *entry);
    }
    let copy = std::fs::read_to_string(dir.path().join("checkpoint")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vkey = runtime.block_on(open(dir.path())).vkey();
    let report = verify(&batches, &VerifierKey::parse(&vkey).unwrap(), &[copy]);
    assert!(report.holds(), "{:?}", report.faults);
    assert_eq!(report.agreed, 1);
}
