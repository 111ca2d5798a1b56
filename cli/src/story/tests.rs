//! Ledgers made by hand, and their stories word for word.

use std::path::Path;

use tidegate_ledger::{
    Action, Cause, Commitment, Digest, Discarded, Document, Event, LayoutId, Ledger, ListedResult,
    METHOD_OVERWRITE, Observed, Outcome, ResultsAct, ResultsListing, SelectionId, SigningKey,
    SnapshotId, Stated, StatedCounters, StatedFacts, StatedResults, WipeCertificate, batch_name,
};
use tidegate_plan::{InstanceId, LeaseId};

use super::{account, text};
use crate::stored::Stored;

const T: u64 = 1_795_000_000;

/// A ledger directory that grows by one event at a time.
struct Desk {
    dir: tempfile::TempDir,
    ledger: Ledger,
    key: SigningKey,
    worker: ed25519_dalek::SigningKey,
    time: u64,
    documents: u8,
    waited_s: Option<u64>,
    unsent: Option<u64>,
}

impl Desk {
    fn new() -> Self {
        let key = SigningKey::from_seed("tidegate/test", [5; 32]).unwrap();
        let ledger = Ledger::new(key.verifier().clone());
        let dir = tempfile::tempdir().unwrap();
        for folder in ["batches", "documents", "certificates"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let worker = ed25519_dalek::SigningKey::from_bytes(&[4; 32]);
        let mut desk =
            Self { dir, ledger, key, worker, time: T, documents: 0, waited_s: None, unsent: None };
        desk.add(Event::LedgerOpened { origin: "tidegate/test".into(), after: None });
        desk
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn add(&mut self, event: Event) {
        let writer = InstanceId::from_bytes([9; 16]);
        let batch = self.ledger.propose([event], self.time, writer, &self.key).unwrap();
        self.ledger.accept(&batch).unwrap();
        let file = self.path().join("batches").join(batch_name(batch.first));
        std::fs::write(file, batch.to_bytes().unwrap()).unwrap();
        self.time += 60;
    }

    fn document(&mut self, body: &str) -> Commitment {
        self.documents += 1;
        let document = Document::new([self.documents; 32], body);
        let commitment = document.commitment();
        let file = self.path().join("documents").join(commitment.to_string());
        std::fs::write(file, document.to_json().unwrap()).unwrap();
        commitment
    }

    fn erase(&self, commitment: Commitment) {
        std::fs::remove_file(self.path().join("documents").join(commitment.to_string())).unwrap();
    }

    /// A grant; the document of who asked.
    fn grant(&mut self) -> Commitment {
        self.grant_with(None)
    }

    /// A grant with results.
    fn grant_with(&mut self, results: Option<Commitment>) -> Commitment {
        let source = self.document("s3://training/cars");
        let snapshot = SnapshotId::from_bytes([2; 32]);
        let (files, bytes) = (500, 9_000_000_000);
        self.add(Event::SnapshotTaken { snapshot, source, files, bytes, unshown: 0 });
        let subject = self.document("ada, asked for by uid 0, admin socket");
        let selected = Some(self.document(
            r#"{"dataset":"cars","include":["2025/**"],"exclude":["**/*.tmp"],"listed":null,"ranks":[0]}"#,
        ));
        self.add(Event::LeaseGranted {
            lease: lease(),
            snapshot,
            selection: SelectionId::from_bytes([3; 32]),
            layout: LayoutId::from_bytes([4; 32]),
            ranks: 1,
            blocks: 40,
            bytes: 160_000_000,
            files: 42,
            subject,
            deadline: T + 8 * 3600,
            selected,
            key_epoch: Some(2967),
            results,
        });
        subject
    }

    fn attach(&mut self, swap: &str) {
        let facts = self.document(&format!(
            r#"[{{"cache_fs":"ext4","core_dumps_off":true,"core_pattern":"|/bin/false","host":"gpu-7","init_on_free":false,"kernel":"6.12.1","swap":[{swap}],"version":"0.1.0"}},{{"bytes":"","kind":"none"}}]"#,
        ));
        self.add(Event::Attached {
            lease: lease(),
            rank: 0,
            instance: InstanceId::from_bytes([7; 16]),
            identity: Digest::from_bytes(self.worker.verifying_key().to_bytes()),
            facts,
            revision: 3,
        });
    }

    fn release(&mut self, epoch: u32, first_block: u32, end_block: u32) {
        let bytes = u64::from(end_block - first_block) << 22;
        let lease = lease();
        self.add(Event::KeysReleased { lease, rank: 0, epoch, first_block, end_block, bytes });
    }

    fn results(&mut self, act: ResultsAct, files: &[(&str, Option<&str>, u64)]) {
        let listing = ResultsListing {
            v: ResultsListing::VERSION,
            act,
            lease: lease(),
            rank: 0,
            snapshot: SnapshotId::from_bytes([2; 32]),
            selection: SelectionId::from_bytes([3; 32]),
            image: Some("sha256:feed".into()),
            home: "s3://models/cars/".into(),
            files: files
                .iter()
                .map(|(path, from, bytes)| ListedResult {
                    path: (*path).into(),
                    from: from.map(Into::into),
                    bytes: *bytes,
                    blake3: Some(Digest::from_bytes([8; 32])),
                })
                .collect(),
        };
        let body = listing.to_canonical().unwrap();
        let listing = self.document(&body);
        let bytes = files.iter().map(|(.., bytes)| bytes).sum();
        let (lease, files) = (lease(), files.len() as u64);
        self.add(Event::Results { lease, rank: 0, act, files, bytes, listing });
    }

    fn observed(&self, outcome: Outcome) -> Observed {
        Observed {
            outcome,
            attached_at: Some(T + 180),
            released: vec![(0, 20)],
            releases: 2,
            released_bytes: 20 << 22,
            sent_bytes: Some(84_000_000),
            last_release_at: Some(T + 300),
            last_seen: Some(self.time),
            closed_at: self.time,
            lease_key_destroyed_at: Some(self.time),
            wrapped_key_absent: Some(true),
            epoch_key_destroyed: Some(false),
            waited_s: self.waited_s,
            results_unsent_bytes: self.unsent,
        }
    }

    fn stated(&self) -> Stated {
        Stated {
            v: Stated::VERSION,
            lease: lease(),
            rank: 0,
            instance: InstanceId::from_bytes([7; 16]),
            time: self.time,
            keys_destroyed_at: self.time - 2,
            unmounted: true,
            cache_bytes: 32 << 20,
            overwritten_bytes: 32 << 20,
            read_back_bytes: 32 << 20,
            mismatched_bytes: 0,
            discarded: Discarded::Done,
            unlinked: true,
            method: METHOD_OVERWRITE.into(),
            page_cache_bytes_freed_without_overwrite: 70_000,
            counters: StatedCounters::default(),
            facts: StatedFacts { core_pattern: "|/bin/false".into(), ..StatedFacts::default() },
            results: None,
        }
    }

    fn certify(&mut self, outcome: Outcome, stated: Option<Stated>) {
        use ed25519_dalek::Signer as _;
        let sign = |stated: &Stated| {
            hex::encode(self.worker.sign(stated.to_canonical().unwrap().as_bytes()).to_bytes())
        };
        let made = WipeCertificate {
            version: WipeCertificate::VERSION,
            lease: lease(),
            rank: 0,
            identity: Some(Digest::from_bytes(self.worker.verifying_key().to_bytes())),
            observed: self.observed(outcome),
            stated_signature: stated.as_ref().map(sign),
            stated,
        };
        made.check().unwrap();
        let certificate = made.digest().unwrap();
        let file = self.path().join("certificates").join(certificate.to_string());
        std::fs::write(file, made.to_canonical().unwrap()).unwrap();
        let (lease, rank) = (lease(), 0);
        self.add(match outcome {
            Outcome::Wiped => Event::Wiped { lease, rank, certificate },
            Outcome::Withdrawn => Event::Withdrawn { lease, rank, certificate },
        });
        self.add(Event::LeaseClosed {
            lease,
            outcome,
            cause: Some(match outcome {
                Outcome::Wiped => Cause::Drained,
                Outcome::Withdrawn => Cause::Vanished,
            }),
            released_blocks: 20,
            released_bytes: 20 << 22,
            sent_bytes: Some(84_000_000),
            last_release_at: Some(T + 300),
            key_destroyed_at: Some(self.time),
            absence_confirmed: true,
        });
    }

    fn story(&self) -> String {
        let stored = Stored::read(self.path().to_owned()).unwrap();
        text::of(&account::of(&stored, lease()).unwrap().unwrap())
    }
}

fn lease() -> LeaseId {
    LeaseId::from_bytes([1; 16])
}

/// Compares with a file beside this one, short ids aside; `TIDEGATE_BLESS=1` writes it anew.
fn assert_golden(name: &str, story: &str) {
    let is_id = |word: &&str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let ids: Vec<_> = story.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).collect();
    let story = &ids.iter().fold(story.to_owned(), |story, id| story.replace(id, "xxxxxxxxxxxx"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/story/golden").join(name);
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, story).unwrap();
    }
    let want = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(*story == want, "{name} reads otherwise now:\n{story}");
}

#[test]
fn wiped_with_its_period_over() {
    let mut desk = Desk::new();
    desk.grant();
    desk.attach("");
    desk.release(1, 0, 10);
    desk.release(2, 10, 20);
    desk.add(Event::Refused { lease: Some(lease()), reason: "token-bound".into(), count: 1 });
    let subject = desk.document("uid 0, admin socket");
    desk.add(Event::Admin { action: Action::Drain, lease: Some(lease()), subject });
    desk.certify(Outcome::Wiped, Some(desk.stated()));
    desk.time += 7 * 24 * 3600;
    desk.add(Event::EpochDestroyed { epoch: 2966 });
    desk.add(Event::EpochDestroyed { epoch: 2967 });
    assert_golden("wiped.txt", &desk.story());
}

#[test]
fn withdrawn_and_asked_for_by_somebody_who_was_erased() {
    let mut desk = Desk::new();
    let subject = desk.grant();
    desk.attach("\"/dev/sda2\"");
    desk.release(1, 0, 20);
    desk.certify(Outcome::Withdrawn, None);
    desk.erase(subject);
    assert_golden("withdrawn.txt", &desk.story());
}

/// The one that lost its rank is told apart from the one that has it.
#[test]
fn an_earlier_worker_that_stated_its_wipe() {
    let mut desk = Desk::new();
    desk.grant();
    desk.attach("");
    let newer = ed25519_dalek::SigningKey::from_bytes(&[6; 32]);
    let older = std::mem::replace(&mut desk.worker, newer.clone());
    desk.attach("");
    desk.worker = older;
    desk.certify(Outcome::Wiped, Some(desk.stated()));
    let words = |desk: &Desk| desk.story().split_whitespace().collect::<Vec<_>>().join(" ");
    let story = words(&desk);
    for said in [
        "An earlier worker of share 0 stated, signed,",
        "Share 0, earlier worker (key ca93ac170518",
        "There is no certificate of share 0 yet",
    ] {
        assert!(story.contains(said), "{said} is not in:\n{story}");
    }
    assert!(!story.contains("its end was not seen"), "{story}");
    desk.worker = newer;
    desk.certify(Outcome::Wiped, Some(desk.stated()));
    let story = words(&desk);
    assert!(story.contains("The worker of share 0 stated, signed,"), "{story}");
    assert!(!story.contains("There is no certificate"), "{story}");
}

#[test]
fn a_worker_that_was_waited_for_in_vain() {
    let mut desk = Desk::new();
    desk.grant();
    desk.attach("");
    desk.release(1, 0, 20);
    desk.waited_s = Some(21_600);
    desk.unsent = Some(7_000_000);
    desk.certify(Outcome::Withdrawn, None);
    let story = desk.story().split_whitespace().collect::<Vec<_>>().join(" ");
    let words =
        "never stated a wipe: the gateway waited for 21600 seconds after the key's destruction";
    assert!(story.contains(words), "{story}");
    let words = "(7000000 bytes) of its results were not at home";
    assert!(story.contains(words), "{story}");
}

#[test]
fn open_leases_claim_nothing() {
    let mut desk = Desk::new();
    desk.grant();
    desk.attach("");
    desk.release(1, 0, 10);
    let story = desk.story();
    assert!(story.contains("The lease is still open: nothing is gone yet."), "{story}");
    assert!(story.contains("- nothing"), "{story}");
    let stored = Stored::read(desk.path().to_owned()).unwrap();
    assert!(account::of(&stored, LeaseId::from_bytes([8; 16])).unwrap().is_none());
}

/// An incomplete wipe, on a node with everything against it: each is said.
#[test]
fn what_a_wipe_leaves_open_is_said() {
    let mut desk = Desk::new();
    desk.grant();
    desk.attach("\"/dev/sda2\"");
    desk.release(1, 0, 20);
    let mut stated = desk.stated();
    stated.read_back_bytes = 0;
    stated.discarded = Discarded::NotDone("not supported".into());
    stated.facts.swap = vec!["/dev/sda2".into()];
    stated.facts.core_pattern = "core".into();
    desk.certify(Outcome::Withdrawn, Some(stated));
    let story = desk.story().split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "33554432 bytes of the cache were not read back",
        "swaps to /dev/sda2",
        "keeps images of crashed programs (core)",
        "not supported",
        "68.4 KiB (70000 bytes) in the kernel's file cache",
    ] {
        assert!(story.contains(words), "{words} is not in:\n{story}");
    }
}

/// Results that came home in several entries are one step; what was lost is named.
#[test]
fn what_came_home_and_what_was_lost_is_told() {
    let mut desk = Desk::new();
    let granted = desk.document(
        r#"{"bytes":1048576,"files":9,"home":"s3://models/cars/","image":"sha256:feed","resume":true}"#,
    );
    desk.grant_with(Some(granted));
    desk.attach("");
    desk.release(1, 0, 20);
    desk.results(ResultsAct::Stored, &[("tmp", None, 5 << 20), ("log", None, 3)]);
    desk.results(ResultsAct::Stored, &[("log", None, 9)]);
    desk.results(ResultsAct::Renamed, &[("best.pt", Some("tmp"), 5 << 20)]);
    let mut stated = desk.stated();
    stated.results = Some(StatedResults {
        stored_files: 3,
        stored_bytes: (5 << 20) + 12,
        lost_files: 1,
        lost: vec!["late/ü.pt".into()],
    });
    desk.results(ResultsAct::Lost, &[("late/ü.pt", None, 77)]);
    desk.certify(Outcome::Wiped, Some(stated));
    let story = desk.story().split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "Share 0: 3 results with 5.0 MiB (5242892 bytes) came home (2 entries, the last at",
        "Share 0: 1 result took other names at home.",
        "What came home It could go to s3://models/cars/, at most 1.0 MiB (1048576 bytes) in 9 files; what lay there was \
         shown to the job; image sha256:feed.",
        "3 results with 5.0 MiB (5242892 bytes) came home.",
        "1 result LOST, written and not brought home: late/ü.pt.",
        "Share 0, of its results: 3 files with 5.0 MiB (5242892 bytes) brought home; 1 file lost: late/ü.pt.",
    ] {
        assert!(story.contains(words), "{words} is not in:\n{story}");
    }
}
