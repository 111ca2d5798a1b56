//! What a lease that does not resume is shown of its home, and what it pays for.

use tidegate_gateway::ResultsRequest;
use tidegate_gateway::source::SourceSpec;
use tidegate_ledger::{Event, ResultsAct};
use tidegate_plan::RESULT_PART_LEN;
use tidegate_wire::{
    Attributes, Change, ChangeRequest, CommitRequest, CopyRequest, ListReply, ListRequest,
    PartReceipt, ProblemKind, ReadRequest, Stored,
};

use crate::bringing::{Bringer, Content, allow, place, wanted};
use crate::worker::Home;

/// Bytes of a whole part.
const PART: u64 = RESULT_PART_LEN as u64;

fn acts(events: &[Event], wanted: ResultsAct) -> usize {
    let is = |event: &&Event| matches!(event, Event::Results { act, .. } if *act == wanted);
    events.iter().filter(is).count()
}

fn has_marks(home: &Home) -> bool {
    let at = place(home);
    let set = rustix::fs::setxattr(&at, "user.tidegate.try", b"x", rustix::fs::XattrFlags::empty());
    set.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_resume_there_is_nothing_but_what_the_lease_brought() {
    let home = Home::start_with(allow).await;
    let before = Bringer::new(&home, wanted(&home)).await;
    let stored = before.store("theirs", 1, b"secret").await;
    let other = Bringer::new(&home, wanted(&home)).await;
    std::fs::write(place(&home).join("placed"), b"by hand").unwrap();
    if !has_marks(&home) {
        return;
    }
    let refused =
        async |seq, change| other.post("change", &ChangeRequest { seq, change }).await.problem();
    for path in ["theirs", "placed"] {
        let path = || path.to_owned();
        let absent = ProblemKind::Absent;
        let same = Change::Rename { from: path(), to: path(), version: None };
        assert_eq!(refused(1, same).await, absent, "it would say the version");
        let away = Change::Rename { from: path(), to: "mine".into(), version: None };
        assert_eq!(refused(2, away).await, absent);
        let attributes = Attributes { mode: 0o777, mtime_s: 1, mtime_ns: 0 };
        let set = Change::SetAttributes { path: path(), attributes };
        assert_eq!(refused(3, set).await, absent);
        other.change(4, Change::Unlink { path: path() }).await;
        assert!(place(&home).join(path()).exists(), "it stays");
    }
    assert_eq!(acts(&home.events().await, ResultsAct::Removed), 0);
    let read = ReadRequest { path: "theirs".into(), version: stored.version, offset: 0, len: 6 };
    assert_eq!(other.post("read", &read).await.problem(), ProblemKind::SourceChanged);
    assert_eq!(before.post("read", &read).await.body.as_ref(), b"secret");
    let resumed = Bringer::new(&home, ResultsRequest { resume: true, ..wanted(&home) }).await;
    assert_eq!(resumed.post("read", &read).await.body.as_ref(), b"secret");
    // What takes its place is the lease's own.
    let mine = other.store("theirs", 5, b"mine").await;
    let read = ReadRequest { version: mine.version, len: 4, ..read };
    assert_eq!(other.post("read", &read).await.body.as_ref(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_for_nothing_is_paid_for_under_another_name() {
    let home = Home::start_with(allow).await;
    let len = RESULT_PART_LEN as u64 + 10;
    let results = ResultsRequest { bytes: Some(2 * len - 1), ..wanted(&home) };
    let bringer = Bringer::new(&home, results).await;
    let content = Content::new(vec![5; RESULT_PART_LEN + 10]);
    let (stored, first) = bringer.bring("a", 1, &content).await;
    let copied = async |upload: &str, version: &str, parts: &[PartReceipt]| {
        let mut copies = Vec::new();
        for receipt in parts {
            let copy = CopyRequest {
                upload: upload.into(),
                path: "a".into(),
                version: version.into(),
                receipt: receipt.clone(),
            };
            copies.push(bringer.posted::<PartReceipt>("copy", &copy).await);
        }
        copies
    };
    let upload = bringer.begin("a", &content).await;
    let again = copied(&upload, &stored.version, &first.parts).await;
    let other = bringer.commit_request(&upload, ("b", 2), &content, again);
    assert_eq!(bringer.post("commit", &other).await.problem(), ProblemKind::OverBudget);
    let same = CommitRequest { path: "a".into(), ..other };
    let stored: Stored = bringer.posted("commit", &same).await;

    // Nor does it help to take the file away meanwhile, whose place it was to take.
    let upload = bringer.begin("a", &content).await;
    let again = copied(&upload, &stored.version, &same.parts).await;
    bringer.change(3, Change::Rename { from: "a".into(), to: "b".into(), version: None }).await;
    let twice = bringer.commit_request(&upload, ("a", 4), &content, again);
    assert_eq!(bringer.post("commit", &twice).await.problem(), ProblemKind::OverBudget);
}

/// What is free to come again is the same under the same name.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_renamed_is_paid_for_again_when_it_comes_again() {
    let home = Home::start_with(allow).await;
    let results = ResultsRequest { bytes: Some(100), ..wanted(&home) };
    let bringer = Bringer::new(&home, results).await;
    let content = Content::new([7; 60]);
    let _stored: Stored = bringer.send_store("a", 1, &content).await.json();
    bringer.change(1, Change::Rename { from: "a".into(), to: "b".into(), version: None }).await;
    let again = bringer.send_store("a", 1, &content).await;
    assert_eq!(again.problem(), ProblemKind::OverBudget);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_paid_for_when_what_came_before_has_another_name() {
    let home = Home::start_with(allow).await;
    let results = ResultsRequest { bytes: Some(PART + 100), ..wanted(&home) };
    let bringer = Bringer::new(&home, results).await;
    let content = Content::new(vec![7; RESULT_PART_LEN]);
    let _stored: Stored = bringer.send_store("a", 1, &content).await.json();
    let again = bringer.hold("store", bringer.store_body("a", 1, &content)).await;
    bringer.change(1, Change::Rename { from: "a".into(), to: "b".into(), version: None }).await;
    assert_eq!(again.finish().await.problem(), ProblemKind::OverBudget);
    assert!(!place(&home).join("a").exists());
}

/// Its answer took so long that it was asked again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_twice_is_paid_for_once() {
    let home = Home::start_with(allow).await;
    let results = ResultsRequest { bytes: Some(3 * PART), ..wanted(&home) };
    let bringer = Bringer::new(&home, results).await;
    let content = Content::new(vec![7; RESULT_PART_LEN]);
    let first = bringer.hold("store", bringer.store_body("a", 1, &content)).await;
    let _stored: Stored = bringer.send_store("a", 1, &content).await.json();
    let stored: Stored = first.finish().await.json();
    assert!(!stored.superseded);
    let upload = bringer.begin("b", &content).await;
    let first = bringer.hold("part", bringer.part_body(&upload, &content, 0)).await;
    bringer.part(&upload, &content, 0).await;
    let _receipt: PartReceipt = first.finish().await.json();
    bringer.store("c", 2, &[8; RESULT_PART_LEN]).await;
    let over = bringer.send_store("d", 3, &Content::new(*b"x")).await;
    assert_eq!(over.problem(), ProblemKind::OverBudget);
}

/// A directory below which results of another lease go keeps its name; one is a file of the budget.
#[tokio::test(flavor = "multi_thread")]
async fn directories_count_and_stay_where_another_lease_brings_its_results() {
    let home = Home::start_with(allow).await;
    let outer = Bringer::new(&home, ResultsRequest { files: Some(2), ..wanted(&home) }).await;
    let make = |path: &str| Change::MakeDirectory { path: path.into(), mode: 0o755 };
    outer.change(1, make("d")).await;
    outer.change(2, make("e")).await;
    let one_more = ChangeRequest { seq: 3, change: make("f") };
    assert_eq!(outer.post("change", &one_more).await.problem(), ProblemKind::OverBudget);
    let inside = SourceSpec::Directory(place(&home).join("d/inner"));
    let inner = Bringer::new(&home, ResultsRequest { home: inside, ..wanted(&home) }).await;
    let (from, to) = (|| "d".to_owned(), "g".to_owned());
    for change in [
        Change::RenameDirectory { from: from(), to },
        Change::RenameDirectory { from: "e".into(), to: "d/inner".into() },
        Change::RemoveDirectory { path: "d/inner".into() },
    ] {
        let refused = outer.post("change", &ChangeRequest { seq: 4, change }).await;
        assert_eq!(refused.problem(), ProblemKind::Occupied);
    }
    inner.store("file", 1, b"safe").await;
    assert_eq!(std::fs::read(place(&home).join("d/inner/file")).unwrap(), b"safe");
    outer.change(5, Change::RenameDirectory { from: "e".into(), to: "g".into() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_paid_for_once_and_names_can_still_be_changed() {
    let home = Home::start_with(allow).await;
    let results = ResultsRequest { bytes: Some(100), files: Some(1), ..wanted(&home) };
    let bringer = Bringer::new(&home, results).await;
    let content = Content::new([7; 60]);
    for _ in 0..3 {
        let stored: Stored = bringer.send_store("a", 1, &content).await.json();
        assert!(!stored.superseded, "its answer was lost");
    }
    let over = bringer.send_store("c", 2, &Content::new(*b"x")).await;
    assert_eq!(over.problem(), ProblemKind::OverBudget);
    bringer.change(3, Change::Rename { from: "a".into(), to: "b".into(), version: None }).await;
    bringer.change(4, Change::Unlink { path: "b".into() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_upload_is_no_other_file() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let content = Content::new(vec![5; RESULT_PART_LEN + 10]);
    let upload = bringer.begin("a", &content).await;
    let mut parts =
        vec![bringer.part(&upload, &content, 0).await, bringer.part(&upload, &content, 1).await];
    let other = Content { bytes: vec![6; RESULT_PART_LEN + 10], ..Content::new(*b"") };
    let before = bringer.part(&upload, &other, 1).await;
    bringer.part(&upload, &content, 1).await;
    let commit = bringer.commit_request(&upload, ("a", 1), &content, parts.clone());
    bringer.posted::<Stored>("commit", &commit).await;
    bringer.posted::<Stored>("commit", &commit).await;
    parts[1] = before;
    let mixed = CommitRequest { parts, ..commit };
    assert_eq!(bringer.post("commit", &mixed).await.problem(), ProblemKind::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_written_down_when_it_is_asked_for_again() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    bringer.store("a", 1, b"x").await;
    // It went, and the entry could not be written.
    std::fs::remove_file(place(&home).join("a")).unwrap();
    bringer.change(2, Change::Unlink { path: "a".into() }).await;
    assert_eq!(acts(&home.events().await, ResultsAct::Removed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_too_deep_is_not_shown_and_stops_no_listing() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, ResultsRequest { resume: true, ..wanted(&home) }).await;
    let deep = place(&home).join("d/".repeat(300));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), b"x").unwrap();
    std::fs::write(place(&home).join("z"), b"x").unwrap();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page: ListReply = bringer.posted("list", &ListRequest { after }).await;
        found.extend(page.found);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.last().unwrap().path, "z");
    assert!(found.iter().all(|found| !found.path.ends_with("file")));
}
