//! Results over budgets, full disks, restarts and ends.

use tidegate_gateway::{Gateway, GatewayConfig, ResultsRequest};
use tidegate_ledger::{Event, ResultsAct, StatedResults};
use tidegate_plan::RESULT_PART_LEN;
use tidegate_wire::{ProblemKind, Stored, WipeReceipt};

use crate::bringing::{Bringer, Content, allow, place, wanted};
use crate::worker::{Home, eventually};

fn daemon(config: &mut GatewayConfig) {
    config.embedded = false;
    allow(config);
}

/// The same gateway, started again.
async fn restarted(home: Home, bringer: &mut Bringer, orderly: bool) -> Home {
    let Home { dir, gateway } = home;
    if orderly {
        gateway.shutdown().await;
    }
    drop(gateway);
    let config = || Home::config(dir.path(), daemon);
    let gateway = eventually(async || Gateway::start(config()).await.ok()).await;
    bringer.worker.addr = gateway.addr();
    Home { dir, gateway }
}

fn refusals(events: &[Event]) -> usize {
    let over = |event: &&Event| matches!(event, Event::Refused { reason, .. } if reason == "results-budget");
    events.iter().filter(over).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_holds_over_restarts_and_over_it_is_written_down() {
    let home = Home::start_with(daemon).await;
    let results = ResultsRequest { bytes: Some(6400), files: Some(100), ..wanted(&home) };
    let mut bringer = Bringer::new(&home, results).await;
    assert_eq!((bringer.terms.bytes, bringer.terms.files), (6400, 100));
    bringer.store("a", 1, &[1; 1000]).await;
    let home = restarted(home, &mut bringer, true).await;
    let terms = bringer.worker.attach().await.unwrap().terms.results.unwrap();
    assert!(terms.bytes <= 5400 && terms.bytes >= 5400 - 100, "a slice at most is lost: {terms:?}");
    assert!(terms.files < 100 && terms.files >= 98);
    bringer.store("b", 2, &[2; 5000]).await;
    let over = bringer.send_store("c", 3, &Content::new([3; 500])).await;
    assert_eq!(over.problem(), ProblemKind::OverBudget);
    let over = bringer.send_store("c", 4, &Content::new([3; 500])).await;
    assert_eq!(over.problem(), ProblemKind::OverBudget);
    assert!(!place(&home).join("c").exists());
    assert_eq!(refusals(&home.events().await), 1, "the first at once, the others summed");
    bringer.store("c", 5, &[3; 100]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_counted_too_and_what_is_stored_again_counts_again() {
    let home = Home::start_with(allow).await;
    let results = ResultsRequest { files: Some(3), ..wanted(&home) };
    let bringer = Bringer::new(&home, results).await;
    for seq in 0..3 {
        bringer.store("a", seq, b"").await;
    }
    let over = bringer.send_store("a", 4, &Content::new(*b"")).await;
    assert_eq!(over.problem(), ProblemKind::OverBudget);
    assert_eq!(refusals(&home.events().await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_a_killed_gateway_left_it() {
    let home = Home::start_with(daemon).await;
    let mut bringer = Bringer::new(&home, wanted(&home)).await;
    let content = Content::new(vec![5; RESULT_PART_LEN + 10]);
    let upload = bringer.begin("a", &content).await;
    let first = bringer.part(&upload, &content, 0).await;
    let home = restarted(home, &mut bringer, false).await;
    let second = bringer.part(&upload, &content, 1).await;
    let commit = bringer.commit_request(&upload, ("a", 1), &content, vec![first, second]);
    let stored: Stored = bringer.posted("commit", &commit).await;
    let home = restarted(home, &mut bringer, false).await;
    let again: Stored = bringer.posted("commit", &commit).await;
    assert_eq!(again, stored, "its answer was lost");
    assert!(std::fs::read(place(&home).join("a")).unwrap() == content.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_upload_is_left_when_its_lease_ends() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    let content = Content::new(vec![5; RESULT_PART_LEN + 10]);
    let upload = bringer.begin("a", &content).await;
    bringer.part(&upload, &content, 0).await;
    let own = place(&home).join(format!(".tidegate-{}", bringer.worker.join.lease));
    assert!(own.is_dir());
    bringer.worker.wipe().await;
    home.gateway.shutdown().await;
    assert!(!own.exists());
    assert_eq!(std::fs::read_dir(place(&home)).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_named_before_the_wipe_once() {
    let home = Home::start_with(allow).await;
    let bringer = Bringer::new(&home, wanted(&home)).await;
    // The home may be away: the end does not wait for it.
    std::fs::remove_dir_all(place(&home)).unwrap();
    // More than other requests may say.
    let names: Vec<_> = (0..3000).map(|n| format!("lost/{n:0100}")).collect();
    let mut stated = bringer.worker.stated();
    let results = StatedResults { lost_files: 3010, lost: names, ..StatedResults::default() };
    stated.results = Some(results);
    let statement = bringer.worker.statement(&stated);
    for _ in 0..2 {
        let answer = bringer.worker.post("wipe-certificate", &statement).await;
        let _: WipeReceipt = answer.json();
    }
    let events = home.events().await;
    let at = |wanted: fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let wiped = at(|event| matches!(event, Event::Wiped { .. }));
    let all = events.iter().filter(|event| matches!(event, Event::Wiped { .. }));
    assert_eq!(all.count(), 1, "the same again makes no entry");
    let lost = events.iter().filter_map(|event| match event {
        Event::Results { act: ResultsAct::Lost, files, .. } => Some(*files),
        _ => None,
    });
    let want: Vec<_> = (0..12).map(|n| if n < 11 { 256 } else { 194 }).collect();
    assert_eq!(lost.collect::<Vec<_>>(), want);
    assert!(at(|event| matches!(event, Event::Results { .. })) < wiped);
    assert!(wiped < at(|event| matches!(event, Event::LeaseClosed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_away_can_be_asked_again() {
    let home = Home::start_with(daemon).await;
    let mut bringer = Bringer::new(&home, wanted(&home)).await;
    let (at, away) = (place(&home), home.dir.path().join("away"));
    std::fs::rename(&at, &away).unwrap();
    let home = restarted(home, &mut bringer, true).await;
    let refused = bringer.send_store("a", 1, &Content::new(*b"x")).await;
    assert_eq!(refused.problem(), ProblemKind::SourceUnavailable);
    std::fs::rename(&away, &at).unwrap();
    bringer.store("a", 1, b"x").await;
    drop(home);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_with_nothing_mounted_is_no_home() {
    let mut home = Home::start_with(daemon).await;
    let mut bringer = Bringer::new(&home, wanted(&home)).await;
    let (at, away) = (place(&home), home.dir.path().join("away"));
    // Before the lease has brought anything, and after.
    for (seq, name) in [(1, "a"), (2, "b")] {
        std::fs::rename(&at, &away).unwrap();
        std::fs::create_dir(&at).unwrap();
        home = restarted(home, &mut bringer, true).await;
        let refused = bringer.send_store(name, seq, &Content::new(*b"x")).await;
        assert_eq!(refused.problem(), ProblemKind::SourceUnavailable, "{name}");
        // Nothing was made there.
        std::fs::remove_dir(&at).unwrap();
        std::fs::rename(&away, &at).unwrap();
        bringer.store(name, seq, b"x").await;
        assert_eq!(std::fs::read(place(&home).join(name)).unwrap(), b"x");
    }
}

/// Needs the right to mount; without it there is nothing to show.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_space_and_nothing_half_done() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let home = Home::start_with(allow).await;
    let at = place(&home);
    std::fs::create_dir(&at).unwrap();
    if let Err(errno) = mount("tmpfs", &at, "tmpfs", MountFlags::empty(), Some(c"size=1m")) {
        println!("no small file system can be mounted here: {errno}");
        return;
    }
    let bringer = Bringer::new(&home, wanted(&home)).await;
    bringer.store("a", 1, &[1; 300_000]).await;
    let content = Content::new(vec![2; 900_000]);
    let full = bringer.send_store("a", 2, &content).await.problem();
    let kept = std::fs::read(at.join("a")).unwrap();
    let own = at.join(format!(".tidegate-{}", bringer.worker.join.lease));
    let left = std::fs::read_dir(own).unwrap().count();
    let large = Content::new(vec![2; RESULT_PART_LEN + 1]);
    let upload = bringer.begin("b", &large).await;
    let part = bringer.send_part(&upload, &large, 0).await.problem();
    bringer.store("c", 3, b"there is room for this").await;
    let events = home.events().await;
    let noted = |event: &&Event| matches!(event, Event::Refused { reason, .. } if reason == "results-no-space");
    let noted = events.iter().filter(noted).count();
    home.gateway.shutdown().await;
    drop(home);
    unmount(&at, UnmountFlags::DETACH).unwrap();
    assert_eq!((full, part), (ProblemKind::NoSpace, ProblemKind::NoSpace));
    assert!(kept == [1; 300_000] && left == 0);
    assert_eq!(noted, 1, "the first at once, the others summed");
}
