use tidegate_plan::{InstanceId, LeaseId};

use super::*;
use crate::{Batch, Entry, Event, SigningKey, batch_name, leaf_hash, verify_receipt};

type Files = Vec<(String, Vec<u8>)>;

fn key() -> SigningKey {
    SigningKey::from_seed("tidegate/test", [5; 32]).unwrap()
}

fn released(epoch: u32) -> Event {
    let lease = LeaseId::from_bytes([1; 16]);
    Event::KeysReleased { lease, rank: 0, epoch, first_block: 0, end_block: 8, bytes: 1 << 20 }
}

/// A log of 12 entries in batches of 1, 1, 3, 1, 4, 2: boundaries 0 1 2 5 6 10 12.
fn log() -> (Files, Vec<String>) {
    log_with(|epoch| epoch)
}

fn log_with(epoch: impl Fn(u32) -> u32) -> (Files, Vec<String>) {
    let mut ledger = Ledger::new(key().verifier().clone());
    let mut files = Vec::new();
    let mut checkpoints = Vec::new();
    let writer = InstanceId::from_bytes([9; 16]);
    for len in [1, 1, 3, 1, 4, 2] {
        let first = ledger.size();
        let events: Vec<_> = (first..first + len)
            .map(|i| match i {
                0 => Event::LedgerOpened { origin: "tidegate/test".into(), after: None },
                _ => released(epoch(u32::try_from(i).unwrap())),
            })
            .collect();
        let batch = ledger.propose(events, 1000 + first, writer, &key()).unwrap();
        ledger.accept(&batch).unwrap();
        files.push((batch_name(first), batch.to_bytes().unwrap()));
        checkpoints.push(batch.checkpoint);
    }
    (files, checkpoints)
}

/// Changes a stored batch as an attacker who cannot sign would.
fn edit(files: &mut Files, batch: usize, change: impl FnOnce(&mut Batch)) {
    let mut parsed = Batch::parse(&files[batch].1).unwrap();
    change(&mut parsed);
    files[batch] = (files[batch].0.clone(), parsed.to_bytes().unwrap());
}

fn rehash(batch: &mut Batch) {
    batch.leaves = batch.entries.iter().map(|e| leaf_hash(e.as_bytes())).collect();
}

fn reindex(batch: &mut Batch, first: u64) {
    batch.first = first;
    for (index, text) in (first..).zip(&mut batch.entries) {
        let mut entry = Entry::parse(text).unwrap();
        entry.index = index;
        *text = entry.to_canonical().unwrap();
    }
    rehash(batch);
}

#[test]
fn an_untouched_log_holds() {
    let (files, checkpoints) = log();
    let report = verify(&files, key().verifier(), &checkpoints);
    assert!(report.holds(), "{:?}", report.faults);
    assert_eq!((report.size, report.agreed), (12, 6));
    assert_eq!(report.checkpoint.as_ref(), checkpoints.last());
    let empty = verify(&Files::new(), key().verifier(), &[] as &[&str]);
    assert!(empty.holds() && empty.size == 0 && empty.checkpoint.is_none());
}

/// Each tampering, the range in which the first bad entry is named, and words of the reason.
#[test]
fn every_tampering_is_named_with_its_first_bad_entry() {
    type Tamper = fn(&mut Files);
    let table: &[(&str, Tamper, (u64, u64), &str)] = &[
        (
            "a changed byte in an entry",
            |f| edit(f, 2, |b| b.entries[1] = b.entries[1].replace("1048576", "1048577")),
            (3, 4),
            "recorded leaf hash",
        ),
        (
            "a changed byte and its leaf hash rewritten",
            |f| {
                edit(f, 2, |b| {
                    b.entries[1] = b.entries[1].replace("1048576", "1048577");
                    rehash(b);
                })
            },
            (2, 5),
            "signed root does not fit",
        ),
        (
            "the same in a batch of one entry",
            |f| {
                edit(f, 3, |b| {
                    b.entries[0] = b.entries[0].replace("1048576", "1048577");
                    rehash(b);
                })
            },
            (5, 6),
            "signed root does not fit",
        ),
        (
            "a changed byte in a leaf hash",
            |f| edit(f, 4, |b| b.leaves[2] = Digest::from_bytes([0; 32])),
            (8, 9),
            "recorded leaf hash",
        ),
        (
            "a changed byte between the fields",
            |f| {
                let at = f[4].1.len() - 1;
                f[4].1[at] = b']';
            },
            (6, 7),
            "cannot be read",
        ),
        ("white space added", |f| f[4].1.insert(1, b' '), (6, 7), "canonical form"),
        (
            "a dropped entry",
            |f| {
                edit(f, 4, |b| {
                    b.entries.remove(1);
                    b.leaves.remove(1);
                })
            },
            (7, 8),
            "it is entry 8",
        ),
        (
            "a dropped entry, those behind it renumbered and rehashed",
            |f| {
                edit(f, 4, |b| {
                    b.entries.remove(1);
                    reindex(b, 6);
                })
            },
            (6, 9),
            "for 10 entries, the batch ends at 9",
        ),
        (
            "the last entry of a batch dropped",
            |f| {
                edit(f, 4, |b| {
                    b.entries.pop();
                    b.leaves.pop();
                })
            },
            (6, 9),
            "for 10 entries, the batch ends at 9",
        ),
        ("a dropped batch", |f| drop(f.remove(2)), (2, 3), "it is entry 5"),
        (
            "a dropped batch, the next one moved into its place",
            |f| {
                let (name, _) = f.remove(2);
                edit(f, 2, |b| reindex(b, 2));
                f[2].0 = name;
            },
            (2, 3),
            "for 6 entries, the batch ends at 3",
        ),
        (
            "two swapped entries",
            |f| {
                edit(f, 4, |b| {
                    b.entries.swap(1, 3);
                    b.leaves.swap(1, 3);
                })
            },
            (7, 8),
            "it is entry 9",
        ),
        (
            "two swapped entries, renumbered and rehashed",
            |f| {
                edit(f, 4, |b| {
                    b.entries.swap(1, 3);
                    reindex(b, 6);
                })
            },
            (6, 10),
            "signed root does not fit",
        ),
        (
            "two swapped entries of different batches",
            |f| {
                let mut given = Batch::parse(&f[1].1).unwrap();
                let mut other = Batch::parse(&f[3].1).unwrap();
                std::mem::swap(&mut given.entries[0], &mut other.entries[0]);
                rehash(&mut given);
                rehash(&mut other);
                f[1].1 = given.to_bytes().unwrap();
                f[3].1 = other.to_bytes().unwrap();
            },
            (1, 2),
            "it is entry 5",
        ),
        (
            "two swapped batches",
            |f| {
                let name = f[1].0.clone();
                f[1].0 = std::mem::replace(&mut f[3].0, name);
            },
            (1, 2),
            "it is entry 5",
        ),
        ("a cut tail", |f| f.truncate(4), (6, 6), "a checkpoint that was given out says"),
        (
            "a checkpoint from an earlier batch",
            |f| {
                let early = Batch::parse(&f[1].1).unwrap().checkpoint;
                edit(f, 2, |b| b.checkpoint = early);
            },
            (2, 5),
            "for 2 entries, the batch ends at 5",
        ),
        (
            "a checkpoint signed by another key",
            |f| {
                let other = SigningKey::from_seed("tidegate/test", [6; 32]).unwrap();
                edit(f, 2, |b| {
                    let root = Digest::from_bytes([1; 32]);
                    b.checkpoint = Checkpoint::sign(5, root, &other);
                })
            },
            (2, 5),
            "no key known here",
        ),
        (
            "an entry added at the end",
            |f| {
                edit(f, 5, |b| {
                    let mut entry = Entry::parse(&b.entries[1]).unwrap();
                    entry.index = 12;
                    b.entries.push(entry.to_canonical().unwrap());
                    rehash(b);
                })
            },
            (10, 13),
            "for 12 entries, the batch ends at 13",
        ),
        (
            "a second opening",
            |f| {
                edit(f, 1, |b| {
                    let mut entry = Entry::parse(&b.entries[0]).unwrap();
                    entry.event =
                        Event::LedgerOpened { origin: "tidegate/test".into(), after: None };
                    b.entries[0] = entry.to_canonical().unwrap();
                    rehash(b);
                })
            },
            (1, 2),
            "opens twice",
        ),
        (
            "an empty batch",
            |f| {
                edit(f, 1, |b| {
                    b.entries.clear();
                    b.leaves.clear();
                })
            },
            (1, 2),
            "no entries",
        ),
        ("not a batch", |f| f[0].1 = b"{}".to_vec(), (0, 1), "cannot be read"),
        ("not text", |f| f[3].1[0] = 0xff, (5, 6), "cannot be read"),
    ];
    let (_, checkpoints) = log();
    for (what, tamper, (first, end), words) in table {
        let (mut files, _) = log();
        tamper(&mut files);
        let report = verify(&files, key().verifier(), &checkpoints);
        let fault = report.faults.first().unwrap_or_else(|| panic!("{what}: not seen"));
        assert_eq!((fault.first, fault.end), (*first, *end), "{what}: {fault}");
        assert!(fault.to_string().contains(words), "{what}: {fault}");
        assert!(report.size <= *first, "{what}");
    }
}

#[test]
fn a_cut_tail_needs_a_known_checkpoint_to_be_seen() {
    let (mut files, checkpoints) = log();
    files.truncate(4);
    assert!(verify(&files, key().verifier(), &checkpoints[..4]).holds());
    let report = verify(&files, key().verifier(), &checkpoints[5..]);
    assert_eq!(report.faults[0].first, 6);
    assert!(matches!(report.faults[0].why, Why::Cut { known: 12 }));
}

/// Two histories, both signed by the ledger's own key.
#[test]
fn a_fork_is_seen_and_placed_between_known_checkpoints() {
    let (ours, _) = log();
    let (_, theirs) = log_with(|epoch| if epoch == 7 { 700 } else { epoch });
    // Theirs agree up to size 6 and differ from 10 on.
    let report = verify(&ours, key().verifier(), &theirs);
    assert_eq!((report.size, report.agreed), (12, 4));
    let places: Vec<_> = report.faults.iter().map(|f| (f.first, f.end)).collect();
    assert_eq!(places, [(6, 10), (6, 12)]);
    assert!(report.faults.iter().all(|f| matches!(f.why, Why::Fork { .. })));
    // With the newest alone nothing narrower than the whole log can be said.
    let report = verify(&ours, key().verifier(), &theirs[5..]);
    assert_eq!((report.faults[0].first, report.faults[0].end), (0, 12));
}

#[test]
fn a_known_checkpoint_of_another_ledger_is_said_to_be_no_use() {
    let (files, _) = log();
    let other = SigningKey::from_seed("tidegate/other", [6; 32]).unwrap();
    let strange = Checkpoint::sign(3, Digest::from_bytes([0; 32]), &other);
    for note in [strange.as_str(), "nonsense"] {
        let report = verify(&files, key().verifier(), &[note]);
        assert!(!report.holds() && report.size == 12);
        assert!(matches!(report.faults[0].why, Why::Known(_)));
    }
}

#[test]
fn times_never_run_backwards() {
    let (files, _) = log();
    let mut ledger = Ledger::replay(files, key().verifier()).unwrap();
    assert_eq!(ledger.time(), 1010);
    let writer = InstanceId::from_bytes([9; 16]);
    let batch = ledger.propose([released(1)], 5, writer, &key()).unwrap();
    assert_eq!(Entry::parse(&batch.entries[0]).unwrap().time, 1010);
    ledger.accept(&batch).unwrap();
    // One that was signed all the same is refused.
    let mut early = ledger.propose([released(1)], 5, writer, &key()).unwrap();
    early.entries[0] = early.entries[0].replace("\"time\":1010", "\"time\":1009");
    rehash(&mut early);
    early.checkpoint = Checkpoint::sign(14, ledger.tree().root_with(&early.leaves), &key());
    assert!(matches!(ledger.accept(&early).unwrap_err().why, Why::Time));
}

#[test]
fn a_rotated_key_signs_what_follows_and_old_checkpoints_still_count() {
    let (mut files, mut checkpoints) = log();
    let mut ledger = Ledger::replay(files.clone(), key().verifier()).unwrap();
    let next = SigningKey::from_seed("tidegate/test", [7; 32]).unwrap();
    let writer = InstanceId::from_bytes([9; 16]);
    let mut append = |ledger: &mut Ledger, event, key: &SigningKey| {
        let batch = ledger.propose([event], 2000, writer, key).unwrap();
        ledger.accept(&batch).unwrap();
        files.push((batch_name(batch.first), batch.to_bytes().unwrap()));
        checkpoints.push(batch.checkpoint);
    };
    append(&mut ledger, Event::KeyRotated { key: next.vkey() }, &key());
    assert!(ledger.propose([released(1)], 2000, writer, &key()).is_err());
    append(&mut ledger, released(1), &next);
    let report = verify(&files, key().verifier(), &checkpoints);
    assert!(report.holds(), "{:?}", report.faults);
    assert_eq!((report.size, report.agreed), (14, 8));
    // Back to a retired key, to a key of another name, or with entries behind it: refused.
    let other = SigningKey::from_seed("tidegate/other", [8; 32]).unwrap();
    for vkey in [key().vkey(), other.vkey(), "nonsense".to_owned()] {
        assert!(ledger.propose([Event::KeyRotated { key: vkey }], 2000, writer, &next).is_err());
    }
    let third = SigningKey::from_seed("tidegate/test", [8; 32]).unwrap();
    let events = [Event::KeyRotated { key: third.vkey() }, released(1)];
    assert!(ledger.propose(events, 2000, writer, &next).is_err());
}

#[test]
fn receipts_prove_their_entry_and_nothing_else() {
    let (files, _) = log();
    let ledger = Ledger::replay(files.clone(), key().verifier()).unwrap();
    let texts: Vec<String> =
        files.iter().flat_map(|(_, b)| Batch::parse(b).unwrap().entries).collect();
    for (index, text) in (0..).zip(&texts) {
        let receipt = ledger.receipt(index, text.clone()).unwrap();
        let (entry, checkpoint) = receipt.verify(key().verifier()).unwrap();
        assert_eq!((entry.index, checkpoint.size), (index, 12));
        let other = &texts[(usize::try_from(index).unwrap() + 1) % texts.len()];
        let note = &receipt.checkpoint;
        let refused = |entry: &str, index, proof: &[Digest], note: &str| {
            assert!(verify_receipt(key().verifier(), entry, index, proof, note).is_err());
        };
        refused(other, index, &receipt.proof, note);
        refused(text, index + 1, &receipt.proof, note);
        refused(text, index, &receipt.proof[1..], note);
        refused(text, index, &vec![receipt.proof[0]; 65], note);
        refused(text, index, &receipt.proof, &note.replace("12", "13"));
        let short: Vec<Vec<u8>> = receipt.proof.iter().map(|d| d.as_ref()[1..].to_vec()).collect();
        assert!(verify_receipt(key().verifier(), text, index, &short, note).is_err());
    }
    assert!(ledger.receipt(0, texts[1].clone()).is_none());
    assert!(ledger.receipt(12, texts[1].clone()).is_none());
}

/// A ledger that was followed is judged up to the head at which the next one took over.
#[test]
fn a_followed_log_must_reach_the_head_that_was_found() {
    let (mut files, checkpoints) = log();
    let found = |at: usize| Checkpoint::open(&checkpoints[at], key().verifier()).unwrap();
    let judge = |files: &Files, found: &Checkpoint| {
        verify_followed(files, key().verifier(), &checkpoints[..2], found)
    };
    let report = judge(&files, &found(5));
    assert!(report.holds() && report.beyond == 0 && report.agreed == 2, "{:?}", report.faults);
    let report = judge(&files, &found(3));
    assert!(report.holds() && report.size == 6 && report.beyond == 2, "{:?}", report.faults);
    // What was broken then is broken now, and is known to be.
    files[4].1.truncate(9);
    assert!(judge(&files, &found(3)).holds() && !judge(&files, &found(5)).holds());
    // What was lost since is a fault.
    files.truncate(3);
    let report = judge(&files, &found(3));
    assert!(matches!(report.faults[0].why, Why::Cut { known: 6 }), "{:?}", report.faults);
    let rewritten = Checkpoint { root: Digest::from_bytes([1; 32]), ..found(2) };
    assert!(matches!(judge(&files, &rewritten).faults[0].why, Why::Fork { known: 5 }));
}

#[test]
fn a_log_says_which_one_it_follows() {
    let found = Ledger::new(key().verifier().clone()).head();
    let predecessor = Predecessor { found, key: Some(key().verifier().to_string()), known: None };
    let new = SigningKey::from_seed("tidegate/new", [8; 32]).unwrap();
    let mut ledger = Ledger::new(new.verifier().clone());
    let after = Some(Box::new(predecessor.clone()));
    let opened = Event::LedgerOpened { origin: "tidegate/new".into(), after };
    let writer = InstanceId::from_bytes([9; 16]);
    let batch = ledger.propose([opened, released(1)], 1, writer, &new).unwrap();
    ledger.accept(&batch).unwrap();
    assert_eq!(ledger.after(), Some(&predecessor));
    let files = vec![(batch_name(0), batch.to_bytes().unwrap())];
    let report = verify(&files, new.verifier(), &[ledger.checkpoint().unwrap()]);
    assert!(report.holds() && report.after == Some(predecessor), "{:?}", report.faults);
}

#[test]
fn what_cannot_be_proposed() {
    let ledger = Ledger::new(key().verifier().clone());
    let writer = InstanceId::from_bytes([9; 16]);
    let opened = || Event::LedgerOpened { origin: "tidegate/test".into(), after: None };
    assert!(ledger.propose([], 1, writer, &key()).is_err());
    assert!(ledger.propose([released(1)], 1, writer, &key()).is_err());
    assert!(ledger.propose([opened(), opened()], 1, writer, &key()).is_err());
    let elsewhere = Event::LedgerOpened { origin: "tidegate/elsewhere".into(), after: None };
    assert!(ledger.propose([elsewhere], 1, writer, &key()).is_err());
    let long = Event::Refused { lease: None, reason: "x".repeat(70_000), count: 1 };
    assert!(ledger.propose([opened(), long], 1, writer, &key()).is_err());
    let other = SigningKey::from_seed("tidegate/test", [6; 32]).unwrap();
    assert!(ledger.propose([opened()], 1, writer, &other).is_err());
    assert!(ledger.propose([opened(), released(1)], 1, writer, &key()).is_ok());
}

mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any single changed byte of any stored file is seen, at or after no good entry is lost.
        #[test]
        fn every_changed_byte_is_seen(file in 0usize..6, at in any::<usize>(), flip in 1u8..=255) {
            let (mut files, checkpoints) = log();
            let at = at % files[file].1.len();
            files[file].1[at] ^= flip;
            let first = Batch::parse(&log().0[file].1).unwrap().first;
            let report = verify(&files, key().verifier(), &checkpoints);
            prop_assert!(!report.holds());
            prop_assert_eq!(report.size, first);
            let fault = &report.faults[0];
            prop_assert!(first <= fault.first && fault.first < first + 4);
        }

        #[test]
        fn any_bytes_are_a_fault_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let files = vec![(batch_name(0), bytes)];
            let report = verify(&files, key().verifier(), &[] as &[&str]);
            prop_assert!(!report.holds());
        }
    }
}
