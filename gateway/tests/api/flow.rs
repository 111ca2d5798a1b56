//! The whole road of one worker, over real TLS on loopback.

use crate::worker::{Home, Worker};
use tidegate_ledger::{Event, Outcome, WipeCertificate};
use tidegate_plan::{Manifest, sealed_len};
use tidegate_seal::{Context, Kind, open_message};
use tidegate_wire::{AttachResponse, Directive, ProblemKind};

/// Opens the share's manifest from what the gateway sent.
async fn manifest(
    worker: &Worker,
    terms: &tidegate_wire::LeaseTerms,
    release: &tidegate_seal::Release,
) -> Vec<u8> {
    let answer = worker.get("manifest").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.len() as u64, sealed_len(terms.manifest_len));
    let context = Context {
        kind: Kind::Manifest,
        lease: terms.lease,
        layout: terms.layout,
        number: 0,
        count: 1,
    };
    let plain = open_message(&release.manifest_key, &context, &answer.body).unwrap();
    assert_eq!(plain.len() as u64, terms.manifest_len);
    plain.to_vec()
}

/// Reads one whole file through manifest, keys and blocks.
async fn read_file(
    worker: &Worker,
    terms: &tidegate_wire::LeaseTerms,
    release: &tidegate_seal::Release,
    manifest: &Manifest<Vec<u8>>,
    path: &str,
) -> Vec<u8> {
    let record = path.split('/').fold(0, |dir, name| {
        manifest.lookup(dir, name.as_bytes()).unwrap_or_else(|| panic!("{path}: no {name}"))
    });
    let mut out = Vec::new();
    while let Some(piece) = manifest.locate(record, out.len() as u64) {
        let answer = worker.get(&format!("blocks/{}", piece.block)).await;
        assert_eq!(answer.status, 200);
        let plain_len = manifest.block(piece.block).unwrap().plain_len;
        assert_eq!(answer.body.len() as u64, sealed_len(plain_len.into()));
        let context = Context {
            kind: Kind::Block,
            lease: terms.lease,
            layout: terms.layout,
            number: piece.block.into(),
            count: terms.blocks.into(),
        };
        let key = release.cover.leaf(piece.block).unwrap();
        let plain = open_message(&key, &context, &answer.body).unwrap();
        let at = piece.at as usize;
        out.extend_from_slice(&plain[at..at + piece.len as usize]);
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_keys_manifest_blocks_heartbeat_wipe() {
    let home = Home::start().await;
    let granted = home.grant().await;
    assert_eq!(granted.terms.files, 42);
    let mut worker = Worker::new(&home, &granted.joins[0]);

    let AttachResponse { terms, receipt, revision, certificate_expires, time, .. } =
        worker.attach().await.unwrap();
    assert_eq!((terms.lease, terms.rank, terms.ranks), (granted.lease, 0, 1));
    assert_eq!((terms.first_block, terms.end_block), (0, terms.blocks));
    assert!(terms.blocks > 2 && terms.files == 42);
    assert!(certificate_expires > time && certificate_expires <= time + 900);
    match worker.proven(&receipt) {
        Event::Attached { lease, rank, identity, revision: recorded, .. } => {
            assert_eq!((lease, rank, recorded), (granted.lease, 0, revision));
            assert_eq!(*identity.as_bytes(), worker.identity.public_key());
        }
        other => panic!("{other:?}"),
    }

    let (grant, release) = worker.keys(0, terms.blocks).await;
    assert_eq!((grant.epoch, grant.first_block, grant.end_block), (1, 0, terms.blocks));
    assert_eq!(release.cover.range(), 0..terms.blocks);
    match worker.proven(&grant.receipt) {
        Event::KeysReleased { lease, rank, epoch, first_block, end_block, bytes } => {
            assert_eq!((lease, rank, epoch), (granted.lease, 0, 1));
            assert_eq!((first_block, end_block), (0, terms.blocks));
            assert!(bytes >= terms.bytes);
        }
        other => panic!("{other:?}"),
    }
    let plain = manifest(&worker, &terms, &release).await;
    let manifest = Manifest::parse(plain).unwrap();
    for path in ["a/b/large", "a/b/empty", "a/small-00", "a/small-39", "a/small-17"] {
        let expected = std::fs::read(home.dir.path().join("data").join(path)).unwrap();
        assert!(read_file(&worker, &terms, &release, &manifest, path).await == expected, "{path}");
    }
    let (second, window) = worker.keys(1, 2).await;
    assert_eq!((second.epoch, window.cover.range()), (2, 1..2));

    let beat = worker.beat().await;
    assert_eq!((beat.directive, beat.deadline), (Directive::Continue, terms.deadline));
    assert!(beat.certificate.is_none(), "the certificate is fresh");
    let status = home.gateway.status(granted.lease).unwrap();
    assert_eq!((status.phase.as_str(), status.releases), ("active", 2));
    assert!(status.sent_bytes > 9_000_000);
    assert_eq!(status.workers[0].counters.blocks_fetched, 3);

    let wrapped = home.state().join("keyring/leases").join(granted.lease.to_string());
    assert!(wrapped.exists());
    let receipt = worker.wipe().await;
    assert!(!wrapped.exists(), "the wrapped key is gone");
    let certificate = WipeCertificate::parse(&receipt.certificate).unwrap();
    assert_eq!(certificate.stated.as_ref(), Some(&worker.stated()));
    let observed = &certificate.observed;
    assert_eq!(observed.outcome, Outcome::Wiped);
    assert_eq!((observed.releases, observed.released.as_slice()), (2, &[(0, terms.blocks)][..]));
    assert_eq!(observed.wrapped_key_absent, Some(true));
    assert!(observed.lease_key_destroyed_at.is_some());
    assert_eq!(observed.sent_bytes, Some(status.sent_bytes));
    match worker.proven(&receipt.receipt) {
        Event::Wiped { certificate: digest, .. } => {
            assert_eq!(digest, certificate.digest().unwrap());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(worker.wipe().await, receipt, "a lost answer can be asked for again");

    let closed = home.gateway.close(granted.lease).await.unwrap();
    assert_eq!(closed.outcome, Outcome::Wiped);
    assert_eq!(closed.certificates, [receipt.certificate]);
    let kinds: Vec<_> = home.events().await.iter().map(kind).collect();
    assert_eq!(
        kinds,
        ["opened", "snapshot", "granted", "attached", "keys", "keys", "wiped", "closed"]
    );
    home.gateway.shutdown().await;
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::LedgerOpened { .. } => "opened",
        Event::SnapshotTaken { .. } => "snapshot",
        Event::LeaseGranted { .. } => "granted",
        Event::Attached { .. } => "attached",
        Event::KeysReleased { .. } => "keys",
        Event::Wiped { .. } => "wiped",
        Event::Withdrawn { .. } => "withdrawn",
        Event::LeaseClosed { .. } => "closed",
        Event::Refused { .. } => "refused",
        _ => "other",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_nothing_leaves_a_withdrawn_lease() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 2).await;
    let closed = home.gateway.close(granted.lease).await.unwrap();
    assert_eq!(closed.outcome, Outcome::Withdrawn);
    assert!(closed.released_bytes > 0);
    let certificate = WipeCertificate::parse(&closed.certificates[0]).unwrap();
    assert_eq!(certificate.observed.outcome, Outcome::Withdrawn);
    assert_eq!(certificate.observed.released, [(0, 2)]);
    assert!(certificate.stated.is_none());
    match home.events().await.last() {
        Some(Event::LeaseClosed { outcome, released_blocks, absence_confirmed, .. }) => {
            assert_eq!((*outcome, *released_blocks), (Outcome::Withdrawn, 2));
            assert!(absence_confirmed);
        }
        other => panic!("{other:?}"),
    }
    let again = home.gateway.close(granted.lease).await.unwrap();
    assert_eq!(again.certificates, closed.certificates);
    assert_eq!(home.events().await.iter().map(kind).filter(|k| *k == "closed").count(), 1);
    // Its words come too late, and however often it says them they make no entry.
    let entries = async || {
        let events = home.events().await;
        events.iter().map(kind).filter(|kind| *kind != "refused").count()
    };
    let before = entries().await;
    for time in 0..3 {
        let mut stated = worker.stated();
        stated.time += time;
        let answer = worker.post("wipe-certificate", &worker.statement(&stated)).await;
        assert_eq!(answer.problem(), ProblemKind::LeaseOver);
    }
    assert_eq!(entries().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_wipe_is_certified_as_no_more_than_that() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let mut stated = worker.stated();
    stated.read_back_bytes = 0;
    let answer = worker.post("wipe-certificate", &worker.statement(&stated)).await;
    let receipt: tidegate_wire::WipeReceipt = answer.json();
    let certificate = WipeCertificate::parse(&receipt.certificate).unwrap();
    assert_eq!(certificate.observed.outcome, Outcome::Withdrawn);
    assert_eq!(certificate.stated, Some(stated));
    let closed = home.gateway.close(granted.lease).await.unwrap();
    assert_eq!(closed.outcome, Outcome::Withdrawn);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_closed_one_by_one_and_the_key_goes_with_the_last() {
    let home = Home::start().await;
    let granted = home.grant_ranks(2).await;
    let first = Worker::attached(&home, &granted.joins[0]).await;
    let second = Worker::attached(&home, &granted.joins[1]).await;
    let wrapped = home.state().join("keyring/leases").join(granted.lease.to_string());
    let receipt = first.wipe().await;
    assert!(wrapped.exists());
    let certificate = WipeCertificate::parse(&receipt.certificate).unwrap();
    assert_eq!(certificate.observed.lease_key_destroyed_at, None);
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "active");
    assert_eq!(second.beat().await.directive, Directive::Continue);
    second.wipe().await;
    assert!(!wrapped.exists());
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "wiped");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_rank_of_eight_keeps_the_shares_of_eight() {
    let home = Home::start().await;
    let request = tidegate_gateway::GrantRequest { ranks: 8, only_rank: Some(3), ..home.request() };
    let granted = home.gateway.grant(request).await.unwrap();
    assert_eq!(granted.joins.len(), 1);
    assert_eq!(granted.joins[0].rank, 3);
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    assert_eq!((terms.rank, terms.ranks), (3, 8));
    assert_eq!(terms.bytes, granted.terms.bytes);
    assert!(granted.whole.bytes > granted.terms.bytes);
    worker.wipe().await;
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "wiped");
}
