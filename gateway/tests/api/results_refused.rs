//! What of results is refused, and that nothing of it stays.

use tidegate_gateway::source::SourceSpec;
use tidegate_gateway::{GrantError, ResultsRequest};
use tidegate_ledger::Event;
use tidegate_plan::{ContentId, RESULT_PART_LEN};
use tidegate_wire::{
    AbandonRequest, Change, ChangeRequest, CommitRequest, ListRequest, PartRequest, ProblemKind,
    ReadRequest, StoreRequest, frame_head,
};

use crate::bringing::{Bringer, Content, allow, place, request, wanted};
use crate::worker::{Home, Worker};

const MALFORMED: ProblemKind = ProblemKind::Malformed;

/// Names at the root of the home, those of leases apart.
fn names(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(place(home)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with(".tidegate-")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_sealed_are_not_stored() {
    let home = Home::start_with(allow).await;
    let wanted = ResultsRequest { bytes: Some(10_000), files: Some(2), ..wanted(&home) };
    let bringer = Bringer::new(&home, wanted).await;
    let content = Content::new(vec![3; 5000]);
    let head = bringer.store_request("a", 1, &content);
    let framed = |head: &StoreRequest| frame_head(head).unwrap();
    let sealed = bringer.sealed(&content, 0);
    let mut changed = sealed.clone();
    changed[3000] ^= 1;
    let other = ContentId::from_bytes([9; 32]);
    let other_key = bringer.sealed_key(&Content::new(*b"x")).into();
    for (why, body) in [
        ("cut", [framed(&head), sealed[..sealed.len() - 1].to_vec()].concat()),
        ("no block", framed(&head)),
        ("changed", [framed(&head), changed].concat()),
        ("more", [framed(&head), sealed.clone(), vec![0]].concat()),
        ("longer", [framed(&StoreRequest { len: 5001, ..head.clone() }), sealed.clone()].concat()),
        ("shorter", [framed(&StoreRequest { len: 4999, ..head.clone() }), sealed.clone()].concat()),
        (
            "content",
            [framed(&StoreRequest { content: other, ..head.clone() }), sealed.clone()].concat(),
        ),
        (
            "key",
            [framed(&StoreRequest { key: other_key, ..head.clone() }), sealed.clone()].concat(),
        ),
        ("no head", Vec::new()),
        ("no JSON", [1_u32.to_be_bytes().to_vec(), b"{".to_vec()].concat()),
        ("long", framed(&StoreRequest { len: RESULT_PART_LEN as u64 + 1, ..head.clone() })),
    ] {
        assert_eq!(bringer.ask("store", body).await.problem(), MALFORMED, "{why}");
    }
    let long_head = bringer.ask("store", u32::MAX.to_be_bytes().to_vec()).await;
    assert_eq!(long_head.problem(), ProblemKind::TooLarge);
    assert!(names(&home).is_empty());
    // What was refused was not counted.
    for seq in [1, 2] {
        bringer.store("a", seq, &content.bytes).await;
    }
    let events = home.events().await;
    let stored = events.iter().filter(|event| matches!(event, Event::Results { .. }));
    assert_eq!(stored.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_committed_as_its_receipts_say_or_not_at_all() {
    let home = Home::start_with(allow).await;
    let (one, other) =
        (Bringer::new(&home, wanted(&home)).await, Bringer::new(&home, wanted(&home)).await);
    let content = Content::new(vec![5; RESULT_PART_LEN + 10]);
    let upload = one.begin("a", &content).await;
    let parts = [one.part(&upload, &content, 0).await, one.part(&upload, &content, 1).await];
    let again = one.part(&upload, &content, 1).await;
    assert_eq!((&again.hash, again.len), (&parts[1].hash, 10));
    let commit = one.commit_request(&upload, ("a", 1), &content, parts.to_vec());
    let with = |change: fn(&mut CommitRequest)| {
        let mut commit = commit.clone();
        change(&mut commit);
        commit
    };
    for (why, commit) in [
        ("a part is missing", with(|c| drop(c.parts.pop()))),
        ("another length", with(|c| c.len += 1)),
        ("other order", with(|c| c.parts.reverse())),
        ("one twice", with(|c| c.parts[1] = c.parts[0].clone())),
        ("another hash", with(|c| c.parts[1].hash = vec![1; 32].into())),
        ("another proof", with(|c| c.parts[1].proof = vec![1; 32].into())),
        (
            "one part only",
            with(|c| {
                c.parts.pop();
                c.len = RESULT_PART_LEN as u64;
            }),
        ),
    ] {
        assert_eq!(one.post("commit", &commit).await.problem(), MALFORMED, "{why}");
    }
    let absent = ProblemKind::Absent;
    let foreign = CommitRequest { path: "b".into(), ..commit.clone() };
    assert_eq!(other.post("commit", &foreign).await.problem(), absent);
    let forged = CommitRequest { upload: "AAAA".into(), ..commit.clone() };
    assert_eq!(one.post("commit", &forged).await.problem(), absent);
    assert_eq!(other.send_part(&upload, &content, 0).await.problem(), absent);
    let head = |part, len| PartRequest {
        upload: upload.clone(),
        content: content.id,
        key: one.sealed_key(&content).into(),
        part,
        len,
    };
    for (part, len) in [(0, 0), (0, u32::MAX), (10_000, 1)] {
        let body = frame_head(&head(part, len)).unwrap();
        assert_eq!(one.ask("part", body).await.problem(), MALFORMED, "{part} {len}");
    }
    // A part's blocks are sealed as that part's.
    let body = [frame_head(&head(2, 10)).unwrap(), one.sealed(&content, 1)].concat();
    assert_eq!(one.ask("part", body).await.problem(), MALFORMED);
    assert!(names(&home).is_empty());

    let abandon = AbandonRequest { upload: upload.clone(), path: "a".into() };
    for _ in 0..2 {
        assert_eq!(one.post("abandon", &abandon).await.status, 200);
    }
    assert_eq!(one.post("commit", &commit).await.problem(), absent);
    assert_eq!(one.send_part(&upload, &content, 0).await.problem(), absent);
    assert!(names(&home).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_a_job_s_are_refused() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let outside = home.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, place(&home).join("link")).unwrap();
    let content = Content::new(*b"x");
    for (path, kind) in [
        ("", MALFORMED),
        ("/a", MALFORMED),
        ("../a", MALFORMED),
        ("a/../../b", MALFORMED),
        ("a//b", MALFORMED),
        ("a\0b", MALFORMED),
        (".tidegate-x", ProblemKind::Forbidden),
        (".tidegate-x/y", ProblemKind::Forbidden),
        ("a/.tidegate-x/y", ProblemKind::Forbidden),
        ("link/x", ProblemKind::Occupied),
    ] {
        let refused = bringer.send_store(path, 1, &content).await.problem();
        assert_eq!(refused, kind, "{path:?}");
        let change = Change::Rename { from: path.into(), to: "b".into(), version: None };
        let refused = bringer.post("change", &ChangeRequest { seq: 1, change }).await.problem();
        assert!(refused == kind || path == "link/x", "{path:?} {refused:?}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // A link is replaced, not followed.
    bringer.store("link", 2, b"file").await;
    assert_eq!(std::fs::read(place(&home).join("link")).unwrap(), b"file");
    let list = bringer.post("list", &ListRequest { after: None }).await;
    assert_eq!(list.problem(), ProblemKind::Forbidden, "the lease does not resume");
    let read = ReadRequest { path: "link".into(), version: "x".into(), offset: 0, len: 1 };
    assert_eq!(bringer.post("read", &read).await.problem(), ProblemKind::SourceChanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_brings_nothing() {
    let home = Home::start_with(allow).await;
    let granted = home.grant().await;
    let without = Worker::attached(&home, &granted.joins[0]).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let list = ListRequest { after: None };
    assert_eq!(without.post("results/list", &list).await.problem(), ProblemKind::Forbidden);
    // With the certificate of another lease.
    let path = format!("/v1/leases/{}/results/list", granted.lease);
    let body = serde_json::to_vec(&list).unwrap();
    let foreign = bringer.worker.call("POST", &path, body.clone()).await;
    assert_eq!(foreign.problem(), ProblemKind::Forbidden);
    let stranger = Worker::new(&home, &bringer.worker.join);
    let path = stranger.path("results/list");
    let refused = stranger.call("POST", &path, body).await;
    assert_eq!(refused.problem(), ProblemKind::Unauthenticated);

    let lease = bringer.worker.join.lease;
    home.gateway.drain(lease).await.unwrap();
    bringer.store("while-draining", 1, b"x").await;
    home.gateway.revoke(lease).await.unwrap();
    let over = bringer.send_store("after", 2, &Content::new(*b"x")).await;
    assert_eq!(over.problem(), ProblemKind::LeaseOver);
    assert_eq!(names(&home), ["while-draining"]);

    let wiped = Bringer::new(&home, wanted(&home)).await;
    wiped.worker.wipe().await;
    let over = wiped.send_store("after", 2, &Content::new(*b"x")).await;
    assert_eq!(over.problem(), ProblemKind::LeaseOver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_cannot_be_one_refuses_the_grant() {
    let home = Home::start_with(|config| {
        allow(config);
        let root = config.state.parent().unwrap().to_owned();
        config.allow_results(&SourceSpec::Directory(root.join("more")));
        config.allow_results(&SourceSpec::Directory(root.join("data")));
        config.allow_results(&SourceSpec::Directory(root.join("state")));
    })
    .await;
    let root = home.dir.path();
    std::fs::write(root.join("more"), b"a file").unwrap();
    std::os::unix::fs::symlink(root.join("data"), root.join("results")).unwrap();
    let refused = async |results: ResultsRequest| {
        let GrantError::Results(why) =
            home.gateway.grant(request(&home, results)).await.unwrap_err()
        else {
            panic!("refused for another reason");
        };
        tidegate_kit::telemetry::chain(&why)
    };
    let at = |path: &str| ResultsRequest {
        home: SourceSpec::Directory(root.join(path)),
        ..wanted(&home)
    };
    for (path, word) in [
        ("elsewhere", "results.allow"),
        ("data", "data lies"),
        ("data/a", "data lies"),
        ("results", "data lies"),
        ("state", "own"),
        ("state/x", "own"),
        ("more", "cannot be made"),
    ] {
        let why = refused(at(path)).await;
        assert!(why.contains(word), "{path}: {why}");
        assert!(!root.join("data/a/x").exists() && !root.join("state/x").exists());
    }
    std::fs::remove_file(root.join("results")).unwrap();
    for (results, word) in [
        (ResultsRequest { bytes: Some(u64::MAX), ..wanted(&home) }, "limits.results_bytes"),
        (ResultsRequest { files: Some(0), ..wanted(&home) }, "limits.results_files"),
        (ResultsRequest { image: Some("a b".into()), ..wanted(&home) }, "digest"),
    ] {
        let why = refused(results).await;
        assert!(why.contains(word), "{why}");
    }
    assert!(refused(at("results/runs/17")).await.contains("cannot be made"));
    assert!(
        !root.join("results").exists(),
        "nothing is made of a home that lacks more than its last part"
    );
    std::fs::create_dir_all(root.join("results/runs")).unwrap();
    let granted = home.gateway.grant(request(&home, at("results/runs/17"))).await.unwrap();
    let made = std::fs::read_dir(root.join("results/runs/17")).expect("made where it may be");
    let made: Vec<_> = made.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made, [format!(".tidegate-{}", granted.lease).as_str()]);
}
