//! What the ledger says of those who run the gateway, of its keys, and of a restore.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_gateway::{Gateway, GatewayConfig, Restore, RestoreError};
use tidegate_kit::clock::now_unix;
use tidegate_kit::ledger_log::read_document;
use tidegate_ledger::{Action, Event};
use tidegate_plan::LeaseId;

use crate::admin::{ask, start};
use crate::worker::{Home, Worker, entries, eventually};

/// Acts in the ledger: what, on which lease, by whom.
async fn acts(home: &Home) -> Vec<(Action, Option<LeaseId>, String)> {
    let documents = home.state().join("ledger/documents");
    let events = home.events().await.into_iter();
    let acts = events.filter_map(|event| match event {
        Event::Admin { action, lease, subject } => {
            let said = read_document(&documents, &subject).unwrap().unwrap();
            Some((action, lease, said))
        }
        _ => None,
    });
    acts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_of_an_administrator_is_an_entry_with_its_subject() {
    let home = start().await;
    let data = home.dir.path().join("data");
    let grant = json!({ "source": data, "duration_s": 60, "subject": "ada", "dataset": "cars" });
    let (_, granted) = ask(&home, "POST", "/v1/admin/leases", grant).await;
    let lease: LeaseId = granted["lease"].as_str().unwrap().parse().unwrap();
    let path = format!("/v1/admin/leases/{lease}");
    for act in ["drain", "revoke"] {
        let (status, _) = ask(&home, "POST", &format!("{path}/{act}"), Value::Null).await;
        assert_eq!(status, 200);
    }
    let me = format!("uid {}, admin socket", rustix::process::getuid().as_raw());
    let lease = Some(lease);
    assert_eq!(
        acts(&home).await,
        [(Action::Drain, lease, me.clone()), (Action::Revoke, lease, me.clone())]
    );
    let documents = home.state().join("ledger/documents");
    let said = |commitment: &_| read_document(&documents, commitment).unwrap().unwrap();
    let granted = home.events().await.into_iter().find_map(|event| match event {
        Event::LeaseGranted { subject, selected, key_epoch, .. } => {
            Some((said(&subject), said(&selected.unwrap()), key_epoch))
        }
        _ => None,
    });
    let (subject, selected, epoch) = granted.unwrap();
    assert_eq!(subject, format!("ada, asked for by {me}"));
    assert!(selected.contains("\"dataset\":\"cars\""), "{selected}");
    assert!(epoch.is_some());
}

/// With an epoch of two seconds: its key dies after it, once no lease is open under it.
#[tokio::test(flavor = "multi_thread")]
async fn an_epochs_key_is_destroyed_after_its_last_lease() {
    let home = Home::start_with(|config| config.key_epoch_s = 2).await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let epochs = home.state().join("keyring/epochs");
    let keys = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    // Another epoch passes whole; the lease holds its own.
    let begun = now_unix();
    eventually(async || (now_unix() >= begun + 4).then_some(())).await;
    assert_eq!(keys(&epochs), 1);
    worker.wipe().await;
    let destroyed = async || {
        let events = home.events().await;
        let of = |event: &Event| match event {
            Event::EpochDestroyed { epoch } => Some(*epoch),
            _ => None,
        };
        events.iter().find_map(of).map(|epoch| (epoch, events))
    };
    let (epoch, events) = eventually(destroyed).await;
    let of = |event: &Event| match event {
        Event::LeaseGranted { key_epoch, .. } => *key_epoch,
        _ => None,
    };
    assert_eq!(events.iter().find_map(of), Some(epoch));
    assert_eq!(keys(&epochs), 0);
}

/// Who counts periods in another length would take one that is in use for past, and destroy its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_other_periods_does_not_start() {
    let home = Home::start_with(|config| config.embedded = false).await;
    home.grant().await;
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);
    let start = async |seconds| {
        Gateway::start(Home::config(dir.path(), |config| config.key_epoch_s = seconds)).await
    };
    let refused = start(3600).await.unwrap_err().to_string();
    assert!(refused.contains("Set it to 604800"), "{refused}");
    let epochs = dir.path().join("state/keyring/epochs");
    assert_eq!(epochs.read_dir().unwrap().count(), 1, "its key is there");
    start(604_800).await.unwrap().shutdown().await;
}

/// A gateway dies after it destroyed an epoch's key and before the entry: the next one writes it.
#[tokio::test(flavor = "multi_thread")]
async fn an_epochs_entry_outlives_the_gateway_that_owes_it() {
    let daemon = |config: &mut GatewayConfig| {
        config.embedded = false;
        config.key_epoch_s = 2;
    };
    let home = Home::start_with(daemon).await;
    let granted = home.grant().await;
    let epochs = home.state().join("keyring/epochs");
    let keys = || std::fs::read_dir(&epochs).unwrap().count();
    let begun = now_unix();
    eventually(async || (now_unix() >= begun + 4).then_some(())).await;
    let mend = crate::order::break_ledger(&home);
    assert!(home.gateway.close(granted.lease).await.is_err());
    assert_eq!(keys(), 0, "the key is gone, and nothing says so");
    let Home { dir, gateway } = home;
    drop(gateway); // No shutdown: as a killed process leaves it.
    mend();
    let gateway = Gateway::start(Home::config(dir.path(), daemon)).await.unwrap();
    let home = Home { dir, gateway };
    let written = async || {
        let events = home.events().await;
        events.iter().any(|event| matches!(event, Event::EpochDestroyed { .. })).then_some(())
    };
    eventually(written).await;
}

/// State set back to before a lease was closed, and what a restore makes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_voids_what_was_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    crate::worker::tree(&dir.path().join("data"));
    let root = dir.path().to_owned();
    let config = || {
        Home::config(&root, |config| {
            config.embedded = false;
            config.checkpoint_copy = Some(root.join("copy"));
        })
    };
    let gateway = Gateway::start(config()).await.unwrap();
    let home = Home { dir, gateway };
    let (one, two) = (home.grant().await, home.grant().await);
    Worker::attached(&home, &one.joins[0]).await.keys(0, 1).await;
    assert!(matches!(Restore::look(config()).await, Err(RestoreError::Start(_))), "it runs");
    let state = home.state();
    let Home { dir, gateway } = home;
    gateway.shutdown().await;
    drop(gateway);

    let batches = state.join("ledger/batches");
    let mut names: Vec<_> = batches.read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    std::fs::remove_file(names.pop().unwrap()).unwrap();
    // Of the second lease only its key is left.
    std::fs::remove_dir_all(state.join("leases").join(two.lease.to_string())).unwrap();
    let refused = Gateway::start(config()).await.unwrap_err();
    assert!(format!("{:?}", anyhow::Error::from(refused)).contains("gateway restore"));

    let restore = Restore::look(config()).await.unwrap();
    let known = restore.after().known.clone().unwrap();
    assert_eq!(known.size, restore.after().found.size + 1);
    assert_eq!(restore.open_leases(), 2);
    let restored = restore.carry_out("an officer").await.unwrap();
    assert_eq!((restored.withdrawn, restored.voided), (1, 1));
    assert_eq!(state.join("keyring/leases").read_dir().unwrap().count(), 0);

    let home = Home { gateway: Gateway::start(config()).await.unwrap(), dir };
    let events: Vec<_> =
        entries(&state.join("ledger/2")).await.into_iter().map(|entry| entry.event).collect();
    assert!(matches!(&events[0], Event::LedgerOpened { after: Some(after), .. }
        if after.known.as_ref() == Some(&known)));
    assert!(matches!(events[1], Event::Admin { action: Action::Restore, lease: None, .. }));
    let closed =
        |event: &Event| matches!(event, Event::LeaseClosed { lease, .. } if *lease == one.lease);
    assert!(events.iter().any(closed), "{events:?}");
    let void = |event: &Event| matches!(event, Event::Admin { action: Action::Void, lease, .. } if *lease == Some(two.lease));
    assert!(events.iter().any(void), "{events:?}");
    for join in [&one.joins[0], &two.joins[0]] {
        Worker::new(&home, join).attach().await.unwrap_err();
    }
    let three = home.grant().await;
    Worker::attached(&home, &three.joins[0]).await.wipe().await;
}
