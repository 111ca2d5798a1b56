//! A lease whose source is away when its gateway starts: it waits, it can be ended, and it comes back.
//! And one that cannot be ended in the state: it is ended all the same.

use serde_json::Value;
use tidegate_gateway::Gateway;
use tidegate_ledger::{Cause, Event};
use tidegate_wire::{Directive, ProblemKind};

use crate::admin::{ask, start, with_admin};
use crate::worker::{Home, Worker, eventually};

/// A worker with keys, and its gateway started again without the source.
async fn without_source() -> (Home, Worker) {
    let home = start().await;
    let granted = home.grant().await;
    let mut worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 1).await;
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    std::fs::rename(dir.path().join("data"), dir.path().join("away")).unwrap();
    let gateway = Gateway::start(with_admin(dir.path())).await.unwrap();
    worker.addr = gateway.addr();
    (Home { dir, gateway }, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_wait_until_the_source_is_back() {
    let (home, mut worker) = without_source().await;
    assert_eq!(worker.get("blocks/0").await.problem(), ProblemKind::Unavailable);
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::Unavailable);
    assert_eq!(worker.beat().await.directive, Directive::Continue);
    assert_eq!(worker.attach().await.unwrap_err(), ProblemKind::Unavailable);
    std::fs::rename(home.dir.path().join("away"), home.dir.path().join("data")).unwrap();
    let back = async || (worker.get("blocks/0").await.status == 200).then_some(());
    eventually(back).await;
    worker.attach().await.unwrap();
    worker.keys(0, 1).await;
}

/// What was revoked is served no more, also while nobody can write that down.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_cannot_be_written_holds() {
    let home = start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 1).await;
    assert_eq!(worker.get("blocks/0").await.status, 200);
    let revisions = home.state().join("leases").join(granted.lease.to_string());
    let aside = home.dir.path().join("aside");
    std::fs::rename(&revisions, &aside).unwrap();
    std::fs::write(&revisions, b"").unwrap();
    let path = format!("/v1/admin/leases/{}/revoke", granted.lease);
    assert_eq!(ask(&home, "POST", &path, Value::Null).await.0, 503);
    assert_eq!(worker.get("blocks/0").await.problem(), ProblemKind::LeaseOver);
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::LeaseOver);
    std::fs::remove_file(&revisions).unwrap();
    std::fs::rename(&aside, &revisions).unwrap();
    let wrapped = home.state().join("keyring/leases").join(granted.lease.to_string());
    eventually(async || (!wrapped.exists()).then_some(())).await;
    worker.wipe().await;
    assert_eq!(cause(&home).await, Some(Cause::Revoked));
}

async fn cause(home: &Home) -> Option<Cause> {
    home.events().await.into_iter().find_map(|event| match event {
        Event::LeaseClosed { cause, .. } => cause,
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_revoked_as_any_other() {
    let (home, worker) = without_source().await;
    let lease = worker.join.lease;
    let (_, all) = ask(&home, "GET", "/v1/admin/leases", Value::Null).await;
    assert_eq!(all[0]["lease"], lease.to_string());
    let path = format!("/v1/admin/leases/{lease}/revoke");
    let (status, ended) = ask(&home, "POST", &path, Value::Null).await;
    assert_eq!(status, 200, "{ended}");
    let wrapped = home.state().join("keyring/leases").join(lease.to_string());
    assert!(!wrapped.exists(), "its key is gone at once");
    std::fs::rename(home.dir.path().join("away"), home.dir.path().join("data")).unwrap();
    assert_eq!(worker.beat().await.directive, Directive::Die);
    assert_eq!(worker.get("blocks/0").await.problem(), ProblemKind::LeaseOver);
    worker.wipe().await;
    assert_eq!(cause(&home).await, Some(Cause::Revoked));
}
