//! Who is turned away, how, and what the ledger says of it.

use tidegate_gateway::NodePolicy;
use tidegate_kit::tls::{Authority, IdentityKey};
use tidegate_ledger::{Event, Stated};
use tidegate_plan::{InstanceId, LeaseId, TokenId};
use tidegate_wire::ProblemKind;

use crate::worker::{Home, Worker, ask, random};

/// Reasons and counts of the refusals in the ledger.
async fn refusals(home: &Home) -> Vec<(String, u64)> {
    let events = home.events().await.into_iter();
    let refused = events.filter_map(|event| match event {
        Event::Refused { reason, count, .. } => Some((reason, count)),
        _ => None,
    });
    refused.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_401_everywhere_and_write_nothing() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let before = home.entries().await.len();
    let stranger = Worker::new(&home, &granted.joins[0]);
    for rest in ["manifest", "blocks/0", "blocks/999999", "blocks/x"] {
        assert_eq!(stranger.get(rest).await.problem(), ProblemKind::Unauthenticated, "{rest}");
    }
    assert_eq!(stranger.ask_keys(0, 1).await.problem(), ProblemKind::Unauthenticated);
    assert_eq!(stranger.heartbeat().await.problem(), ProblemKind::Unauthenticated);
    let answer = stranger.post("wipe-certificate", &stranger.statement(&stranger.stated())).await;
    assert_eq!(answer.problem(), ProblemKind::Unauthenticated);

    let odd = [
        ("GET", "/", ProblemKind::NotFound),
        ("GET", "/v1/admin/status", ProblemKind::NotFound),
        ("GET", "/v1/challenge", ProblemKind::MethodNotAllowed),
        ("POST", "/v1/attach", ProblemKind::Malformed),
    ];
    for (method, path, kind) in odd {
        assert_eq!(stranger.call(method, path, b"{}".to_vec()).await.problem(), kind, "{path}");
    }
    let huge = stranger.call("POST", "/v1/attach", vec![b' '; 300 * 1024]).await;
    assert_eq!(huge.problem(), ProblemKind::TooLarge);
    assert_eq!(home.entries().await.len(), before);
    let revisions = std::fs::read_dir(home.state().join("leases").join(granted.lease.to_string()));
    assert_eq!(revisions.unwrap().count(), 2, "requested, granted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_that_proves_nothing_burns_nothing() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let before = home.entries().await.len();
    let mut worker = Worker::new(&home, &granted.joins[0]);

    let mut proof = worker.attach_request().await;
    proof.proof.0[0] ^= 1;
    let mut signature = worker.attach_request().await;
    signature.signature.0[0] ^= 1;
    let mut foreign_key = worker.attach_request().await;
    foreign_key.identity_key = IdentityKey::generate().public_key().as_slice().into();
    let mut changed = worker.attach_request().await;
    changed.facts = changed.facts.replace("node", "another");
    let mut token = worker.attach_request().await;
    token.token = TokenId::from_bytes(random());
    worker.sign(&mut token);
    let mut lease = worker.attach_request().await;
    lease.lease = LeaseId::from_bytes(random());
    worker.sign(&mut lease);
    let mut nonce = worker.attach_request().await;
    nonce.nonce.0[31] ^= 1;
    worker.sign(&mut nonce);
    let mut empty = worker.attach_request().await;
    (empty.nonce, empty.identity_key) = (Vec::new().into(), Vec::new().into());
    for (what, request) in [
        ("proof", proof),
        ("signature", signature),
        ("identity key", foreign_key),
        ("facts", changed),
        ("token", token),
        ("lease", lease),
        ("nonce", nonce),
        ("nothing", empty),
    ] {
        let answer = worker.send_attach(&request).await;
        assert_eq!(answer.problem(), ProblemKind::Unauthenticated, "{what}");
    }
    assert_eq!(home.entries().await.len(), before);
    worker.attach().await.unwrap();
}

/// A newer worker may say more about its node than this gateway knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_attach_with_unknown_facts_is_taken_and_with_nonsense_is_not() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::new(&home, &granted.joins[0]);
    let mut nonsense = worker.attach_request().await;
    nonsense.facts = "[]".to_owned();
    worker.sign(&mut nonsense);
    assert_eq!(worker.send_attach(&nonsense).await.problem(), ProblemKind::Malformed);
    let mut more = worker.attach_request().await;
    more.facts = more.facts.replacen('{', "{\"moon\":\"full\",", 1);
    worker.sign(&mut more);
    assert_eq!(worker.send_attach(&more).await.status, 200);
}

/// What a rank stated ends what it gets, also while other ranks go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_stated_its_wipe_gets_nothing_more() {
    let home = Home::start().await;
    let granted = home.grant_ranks(2).await;
    let mut worker = Worker::attached(&home, &granted.joins[0]).await;
    let other = Worker::attached(&home, &granted.joins[1]).await;
    worker.keys(0, 1).await;
    let incomplete = Stated { unlinked: false, ..worker.stated() };
    let answer = worker.post("wipe-certificate", &worker.statement(&incomplete)).await;
    assert_eq!(answer.status, 200);
    for refused in
        [worker.ask_keys(0, 1).await, worker.get("blocks/0").await, worker.get("manifest").await]
    {
        assert_eq!(refused.problem(), ProblemKind::LeaseOver);
    }
    assert_eq!(worker.attach().await, Err(ProblemKind::LeaseOver));
    assert_eq!(other.get("manifest").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_attach_is_refused() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::new(&home, &granted.joins[0]);
    let request = worker.attach_request().await;
    assert_eq!(worker.send_attach(&request).await.status, 200);
    let again = worker.send_attach(&request).await;
    assert_eq!(again.problem(), ProblemKind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_bound_to_the_first_identity() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let mut first = Worker::attached(&home, &granted.joins[0]).await;
    let mut thief = Worker::new(&home, &granted.joins[0]);
    assert_eq!(thief.attach().await, Err(ProblemKind::Forbidden));
    assert_eq!(refusals(&home).await, [("token-bound".to_owned(), 1)]);

    // The same identity may come back as a new process, and fences the old one.
    let old = first.certificate.clone();
    first.instance = InstanceId::from_bytes(random());
    first.attach().await.unwrap();
    first.keys(0, 1).await;
    let new = std::mem::replace(&mut first.certificate, old);
    assert_eq!(first.ask_keys(0, 1).await.problem(), ProblemKind::Forbidden);
    assert_eq!(first.heartbeat().await.problem(), ProblemKind::Forbidden);
    first.certificate = new;
    assert_eq!(first.heartbeat().await.status, 200);
    assert_eq!(refusals(&home).await[1], ("fenced".to_owned(), 1), "the second is summed later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_its_own_lease_only() {
    let home = Home::start().await;
    let (one, two) = (home.grant().await, home.grant().await);
    let mut worker = Worker::attached(&home, &one.joins[0]).await;
    Worker::attached(&home, &two.joins[0]).await;
    worker.join.lease = two.lease;
    for answer in [worker.get("manifest").await, worker.get("blocks/0").await] {
        assert_eq!(answer.problem(), ProblemKind::Forbidden);
    }
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::Forbidden);
    assert_eq!(refusals(&home).await, [("foreign-lease".to_owned(), 1)]);
    worker.join.lease = LeaseId::from_bytes(random());
    assert_eq!(worker.get("manifest").await.problem(), ProblemKind::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_swaps_to_a_disk_is_refused() {
    let home = Home::start_with(|config| config.nodes = NodePolicy::default()).await;
    let granted = home.grant().await;
    let worker = Worker::new(&home, &granted.joins[0]);
    let attach = async |area: &str| {
        let mut request = worker.attach_request().await;
        request.facts = request.facts.replace("\"swap\":[]", &format!("\"swap\":[\"{area}\"]"));
        worker.sign(&mut request);
        worker.send_attach(&request).await
    };
    let refused = attach("/dev/sda2").await;
    assert_eq!(refused.problem(), ProblemKind::Forbidden);
    assert!(String::from_utf8_lossy(&refused.body).contains("swapoff"), "what to do is said");
    assert_eq!(refusals(&home).await, [("node".to_owned(), 1)]);
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "granted");
    assert_eq!(attach("/dev/zram0").await.status, 200, "compressed memory is no disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_the_share() {
    let home = Home::start().await;
    let granted = home.grant_ranks(2).await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    assert!(terms.end_block < terms.blocks, "both shares have blocks");
    let outside = [(0, terms.blocks), (terms.end_block, terms.blocks), (1, 0), (0, u32::MAX)];
    for (first, end) in outside {
        let answer = worker.ask_keys(first, end).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden, "{first}..{end}");
    }
    let before = home.gateway.status(granted.lease).unwrap();
    assert_eq!((before.releases, before.released_bytes), (0, 0));
    for block in [terms.end_block, terms.blocks, u32::MAX] {
        let answer = worker.get(&format!("blocks/{block}")).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden, "{block}");
    }
    assert_eq!(worker.get("blocks/-1").await.problem(), ProblemKind::Malformed);
    assert_eq!(refusals(&home).await, [("outside-share".to_owned(), 1)]);
    worker.keys(0, terms.end_block).await;
    home.gateway.shutdown().await;
    let sums = refusals(&home).await;
    assert_eq!(sums[1..], [("outside-share".to_owned(), 6)], "the rest is summed at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_lease_gives_nothing() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let mut worker = Worker::attached(&home, &granted.joins[0]).await;
    home.gateway.close(granted.lease).await.unwrap();
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::LeaseOver);
    assert_eq!(worker.get("manifest").await.problem(), ProblemKind::LeaseOver);
    assert_eq!(worker.get("blocks/0").await.problem(), ProblemKind::LeaseOver);
    assert_eq!(worker.heartbeat().await.problem(), ProblemKind::LeaseOver);
    let late = worker.post("wipe-certificate", &worker.statement(&worker.stated())).await;
    assert_eq!(late.problem(), ProblemKind::LeaseOver);
    // Its key is gone, so nobody can prove anything about its tokens.
    assert_eq!(worker.attach().await, Err(ProblemKind::Unauthenticated));
    assert_eq!(refusals(&home).await, [("lease-over".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_not_believed_by_either_side() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let other = Authority::generate().unwrap();

    let mut misled = Worker::new(&home, &granted.joins[0]);
    misled.join.ca = other.certificate_pem().to_owned();
    assert!(misled.try_call("POST", "/v1/challenge", Vec::new()).await.is_err());

    let mut forger = Worker::new(&home, &granted.joins[0]);
    let public = forger.identity.public_key();
    let now = tidegate_kit::clock::now_unix();
    let (certificate, _) =
        other.issue_client(&public, &granted.lease, 0, &worker.instance, now, u64::MAX).unwrap();
    forger.certificate = Some(certificate);
    assert!(forger.try_call("GET", &forger.path("manifest"), Vec::new()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_certificate() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let mut worker = Worker::attached(&home, &granted.joins[0]).await;
    let authority = Authority::load_or_create(&home.state().join("ca/authority.pem")).unwrap();
    let (public, now) = (worker.identity.public_key(), tidegate_kit::clock::now_unix());
    let short = authority.issue_client(&public, &granted.lease, 0, &worker.instance, now, now + 3);
    worker.certificate = Some(short.unwrap().0);
    let mut connection = worker.connect().await.unwrap();
    let path = worker.path("blocks/0");
    let first = ask(&mut connection, "GET", &path, Vec::new()).await.unwrap();
    assert_eq!(first.status, 200);
    let refused = loop {
        let answer = ask(&mut connection, "GET", &path, Vec::new()).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        assert!(tidegate_kit::clock::now_unix() < now + 60, "still served");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(refused.problem(), ProblemKind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_is_stated_by_the_worker_itself() {
    let home = Home::start().await;
    let granted = home.grant_ranks(2).await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let other = Worker::attached(&home, &granted.joins[1]).await;
    let mut signature = worker.statement(&worker.stated());
    signature.signature.0[0] ^= 1;
    let mut changed = worker.statement(&worker.stated());
    changed.statement = changed.statement.replace("true", "false");
    let foreign = worker.statement(&other.stated());
    let signed_by_another = other.statement(&worker.stated());
    for statement in [signature, changed, foreign, signed_by_another] {
        let answer = worker.post("wipe-certificate", &statement).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden);
    }
    assert_eq!(refusals(&home).await, [("statement".to_owned(), 1)]);
    worker.wipe().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_object_fails_its_block_and_no_other() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    let path = home.dir.path().join("data/a/b/large");
    let mut content = std::fs::read(&path).unwrap();
    content[0] ^= 1;
    std::fs::write(&path, content).unwrap();
    let mut changed = 0;
    for block in 0..terms.blocks {
        let answer = worker.get(&format!("blocks/{block}")).await;
        if answer.status != 200 {
            assert_eq!(answer.problem(), ProblemKind::SourceChanged);
            changed += 1;
        }
    }
    assert!(changed >= 2 && changed < terms.blocks, "{changed} of {}", terms.blocks);
}
