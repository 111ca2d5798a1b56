//! Recorded before released, and what a gateway makes of what it finds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_gateway::source::SourceSpec;
use tidegate_gateway::{
    Gateway, GatewayConfig, GrantError, GrantRequest, Inadmissible, StartError,
};
use tidegate_kit::clock::now_unix;
use tidegate_kit::ledger_log::read_batches;
use tidegate_ledger::{Cause, Event, Ledger, Outcome, SigningKey, WipeCertificate, batch_name};
use tidegate_plan::{InstanceId, LeaseId};
use tidegate_wire::{Directive, HeartbeatReply, ProblemKind};

use crate::worker::{Home, Worker, entries, eventually, random, tree};

/// Puts a file where the ledger's batches lie, so that none can be written.
pub(crate) fn break_ledger(home: &Home) -> impl FnOnce() + use<> {
    let batches = home.state().join("ledger/batches");
    let aside = home.state().join("ledger/aside");
    std::fs::rename(&batches, &aside).unwrap();
    std::fs::write(&batches, b"").unwrap();
    move || {
        std::fs::remove_file(&batches).unwrap();
        std::fs::rename(&aside, &batches).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entry_no_key() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let mend = break_ledger(&home);
    let answer = worker.ask_keys(0, 1).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.problem(), ProblemKind::Unavailable);
    assert!(!String::from_utf8_lossy(&answer.body).contains("sealed"));
    let mut second = Worker::new(&home, &granted.joins[0]);
    second.identity = worker.identity.clone();
    assert_eq!(second.attach().await, Err(ProblemKind::Unavailable));
    assert!(matches!(home.gateway.grant(home.request()).await, Err(GrantError::Record(_))));
    mend();
    let leases = std::fs::read_dir(home.state().join("keyring/leases")).unwrap();
    assert_eq!(leases.count(), 1, "the grant that was not recorded left no key");
    second.attach().await.unwrap();
    let (grant, _) = second.keys(0, 1).await;
    assert!(matches!(second.proven(&grant.receipt), Event::KeysReleased { .. }));
}

/// Whoever asked for a lease may go away at any moment: it is made whole and closed, or never was.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_nobody_waits_for_is_known_and_withdrawn() {
    for waited in [0, 1, 2, 4, 8, 16, 32, 64] {
        let home = Home::start().await;
        let asked = home.gateway.grant(home.request());
        let given_up = tokio::time::timeout(Duration::from_millis(waited), asked).await;
        home.gateway.shutdown().await;
        for left in ["keyring/leases", "open"] {
            let names = std::fs::read_dir(home.state().join(left)).into_iter().flatten();
            assert_eq!(names.count(), 0, "{left} after {waited} ms, {:?}", given_up.is_ok());
        }
        let events = home.events().await;
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|e| wanted(e)).count();
        let granted = count(|event| matches!(event, Event::LeaseGranted { .. }));
        assert_eq!(granted, count(|event| matches!(event, Event::LeaseClosed { .. })));
    }
}

/// A source must not take the gateway's own keys along.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_holds_the_state_is_refused() {
    let home = Home::start_with(|config| config.sources.allow = vec!["/".into()]).await;
    for source in [home.dir.path().to_owned(), home.state(), home.state().join("keyring")] {
        let source = SourceSpec::Directory(source);
        let refused = home.gateway.grant(GrantRequest { source, ..home.request() }).await;
        assert!(
            matches!(refused, Err(GrantError::Inadmissible(Inadmissible::Own(_)))),
            "{refused:?}"
        );
    }
}

/// Keeps the second revision of the next lease from being written, until its key is destroyed. The
/// lease, unless the gateway was faster.
fn block_second_revision(state: &Path, granting: &AtomicBool) -> Option<LeaseId> {
    let leases = || std::fs::read_dir(state.join("leases")).into_iter().flatten().flatten();
    let known: Vec<_> = leases().map(|entry| entry.file_name()).collect();
    let waits_for = |what: &dyn Fn() -> bool| {
        while !what() {
            if !granting.load(Ordering::SeqCst) {
                return None;
            }
            std::hint::spin_loop();
        }
        Some(())
    };
    let new = || leases().map(|entry| entry.file_name()).find(|name| !known.contains(name));
    waits_for(&|| new().is_some())?;
    let lease = new()?.into_string().ok()?;
    let second = state.join("leases").join(&lease).join("00000002");
    std::fs::create_dir(&second).ok()?;
    let key = state.join("keyring/leases").join(&lease);
    let seen = waits_for(&|| key.exists()).and_then(|()| waits_for(&|| !key.exists()));
    std::fs::remove_dir(&second).ok()?;
    seen.and_then(|()| lease.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_breaks_off_after_its_entry_is_closed_in_the_ledger() {
    let home = Home::start().await;
    for _ in 0..100 {
        let granting = Arc::new(AtomicBool::new(true));
        let (state, seen) = (home.state(), Arc::clone(&granting));
        let blocking = tokio::task::spawn_blocking(move || block_second_revision(&state, &seen));
        let granted = home.gateway.grant(home.request()).await;
        granting.store(false, Ordering::SeqCst);
        let blocked = blocking.await.unwrap();
        let (Err(GrantError::Advance(_)), Some(lease)) = (granted, blocked) else { continue };
        if !home.state().join(format!("leases/{lease}/00000002")).is_file() {
            continue; // The closing revision met the block as well: the next start closes it.
        }
        let granted =
            |event: &Event| matches!(event, Event::LeaseGranted { lease: of, .. } if *of == lease);
        assert!(home.events().await.iter().any(granted), "its entry is in the ledger");
        assert_eq!(cause(&home, lease).await, Some(Cause::Abandoned));
        return;
    }
    panic!("no grant broke off between its entry and its revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_state_no_service() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let leases = home.state().join("leases");
    let aside = home.state().join("aside");
    std::fs::rename(&leases, &aside).unwrap();
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::Unavailable);
    std::fs::remove_dir_all(&leases).ok();
    std::fs::rename(&aside, &leases).unwrap();
    worker.keys(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_worker_is_told_to_die_and_may_still_say_it_wiped() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 1).await;
    assert!(home.gateway.revoke(granted.lease).await.unwrap().is_none());
    let wrapped = home.state().join("keyring/leases").join(granted.lease.to_string());
    assert!(!wrapped.exists(), "the key goes at once");
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::LeaseOver);
    assert_eq!(worker.get("blocks/0").await.problem(), ProblemKind::LeaseOver);
    assert_eq!(worker.beat().await.directive, Directive::Die);
    let receipt = worker.wipe().await;
    let certificate = WipeCertificate::parse(&receipt.certificate).unwrap();
    assert_eq!(certificate.observed.outcome, Outcome::Wiped);
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "wiped");
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Revoked));
}

/// Why the ledger says that a lease ended; the entry follows the closing revision.
async fn cause(home: &Home, ended: LeaseId) -> Option<Cause> {
    eventually(async || {
        home.events().await.into_iter().find_map(|event| match event {
            Event::LeaseClosed { lease, cause, .. } if lease == ended => Some(cause),
            _ => None,
        })
    })
    .await
}

/// Waits until the lease has ended; the reaper looks every second.
async fn ended(home: &Home, lease: LeaseId) -> String {
    eventually(async || {
        let phase = home.gateway.status(lease).unwrap().phase;
        ["wiped", "withdrawn"].contains(&phase.as_str()).then_some(phase)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_withdraws_a_lease() {
    let home = Home::start_with(|config| (config.heartbeat_s, config.grace_s) = (1, 3)).await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 2).await;
    assert_eq!(ended(&home, granted.lease).await, "withdrawn");
    let closed = home.gateway.close(granted.lease).await.unwrap();
    let certificate = WipeCertificate::parse(&closed.certificates[0]).unwrap();
    assert_eq!(certificate.observed.released, [(0, 2)]);
    assert_eq!(certificate.observed.wrapped_key_absent, Some(true));
    assert_eq!(worker.heartbeat().await.problem(), ProblemKind::LeaseOver);
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Vanished));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_lease() {
    let home = Home::start_with(|config| (config.heartbeat_s, config.grace_s) = (1, 3)).await;
    let request = GrantRequest { duration: Duration::from_secs(1), ..home.request() };
    let granted = home.gateway.grant(request).await.unwrap();
    assert_eq!(ended(&home, granted.lease).await, "withdrawn");
    let mut worker = Worker::new(&home, &granted.joins[0]);
    assert_eq!(worker.attach().await, Err(ProblemKind::Unauthenticated));
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_process_that_died_is_withdrawn_by_the_next() {
    let Home { dir, gateway } = Home::start().await;
    let home = Home { dir, gateway };
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 1).await;
    let Home { dir, gateway } = home;
    drop(gateway); // No shutdown: as a killed process leaves it.
    let state = dir.path().join("state");
    let wrapped = state.join("keyring/leases").join(granted.lease.to_string());
    assert!(wrapped.exists());
    let next = Gateway::start(Home::config(dir.path(), |_| {})).await.unwrap();
    assert!(!wrapped.exists());
    let closing = entries(&state).await.pop().unwrap().event;
    match closing {
        Event::LeaseClosed { lease, outcome, cause, sent_bytes, released_blocks, .. } => {
            assert_eq!((lease, outcome), (granted.lease, Outcome::Withdrawn));
            assert_eq!(cause, Some(Cause::Abandoned));
            assert_eq!((sent_bytes, released_blocks), (None, 1), "the upper bound stands");
        }
        other => panic!("{other:?}"),
    }
    next.shutdown().await;
    let marks = std::fs::read_dir(state.join("gateways")).unwrap().count();
    assert_eq!(marks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemons_lease_goes_on_after_a_restart() {
    let home = Home::start_with(|config| config.embedded = false).await;
    let granted = home.grant().await;
    let mut worker = Worker::attached(&home, &granted.joins[0]).await;
    let (_, before) = worker.keys(0, 1).await;
    let config = Home::config(home.dir.path(), |config| config.embedded = false);
    let second = Gateway::start(config.clone()).await;
    assert!(matches!(second, Err(StartError::Recovery(_))), "one daemon a state directory");
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    let gateway = Gateway::start(config).await.unwrap();
    let home = Home { dir, gateway };
    worker.addr = home.gateway.addr();
    let (grant, after) = worker.keys(0, 1).await;
    assert_eq!(grant.epoch, 2);
    let key = |release: &tidegate_seal::Release| *release.cover.leaf(0).unwrap().expose();
    assert_eq!(key(&before), key(&after));
    assert_eq!(worker.get("blocks/0").await.status, 200);
    let receipt = worker.wipe().await;
    let certificate = WipeCertificate::parse(&receipt.certificate).unwrap();
    assert_eq!(certificate.observed.sent_bytes, None, "its count died with the first process");
    assert_eq!(certificate.observed.outcome, Outcome::Wiped);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_have_bounds() {
    let home = Home::start_with(|config| {
        config.limits.leases = 1;
        config.limits.lease_s = 7200;
    })
    .await;
    let base = || home.request();
    let long = GrantRequest { duration: Duration::from_secs(7201), ..base() };
    assert!(matches!(home.gateway.grant(long).await, Err(GrantError::Duration { max: 7200 })));
    let rank = GrantRequest { only_rank: Some(1), ..base() };
    assert!(matches!(home.gateway.grant(rank).await, Err(GrantError::NoSuchRank { .. })));

    // A link inside what is allowed leads out of it.
    let outside = tempfile::tempdir().unwrap();
    tree(outside.path());
    let link = home.dir.path().join("data/out");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    for path in [outside.path(), link.as_path()] {
        let source = tidegate_gateway::source::SourceSpec::Directory(path.to_owned());
        let refused = home.gateway.grant(GrantRequest { source, ..base() }).await;
        assert!(matches!(refused, Err(GrantError::Inadmissible(_))), "{}", path.display());
    }
    home.grant().await;
    assert!(matches!(home.gateway.grant(base()).await, Err(GrantError::TooMany(1))));
    let keys = std::fs::read_dir(home.state().join("keyring/leases")).unwrap();
    assert_eq!(keys.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_whose_entry_cannot_be_written_is_asked_for_again() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let mend = break_ledger(&home);
    let statement = worker.statement(&worker.stated());
    let answer = worker.post("wipe-certificate", &statement).await;
    assert_eq!(answer.problem(), ProblemKind::Unavailable);
    let wrapped = home.state().join("keyring/leases").join(granted.lease.to_string());
    assert!(!wrapped.exists(), "the keys are gone all the same");
    mend();
    let receipt = worker.wipe().await;
    assert!(matches!(worker.proven(&receipt.receipt), Event::Wiped { .. }));
    let closed = home.gateway.close(granted.lease).await.unwrap();
    assert_eq!((closed.outcome, &closed.certificates[0]), (Outcome::Wiped, &receipt.certificate));
    let closings = home.events().await.into_iter();
    assert!(closings.filter(|event| matches!(event, Event::LeaseClosed { .. })).count() >= 1);
    // Another statement does not replace the first.
    let other = tidegate_ledger::Stated { cache_bytes: 0, ..worker.stated() };
    let answer = worker.post("wipe-certificate", &worker.statement(&other)).await;
    assert_eq!(answer.problem(), ProblemKind::LeaseOver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_reads_on_until_it_wipes() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    home.gateway.drain(granted.lease).await.unwrap();
    assert_eq!(worker.beat().await.directive, Directive::Drain);
    worker.keys(0, 1).await;
    assert_eq!(worker.get("blocks/0").await.status, 200);
    let mut late = Worker::new(&home, &granted.joins[0]);
    late.identity = worker.identity.clone();
    assert_eq!(late.attach().await, Err(ProblemKind::LeaseOver), "nobody joins any more");
    worker.wipe().await;
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "wiped");
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Drained));
}

/// A worker that beats on and never says that it wiped is waited for so long and no longer; over a
/// restart of the gateway too. The part of the other, which said so, stays what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_states_its_wipe_holds_nothing_open() {
    let daemon = |config: &mut GatewayConfig| {
        config.embedded = false;
        (config.heartbeat_s, config.grace_s, config.wipe_s) = (1, 3, 8);
    };
    let home = Home::start_with(daemon).await;
    let granted = home.grant_ranks(2).await;
    let said = Worker::attached(&home, &granted.joins[0]).await;
    let mut silent = Worker::attached(&home, &granted.joins[1]).await;
    assert!(home.gateway.revoke(granted.lease).await.unwrap().is_none());
    let revoked = now_unix();
    said.wipe().await;
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    let home =
        Home { gateway: Gateway::start(Home::config(dir.path(), daemon)).await.unwrap(), dir };
    silent.addr = home.gateway.addr();
    eventually(async || {
        let answer = silent.heartbeat().await;
        if answer.status == 200 {
            assert_eq!(answer.json::<HeartbeatReply>().directive, Directive::Die);
            return None;
        }
        assert_eq!(answer.problem(), ProblemKind::LeaseOver);
        Some(())
    })
    .await;
    assert!(now_unix() >= revoked + 8, "closed while it may still have wiped");
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "withdrawn");
    let closed = home.gateway.close(granted.lease).await.unwrap();
    let seen =
        closed.certificates.iter().map(|text| WipeCertificate::parse(text).unwrap().observed);
    let seen: Vec<_> = seen.map(|observed| (observed.outcome, observed.waited_s)).collect();
    assert_eq!(seen, [(Outcome::Wiped, None), (Outcome::Withdrawn, Some(8))]);
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Revoked));
}

/// A drained worker may read on until the lease's deadline, and not past it.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_with_the_leases_deadline() {
    let home = Home::start_with(|config| {
        (config.heartbeat_s, config.grace_s, config.wipe_s) = (1, 3, 3);
    })
    .await;
    let request = GrantRequest { duration: Duration::from_secs(8), ..home.request() };
    let granted = home.gateway.grant(request).await.unwrap();
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    home.gateway.drain(granted.lease).await.unwrap();
    worker.keys(0, 1).await;
    let wrapped = home.state().join("keyring/leases").join(granted.lease.to_string());
    eventually(async || {
        worker.heartbeat().await;
        (!wrapped.exists()).then_some(())
    })
    .await;
    assert!(now_unix() >= granted.deadline);
    assert_eq!(worker.ask_keys(0, 1).await.problem(), ProblemKind::LeaseOver);
    eventually(async || {
        let answer = worker.heartbeat().await;
        (answer.status != 200).then(|| assert_eq!(answer.problem(), ProblemKind::LeaseOver))
    })
    .await;
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "withdrawn");
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_leads_out_of_what_is_allowed_ends_its_leases() {
    let home = Home::start_with(|config| config.embedded = false).await;
    let below = home.dir.path().join("data/a");
    let request = GrantRequest {
        source: tidegate_gateway::source::SourceSpec::Directory(below.clone()),
        selection: tidegate_plan::SelectionSpec::default(),
        ..home.request()
    };
    let granted = home.gateway.grant(request).await.unwrap();
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    let outside = tempfile::tempdir().unwrap();
    let moved = outside.path().join("moved");
    std::fs::rename(&below, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &below).unwrap();
    let config = Home::config(dir.path(), |config| config.embedded = false);
    let home = Home { gateway: Gateway::start(config).await.unwrap(), dir };
    assert_eq!(cause(&home, granted.lease).await, Some(Cause::Abandoned));
    let mut worker = Worker::new(&home, &granted.joins[0]);
    assert_eq!(worker.attach().await, Err(ProblemKind::Unauthenticated));
}

/// Appends an entry that is dated ahead, as a gateway does whose clock is fast.
fn write_ahead(state: &Path, seconds: u64) {
    let key = SigningKey::parse(&std::fs::read_to_string(state.join("ledger.key")).unwrap());
    let (key, batches) = (key.unwrap(), state.join("ledger/batches"));
    let ledger = Ledger::replay(read_batches(&batches).unwrap(), key.verifier()).unwrap();
    let event = Event::Refused { lease: None, reason: "fenced".to_owned(), count: 1 };
    let (time, writer) = (now_unix() + seconds, InstanceId::from_bytes(random()));
    let batch = ledger.propose([event], time, writer, &key).unwrap();
    std::fs::write(batches.join(batch_name(batch.first)), batch.to_bytes().unwrap()).unwrap();
}

/// Gateway time stands still until the clock has caught up; certificates live by it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_an_hour_fast_locks_nobody_out() {
    let Home { dir, gateway } = Home::start().await;
    gateway.shutdown().await;
    drop(gateway);
    write_ahead(&dir.path().join("state"), 3600);
    let gateway = Gateway::start(Home::config(dir.path(), |_| {})).await.unwrap();
    let home = Home { dir, gateway };
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    worker.keys(0, 1).await;
    assert_eq!(worker.beat().await.directive, Directive::Continue);
    worker.wipe().await;
    assert_eq!(home.gateway.status(granted.lease).unwrap().phase, "wiped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_ends_its_lease_and_not_the_gateway() {
    let home = Home::start_with(|config| config.embedded = false).await;
    let (lost, kept) = (home.grant().await, home.grant().await);
    let mut worker = Worker::attached(&home, &kept.joins[0]).await;
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    let wrapped = dir.path().join("state/keyring/leases").join(lost.lease.to_string());
    let mut bytes = std::fs::read(&wrapped).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&wrapped, bytes).unwrap();
    let config = Home::config(dir.path(), |config| config.embedded = false);
    let home = Home { gateway: Gateway::start(config).await.unwrap(), dir };
    worker.addr = home.gateway.addr();
    worker.keys(0, 1).await;
    assert_eq!(home.gateway.status(lost.lease).unwrap().phase, "withdrawn");
    let withdrawn = home.events().await.into_iter().any(|event| {
        matches!(event, Event::LeaseClosed { lease, outcome: Outcome::Withdrawn, .. } if lease == lost.lease)
    });
    assert!(withdrawn);
}
