//! A rank gets its own share's names, blocks and keys, and no others': shown by trying.

use serde_json::json;
use tidegate_gateway::Granted;
use tidegate_ledger::{Event, Outcome, Stated, WipeCertificate};
use tidegate_plan::{LayoutId, Manifest};
use tidegate_seal::{BlockKey, Context, Kind, Release, open_message};
use tidegate_wire::{Directive, JoinFile, LeaseTerms, ProblemKind, WipeReceipt};

use crate::admin::{ask, start_with};
use crate::worker::{Home, Worker, eventually};

/// Every key that follows from a release.
fn keys(release: &Release) -> Vec<BlockKey> {
    let leaves = release.cover.leaves().map(|(_, key)| key);
    leaves.chain(BlockKey::from_slice(release.manifest_key.expose())).collect()
}

fn context(terms: &LeaseTerms, kind: Kind, number: u64, count: u64) -> Context {
    Context { kind, lease: terms.lease, layout: terms.layout, number, count }
}

/// Whether any of the keys opens it, whatever it is taken for.
fn opens(keys: &[BlockKey], terms: &LeaseTerms, sealed: &[u8]) -> bool {
    let places = (0..u64::from(terms.blocks)).flat_map(|number| {
        [
            context(terms, Kind::Block, number, terms.blocks.into()),
            context(terms, Kind::Manifest, number, 1),
        ]
    });
    let places: Vec<_> = places.collect();
    keys.iter().any(|key| places.iter().any(|place| open_message(key, place, sealed).is_ok()))
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_neither_fetches_nor_opens_what_is_anothers() {
    let home = Home::start().await;
    let granted = home.grant_ranks(2).await;
    let (mut curious, mut other) =
        (Worker::new(&home, &granted.joins[0]), Worker::new(&home, &granted.joins[1]));
    let mine = curious.attach().await.unwrap().terms;
    let theirs = other.attach().await.unwrap().terms;
    assert!(mine.end_block == theirs.first_block && theirs.first_block < theirs.end_block);

    // What the other rank gets by right.
    let (_, their_release) = other.keys(theirs.first_block, theirs.end_block).await;
    let their_manifest = other.get("manifest").await.body;
    let their_block = other.get(&format!("blocks/{}", theirs.first_block)).await.body;
    let (_, my_release) = curious.keys(mine.first_block, mine.end_block).await;

    // Its blocks and keys, by number.
    let mut tries = 0;
    for block in theirs.first_block..theirs.end_block {
        let answer = curious.get(&format!("blocks/{block}")).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden);
        tries += 1;
    }
    let windows = [
        (theirs.first_block, theirs.end_block),
        (mine.first_block, theirs.end_block),
        (theirs.end_block - 1, theirs.end_block),
        (theirs.end_block, theirs.end_block),
    ];
    for (first, end) in windows {
        let answer = curious.ask_keys(first, end).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden, "{first}..{end}");
        tries += 1;
    }
    // Its manifest: the certificate says whose it is, and nothing in the request can say otherwise.
    for rest in ["manifest/1", "ranks/1/manifest", "manifest/../1"] {
        assert_eq!(curious.get(rest).await.problem(), ProblemKind::NotFound, "{rest}");
    }
    for rest in ["manifest", "manifest?rank=1", "manifest?token=1"] {
        let answer = curious.get(rest).await;
        let place = context(&mine, Kind::Manifest, 0, 1);
        let plain = open_message(&my_release.manifest_key, &place, &answer.body).unwrap();
        assert_eq!(plain.len() as u64, mine.manifest_len);
        assert!(holds(&plain, "large") && !holds(&plain, "small-39"), "{rest}");
        Manifest::parse(plain.to_vec()).unwrap();
    }
    // The other's token without its secret.
    let mut borrowed = Worker::new(&home, &granted.joins[0]);
    borrowed.join.token = granted.joins[1].token;
    assert_eq!(borrowed.attach().await, Err(ProblemKind::Unauthenticated));

    // With the sealed bytes in hand, as one who listens on the disk or on the road.
    let (my_keys, their_keys) = (keys(&my_release), keys(&their_release));
    for sealed in [&their_manifest, &their_block] {
        assert!(opens(&their_keys, &theirs, sealed), "who may open it opens it");
        assert!(!opens(&my_keys, &theirs, sealed));
        let elsewhere = LeaseTerms { layout: LayoutId::from_bytes([0; 32]), ..theirs.clone() };
        assert!(!opens(&their_keys, &elsewhere, sealed), "and nowhere else");
    }

    home.gateway.shutdown().await;
    let refused = home.events().await.into_iter().filter_map(|event| match event {
        Event::Refused { lease, reason, count } => Some((lease, reason, count)),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert!(refused.iter().all(|(lease, reason, _)| {
        (lease, reason.as_str()) == (&Some(granted.lease), "outside-share")
    }));
    assert_eq!(refused.iter().map(|(_, _, count)| count).sum::<u64>(), tries, "{refused:?}");
}

/// A worker, and the one that took its rank over with a further token.
async fn fenced(home: &Home, lease: &Granted) -> (Worker, Worker) {
    let older = Worker::attached(home, &lease.joins[0]).await;
    older.keys(0, 1).await;
    let path = format!("/v1/admin/leases/{}/tokens", lease.lease);
    let (_, further) = ask(home, "POST", &path, json!({ "rank": 0 })).await;
    let further: JoinFile = serde_json::from_value(further).unwrap();
    let newer = Worker::attached(home, &further).await;
    newer.keys(0, 2).await;
    (older, newer)
}

/// A worker that lost its rank gets nothing more. That it wiped it may still say, for itself alone, and
/// a lease is wiped when all of its workers said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_worker_may_still_state_its_wipe() {
    let home = start_with(|_| {}).await;
    let granted = home.grant().await;
    let (older, newer) = fenced(&home, &granted).await;
    let nothing = async || {
        for answer in [older.ask_keys(0, 1).await, older.heartbeat().await] {
            assert_eq!(answer.problem(), ProblemKind::Forbidden);
        }
        for path in ["manifest", "blocks/0"] {
            assert_eq!(older.get(path).await.problem(), ProblemKind::Forbidden);
        }
    };
    nothing().await;
    let of_newer = Stated { instance: newer.instance, ..older.stated() };
    let answer = older.post("wipe-certificate", &older.statement(&of_newer)).await;
    assert_eq!(answer.problem(), ProblemKind::Forbidden);

    let said = older.wipe().await;
    assert!(matches!(older.proven(&said.receipt), Event::Wiped { rank: 0, .. }));
    let made = WipeCertificate::parse(&said.certificate).unwrap();
    assert_eq!(made.identity.unwrap().as_bytes(), &older.identity.public_key());
    assert_eq!(
        (made.observed.outcome, &made.observed.released[..]),
        (Outcome::Wiped, &[(0, 1)][..])
    );
    assert_eq!((made.observed.sent_bytes, made.observed.lease_key_destroyed_at), (None, None));
    assert_eq!(older.wipe().await.certificate, said.certificate, "the same words, the same answer");
    let other = Stated { cache_bytes: 0, ..older.stated() };
    let answer = older.post("wipe-certificate", &older.statement(&other)).await;
    assert_eq!(answer.problem(), ProblemKind::LeaseOver);
    nothing().await;

    newer.keys(0, 1).await;
    assert_eq!(newer.beat().await.directive, Directive::Continue);
    let last = newer.wipe().await;
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "wiped");
    let closed = home.gateway.close(granted.lease).await.unwrap();
    assert_eq!(closed.certificates, [last.certificate, said.certificate]);
    let events = home.events().await;
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Wiped { .. })).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fenced_worker_says_in_part_or_too_late_closes_nothing_as_wiped() {
    let home = start_with(|_| {}).await;
    let granted = home.grant().await;
    let (older, newer) = fenced(&home, &granted).await;
    let part = older.statement(&Stated { unlinked: false, ..older.stated() });
    let receipt: WipeReceipt = older.post("wipe-certificate", &part).await.json();
    assert!(matches!(older.proven(&receipt.receipt), Event::Withdrawn { rank: 0, .. }));
    newer.wipe().await;
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "withdrawn");

    let granted = home.grant().await;
    let (older, newer) = fenced(&home, &granted).await;
    newer.wipe().await;
    let late = older.post("wipe-certificate", &older.statement(&older.stated())).await;
    assert_eq!(late.problem(), ProblemKind::LeaseOver);
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "withdrawn");
}

/// Its words are no sign of life of the worker that has the rank now.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_worker_keeps_no_rank_alive() {
    let home = start_with(|config| (config.heartbeat_s, config.grace_s) = (1, 3)).await;
    let granted = home.grant().await;
    let (older, _silent) = fenced(&home, &granted).await;
    let statement = older.statement(&older.stated());
    eventually(async || {
        older.post("wipe-certificate", &statement).await;
        let phase = home.gateway.status(granted.lease).unwrap().phase;
        (phase == "withdrawn").then_some(())
    })
    .await;
}
