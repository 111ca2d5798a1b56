//! Attachments that come again: after a failure, from a process of before, too often.

use serde_json::json;
use tidegate_gateway::Gateway;
use tidegate_ledger::{Commitment, Event};
use tidegate_plan::InstanceId;
use tidegate_wire::{JoinFile, ProblemKind};

use crate::admin::{ask, start};
use crate::order::break_ledger;
use crate::worker::{Home, Worker, random};

/// Another token for rank 0 of the lease.
async fn further(home: &Home, join: &JoinFile) -> JoinFile {
    let path = format!("/v1/admin/leases/{}/tokens", join.lease);
    let (status, made) = ask(home, "POST", &path, json!({ "rank": 0 })).await;
    assert_eq!(status, 200, "{made}");
    serde_json::from_value(made).unwrap()
}

/// Processes that the ledger says were fenced.
async fn fenced(home: &Home) -> Vec<InstanceId> {
    let events = home.events().await.into_iter();
    let fenced = events.filter_map(|event| match event {
        Event::Fenced { instance, .. } => Some(instance),
        _ => None,
    });
    fenced.collect()
}

/// A worker, and another that took its rank over while the ledger could not be written.
async fn fenced_unrecorded() -> (Home, Worker, Worker) {
    let home = start().await;
    let granted = home.grant().await;
    let first = Worker::attached(&home, &granted.joins[0]).await;
    let join = further(&home, &granted.joins[0]).await;
    let mend = break_ledger(&home);
    let mut second = Worker::new(&home, &join);
    assert_eq!(second.attach().await, Err(ProblemKind::Unavailable));
    mend();
    (home, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_is_in_the_ledger_once_however_often_its_worker_attaches() {
    let (home, first, mut second) = fenced_unrecorded().await;
    assert_eq!(first.heartbeat().await.problem(), ProblemKind::Forbidden, "it is fenced");
    assert!(fenced(&home).await.is_empty());
    for _ in 0..3 {
        second.instance = InstanceId::from_bytes(random());
        second.attach().await.unwrap();
    }
    assert_eq!(fenced(&home).await, [first.instance]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_whose_worker_does_not_come_again_is_recorded_too() {
    let (home, first, _second) = fenced_unrecorded().await;
    let said = async || (fenced(&home).await == [first.instance]).then_some(());
    crate::worker::eventually(said).await;
}

/// The request that was good once is as good at a gateway that does not remember it.
#[tokio::test(flavor = "multi_thread")]
async fn an_attach_seen_again_after_a_restart_fences_nobody() {
    let home = Home::start_with(|config| config.embedded = false).await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let seen = worker.attach_request().await;
    assert_eq!(worker.send_attach(&seen).await.status, 200);
    worker.instance = InstanceId::from_bytes(random());
    worker.attach().await.unwrap();

    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    let config = Home::config(dir.path(), |config| config.embedded = false);
    let home = Home { gateway: Gateway::start(config).await.unwrap(), dir };
    worker.addr = home.gateway.addr();
    assert_eq!(worker.send_attach(&seen).await.problem(), ProblemKind::Forbidden);
    worker.keys(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_are_few_and_the_same_facts_are_kept_once() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let mut large = worker.attach_request().await;
    large.facts = large.facts.replace("\"node\"", &format!("\"{}\"", "n".repeat(8 * 1024)));
    worker.sign(&mut large);
    assert_eq!(worker.send_attach(&large).await.problem(), ProblemKind::TooLarge);

    let mut refused = 0;
    for _ in 0..100 {
        worker.instance = InstanceId::from_bytes(random());
        match worker.attach().await {
            Ok(_) => {}
            Err(ProblemKind::TooMany) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        if refused > 0 {
            break;
        }
    }
    assert_eq!(refused, 1, "a hundred attachments were taken");
    let events = home.events().await.into_iter();
    let facts: Vec<Commitment> = events
        .filter_map(|event| match event {
            Event::Attached { facts, .. } => Some(facts),
            _ => None,
        })
        .collect();
    assert!(facts.len() >= 12, "a worker that crashes comes back: {}", facts.len());
    assert!(facts.iter().all(|document| *document == facts[0]));

    // One that was erased is written again.
    let path = home.state().join("ledger/documents").join(facts[0].to_string());
    std::fs::remove_file(&path).unwrap();
    let again = async || {
        worker.instance = InstanceId::from_bytes(random());
        worker.attach().await.ok()
    };
    crate::worker::eventually(again).await;
    assert!(!path.exists());
    let last = home.events().await.pop();
    assert!(matches!(last, Some(Event::Attached { facts: new, .. }) if new != facts[0]));
}

/// What docs/operating.md counts with.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_grows_by_two_and_a_half_kibibytes_a_rank() {
    let home = Home::start().await;
    let granted = home.grant_ranks(8).await;
    for join in &granted.joins {
        Worker::attached(&home, join).await;
    }
    let revisions = home.state().join("leases").join(granted.lease.to_string());
    let size = |file: std::fs::DirEntry| file.metadata().unwrap().len();
    let largest = revisions.read_dir().unwrap().map(|file| size(file.unwrap())).max().unwrap();
    assert!((8 * 2048..8 * 2560 + 2048).contains(&largest), "{largest} bytes");
}
