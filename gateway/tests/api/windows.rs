//! Keys by window: how much one release hands out, what is written of it, and what a revocation
//! leaves unopened.

use tidegate_ledger::{Event, WipeCertificate};
use tidegate_plan::LeaseId;
use tidegate_seal::{Context, Kind, open_message};
use tidegate_wire::ProblemKind;

use crate::worker::{Home, Worker};

/// One block a release, four blocks and more in the lease.
async fn start() -> Home {
    let home = Home::start_with(|config| config.limits.window = 4 << 20).await;
    std::fs::write(home.dir.path().join("data/a/more"), vec![7; 9 << 20]).unwrap();
    home
}

/// First block, end and bytes of every release, in order.
async fn released(home: &Home, lease: LeaseId) -> Vec<(u32, u32, u64)> {
    let events = home.events().await.into_iter();
    let released = events.filter_map(|event| match event {
        Event::KeysReleased { lease: of, first_block, end_block, bytes, .. } if of == lease => {
            Some((first_block, end_block, bytes))
        }
        _ => None,
    });
    released.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_a_window_and_an_entry() {
    let home = start().await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    assert!((terms.window_blocks, terms.blocks > 4) == (1, true), "{terms:?}");
    for (first, end) in [(0, 2), (0, terms.blocks), (terms.blocks - 2, terms.blocks)] {
        let answer = worker.ask_keys(first, end).await;
        assert_eq!((answer.status, answer.problem()), (403, ProblemKind::Forbidden));
    }
    let refused = home.events().await.into_iter().filter_map(|event| match event {
        Event::Refused { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), ["window-too-wide"]);
    assert!(released(&home, granted.lease).await.is_empty());

    let (mut whole, mut asked) = (0, Vec::new());
    for first in [0, 2, 1, 0] {
        let (grant, release) = worker.keys(first, first + 1).await;
        assert_eq!(release.cover.range(), first..first + 1);
        match worker.proven(&grant.receipt) {
            Event::KeysReleased { epoch, first_block, end_block, bytes, .. } => {
                assert_eq!((epoch, first_block, end_block), (grant.epoch, first, first + 1));
                assert!(bytes <= 4 << 20);
                whole += bytes;
                asked.push((first_block, end_block, bytes));
            }
            other => panic!("{other:?}"),
        }
    }
    // The manifest's key alone.
    let (grant, release) = worker.keys(0, 0).await;
    assert_eq!((grant.epoch, release.cover.nodes()), (5, 0));
    asked.push((0, 0, 0));
    assert_eq!(released(&home, granted.lease).await, asked, "asked twice, recorded twice");
    let status = home.gateway.status(granted.lease).unwrap();
    assert_eq!(status.releases, 5);
    assert!(status.released_bytes < whole, "a window that was asked for twice counts once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_released_stays_shut_after_a_revocation() {
    let home = start().await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    // Sealed bytes may run ahead of their keys.
    let mut sealed = Vec::new();
    for block in 0..terms.blocks {
        sealed.push(worker.get(&format!("blocks/{block}")).await.body);
    }
    let covers = [worker.keys(0, 1).await.1.cover, worker.keys(1, 2).await.1.cover];
    home.gateway.revoke(granted.lease).await.unwrap();
    for block in 0..terms.blocks {
        let answer = worker.ask_keys(block, block + 1).await;
        assert_eq!(answer.problem(), ProblemKind::LeaseOver);
    }
    for (block, bytes) in (0..terms.blocks).zip(&sealed) {
        let place = Context {
            kind: Kind::Block,
            lease: terms.lease,
            layout: terms.layout,
            number: block.into(),
            count: terms.blocks.into(),
        };
        let keys = covers.iter().flat_map(|cover| cover.leaves()).map(|(_, key)| key);
        let opened = keys.filter(|key| open_message(key, &place, bytes).is_ok()).count();
        assert_eq!(opened, usize::from(block < 2), "block {block}");
    }
    let receipt = worker.wipe().await;
    let observed = WipeCertificate::parse(&receipt.certificate).unwrap().observed;
    assert_eq!((observed.releases, observed.released.as_slice()), (2, &[(0, 2)][..]));
    let entries = released(&home, granted.lease).await;
    assert_eq!(
        entries.iter().map(|entry| (entry.0, entry.1)).collect::<Vec<_>>(),
        [(0, 1), (1, 2)]
    );
    assert_eq!(observed.released_bytes, entries.iter().map(|entry| entry.2).sum::<u64>());
    let closed = home.events().await.into_iter().find_map(|event| match event {
        Event::LeaseClosed { released_blocks, .. } => Some(released_blocks),
        _ => None,
    });
    assert_eq!(closed, Some(2));
}
