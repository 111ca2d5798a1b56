use rustix::fs::MemfdFlags;
use tidegate_wire::Attributes;

use super::*;

fn memory() -> OwnedFd {
    rustix::fs::memfd_create("journal", MemfdFlags::CLOEXEC).unwrap()
}

fn opened(memory: &OwnedFd) -> io::Result<Journal> {
    Journal::open(memory.try_clone().unwrap())
}

fn made(node: u64, name: &str) -> Record {
    let attributes = Attributes { mode: 0o644, mtime_s: 0, mtime_ns: 0 };
    Record::Made { node, parent: 1, name: name.into(), directory: false, attributes }
}

fn len(memory: &OwnedFd) -> u64 {
    File::from(memory.try_clone().unwrap()).metadata().unwrap().len()
}

#[test]
fn what_was_cut_off_does_not_count_and_is_not_in_the_way() {
    let memory = memory();
    let journal = opened(&memory).unwrap();
    journal.append(&[Record::Begun, made(2, "first")]);
    let whole = (journal.model(), len(&memory));
    journal.append(&[made(3, "a name that is long enough to be taken for frames of its own")]);
    let all = len(&memory);
    for cut in whole.1..all {
        let file = File::from(memory.try_clone().unwrap());
        file.set_len(cut).unwrap();
        let journal = opened(&memory).unwrap();
        assert_eq!((journal.model(), len(&memory)), whole);
        file.set_len(all).unwrap();
    }
    let journal = opened(&memory).unwrap();
    journal.append(&[made(4, "x")]);
    assert_eq!(opened(&memory).unwrap().model(), journal.model());
}

#[test]
fn a_record_that_changed_is_an_error_and_not_the_end() {
    let memory = memory();
    let journal = opened(&memory).unwrap();
    journal.append(&[Record::Begun]);
    let at = len(&memory);
    journal.append(&[made(2, "a")]);
    journal.append(&[made(3, "b")]);
    let file = File::from(memory.try_clone().unwrap());
    file.write_all_at(b"?", at + HEAD as u64 + 5).unwrap();
    assert!(opened(&memory).is_err());
}

#[test]
fn frames_of_any_length_are_read() {
    let memory = memory();
    let journal = opened(&memory).unwrap();
    let name = "n".repeat(70 << 20);
    journal.append(&[Record::Begun, made(2, &name)]);
    journal.append(&[made(3, "b")]);
    assert_eq!(opened(&memory).unwrap().model().nodes.len(), 2);
}

#[test]
fn half_a_beginning_is_none() {
    let memory = memory();
    opened(&memory).unwrap().append(&[made(2, "listed")]);
    let journal = opened(&memory).unwrap();
    assert!(journal.is_empty());
    assert_eq!(journal.model(), Model::default());
    journal.append(&[made(2, "other"), Record::Begun]);
    let journal = opened(&memory).unwrap();
    assert!(!journal.is_empty());
    assert_eq!(journal.model().nodes[&2].name, "other");
}

/// A worker that was killed while it wrote all anew has told what it told before.
#[test]
fn a_new_run_that_was_not_ended_is_not_read() {
    let memory = memory();
    let journal = opened(&memory).unwrap();
    journal.append(&[Record::Begun]);
    for node in 2..300 {
        journal.append(&[made(node, "a"), Record::Dirty { node }]);
    }
    let told = journal.model();
    let mut inner = journal.lock();
    inner.write_anew().unwrap();
    inner.file.set_len(inner.end - 1).unwrap();
    drop(inner);
    assert!(opened(&memory).unwrap().model() == told);
}

#[test]
fn all_is_told_anew_when_the_run_is_long() {
    let memory = memory();
    let journal = opened(&memory).unwrap();
    let (dirty, home) = (
        Record::Dirty { node: 2 },
        HomeRecord { version: "v".repeat(1000), len: 5, receipts: Vec::new() },
    );
    journal.append(&[Record::Begun, made(2, "a"), made(3, "b"), Record::Dirty { node: 3 }]);
    journal.append(&[Record::SetsOut { node: 3 }]);
    for _ in 0..2000 {
        journal
            .append(&[dirty.clone(), Record::Home { node: 2, home: home.clone(), dirty: false }]);
    }
    let begin = journal.lock().begin;
    assert!(begin > BEGIN, "it was written anew");
    assert!(journal.lock().end - begin < COMPACT + 4096);
    assert_eq!(opened(&memory).unwrap().model(), journal.model());
}
