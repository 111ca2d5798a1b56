//! Workers that are not heard for longer than the grace, and come back.

use tidegate_kit::clock::now_unix;
use tidegate_ledger::{Outcome, WipeCertificate};
use tidegate_plan::InstanceId;

use crate::worker::{Home, Worker, eventually, random};

/// Past the grace a worker has no keys and the gateway still waits for it: a lease that lives gives it
/// keys anew, and one that was revoked takes its word.
#[tokio::test(flavor = "multi_thread")]
async fn past_the_grace_a_silent_worker_may_come_back() {
    let home = Home::start_with(|config| {
        (config.heartbeat_s, config.grace_s, config.silence_s) = (1, 3, Some(100));
    })
    .await;
    let (living, revoked) = (home.grant().await, home.grant().await);
    let mut back = Worker::attached(&home, &living.joins[0]).await;
    let wiping = Worker::attached(&home, &revoked.joins[0]).await;
    for worker in [&back, &wiping] {
        worker.keys(0, 1).await;
    }
    assert!(home.gateway.revoke(revoked.lease).await.unwrap().is_none(), "it is waited for");
    let silent = now_unix();
    eventually(async || (now_unix() > silent + 7).then_some(())).await;
    assert_eq!(home.gateway.status(living.lease).unwrap().phase, "active");
    assert_eq!(home.gateway.status(revoked.lease).unwrap().phase, "draining");
    back.instance = InstanceId::from_bytes(random());
    back.attach().await.unwrap();
    let (grant, _) = back.keys(0, 1).await;
    assert_eq!(grant.epoch, 2, "an entry of its own");
    let certificate = WipeCertificate::parse(&wiping.wipe().await.certificate).unwrap();
    assert_eq!(certificate.observed.outcome, Outcome::Wiped);
}
