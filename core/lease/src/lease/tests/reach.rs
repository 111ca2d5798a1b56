//! Every state that a small lease can come to, and every event in each of them.
//!
//! Random sequences seldom meet a corner twice; here all of them are walked, breadth first, with
//! states that were seen before left out.

use std::collections::BTreeSet;

use super::*;

/// Events in a row: enough to grant, attach all, release, fence, wipe and close.
const DEPTH: usize = 8;

/// Two ranks of one block each, rank 1 with two tokens.
fn small() -> Lease {
    let proposal = Proposal { shares: vec![(0, 1), (1, 2)], ..proposal() };
    Lease::request(proposal, START).unwrap()
}

fn events() -> Vec<Event> {
    vec![
        Event::Grant,
        attach(0, 10),
        attach(0, 99),
        attach(1, 11),
        attach(2, 12),
        release(0, 0, 1),
        release(1, 1, 2),
        release(1, 0, 1),
        Event::Drain,
        Event::Expire,
        Event::Revoke,
        Event::Vanished { rank: 0 },
        Event::Vanished { rank: 1 },
        Event::Wiping,
        fenced_wiped(),
        Event::Wiped { rank: 0 },
        Event::Wiped { rank: 1 },
        Event::KeyDestroyed,
    ]
}

/// Of the only worker that can be fenced here.
fn fenced_wiped() -> Event {
    let Event::Attach { instance, .. } = attach(1, 11) else { unreachable!() };
    Event::FencedWiped { rank: 1, instance }
}

/// When an event comes: at once, unless it takes time to come about.
fn moment(event: &Event, lease: &Lease) -> u64 {
    let least = match event {
        Event::Vanished { .. } => START + SILENCE + 1,
        Event::Expire => DEADLINE,
        _ => START,
    };
    least.max(lease.changed_at)
}

/// How much a worker may still do; it only shrinks.
fn freedom(lease: &Lease, now: u64) -> u8 {
    match lease.standing(now) {
        Standing::Continue => 2,
        Standing::Drain => 1,
        Standing::Die => 0,
    }
}

fn check_step(before: &Lease, event: &Event, now: u64, after: &Lease) {
    let what = || format!("{event:?} at {now} from {before:?}");
    assert!(!before.is_closed(), "{}", what());
    assert!(stage(after.phase) >= stage(before.phase), "{}", what());
    assert!(freedom(after, now) <= freedom(before, before.changed_at), "{}", what());
    let may_give = before.phase != Phase::Requested && freedom(before, now) > 0;
    match event {
        Event::Attach { .. } => assert!(freedom(before, now) == 2 && now < DEADLINE, "{}", what()),
        Event::Release { rank, .. } => {
            assert!(may_give && now < DEADLINE, "{}", what());
            let held = before.attachment(*rank).unwrap();
            assert!(!held.wiped, "{}", what());
        }
        Event::KeyDestroyed => assert!(!before.is_serving(now) || before.ending.is_some()),
        _ => assert_eq!(after.releases(), before.releases(), "{}", what()),
    }
    // Who was fenced or has wiped stays so, with what it was given.
    for held in &before.attachments {
        let later = after.attachments.iter().find(|later| later.token == held.token).unwrap();
        assert!(later.wiped >= held.wiped && later.fenced_at >= held.fenced_at, "{}", what());
        assert!(later.releases >= held.releases, "{}", what());
    }
}

fn check_state(lease: &Lease) {
    let current: Vec<u16> =
        lease.attachments.iter().filter(|held| held.is_current()).map(|held| held.rank).collect();
    assert_eq!(current.iter().collect::<BTreeSet<_>>().len(), current.len(), "{lease:?}");
    for held in &lease.attachments {
        let (first, end) = lease.shares[usize::from(held.rank)];
        assert!(held.released.iter().all(|range| range.0 >= first && range.1 <= end), "{lease:?}");
    }
    if let Phase::Closed(outcome) = lease.phase {
        let all = !lease.attachments.is_empty() && lease.attachments.iter().all(|held| held.wiped);
        assert_eq!(outcome == Outcome::Wiped, all, "{lease:?}");
        assert!(lease.key_destroyed_at.is_some() && lease.ending.is_some(), "{lease:?}");
    }
}

#[test]
fn every_state_of_a_small_lease() {
    let mut seen = BTreeSet::new();
    let mut reached = vec![small()];
    let (mut states, mut closed) = (0_usize, 0_usize);
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for lease in &reached {
            for event in events() {
                let now = moment(&event, lease);
                let Ok(mut after) = lease.apply(event.clone(), now) else { continue };
                check_step(lease, &event, now, &after);
                check_state(&after);
                // How often the same was released makes no other state.
                for held in &mut after.attachments {
                    held.releases = held.releases.min(1);
                }
                if seen.insert(serde_json::to_string(&after).unwrap()) {
                    states += 1;
                    closed += usize::from(after.is_closed());
                    if !after.is_closed() {
                        next.push(after);
                    }
                }
            }
        }
        reached = next;
    }
    assert!(states > 1_000 && closed > 100, "{states} states, {closed} closed");
}
