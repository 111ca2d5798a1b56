use tidegate_ledger::SigningKey;
use tidegate_wire::ProblemKind;

use super::*;

async fn try_attach(join: &JoinFile) -> Result<Attached, ClientError> {
    attach(join, &Identity::generate(), NodeFacts::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_join_files_authority_ledger_and_secret_will_do() {
    let gateway = Gateway::start(Home::new(&[10])).await;
    let other = Gateway::start(Home::new(&[10])).await;
    let join = &gateway.join;

    let wrong_ca = JoinFile { ca: other.join.ca.clone(), ..join.clone() };
    assert!(matches!(try_attach(&wrong_ca).await, Err(ClientError::Untrusted(_))));

    let key = SigningKey::from_seed("tidegate/test", [99; 32]).unwrap();
    let wrong_ledger = JoinFile { ledger_key: key.vkey(), ..join.clone() };
    assert!(matches!(try_attach(&wrong_ledger).await, Err(ClientError::Untrusted(_))));

    let wrong_secret = JoinFile { secret: vec![1; 32].into(), ..join.clone() };
    let refused = try_attach(&wrong_secret).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(ProblemKind::Unauthenticated));

    let wrong_rank = JoinFile { rank: 1, ..join.clone() };
    assert!(matches!(try_attach(&wrong_rank).await, Err(ClientError::Nonsense(_))));

    let nobody = JoinFile { gateways: vec!["https://127.0.0.1:1".into()], ..join.clone() };
    assert!(matches!(try_attach(&nobody).await, Err(ClientError::Unreachable(_))));

    let second = vec!["https://127.0.0.1:1".into(), join.gateways[0].clone()];
    assert!(try_attach(&JoinFile { gateways: second, ..join.clone() }).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_by_new_connections() {
    let worker = Worker::start(Home::new(&[40 * MIB]), None, LONG).await;
    for _ in 0..3 {
        let reply = worker.client.heartbeat(worker.cache.counters()).await.unwrap();
        assert!(reply.certificate.is_some());
    }
    worker.check_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_would_live_for_ever_are_nonsense() {
    let worker = Worker::start(Home::new(&[100]), None, LONG).await;
    *worker.gateway.expiry.lock().unwrap() = u64::MAX;
    let refused = worker.client.keys(0..1).await.map(drop);
    assert!(matches!(refused, Err(ClientError::Nonsense(_))), "{refused:?}");
}
