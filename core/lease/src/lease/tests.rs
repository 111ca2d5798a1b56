use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_plan::{LayoutId, LeaseId, SelectionId, SnapshotId};

use super::*;
use crate::record::Policy;

mod reach;
mod silence;

const START: u64 = 1_000;
const DEADLINE: u64 = 2_000;
/// The grace, and the silence after which a worker is gone.
const GRACE: u64 = 60;
const SILENCE: u64 = 150;

fn token(n: u8) -> TokenId {
    TokenId::from_bytes([n; 16])
}

fn instance(n: u8) -> InstanceId {
    InstanceId::from_bytes([n; 16])
}

fn attach(token_n: u8, identity: u8) -> Event {
    Event::Attach {
        token: token(token_n),
        identity: Identity([identity; 32]),
        instance: instance(identity),
    }
}

fn release(rank: u16, first: u32, end: u32) -> Event {
    Event::Release { rank, first, end }
}

/// Two ranks of ten blocks. Token 0 is of rank 0, tokens 1 and 2 of rank 1.
fn proposal() -> Proposal {
    Proposal {
        id: LeaseId::from_bytes([1; 16]),
        snapshot: SnapshotId::from_bytes([2; 32]),
        selection: SelectionId::from_bytes([3; 32]),
        layout: LayoutId::from_bytes([4; 32]),
        shares: vec![(0, 10), (10, 20)],
        dataset: "d".into(),
        subject: "s".into(),
        deadline: DEADLINE,
        policy: Policy { heartbeat_s: 10, grace_s: 60, silence_s: 150, window_blocks: 10 },
        key_epoch: 7,
        tokens: vec![(token(0), 0), (token(1), 1), (token(2), 1)],
    }
}

fn requested() -> Lease {
    Lease::request(proposal(), START).unwrap()
}

/// The lease after events at `START`.
fn after(events: &[Event]) -> Lease {
    events.iter().fold(requested(), |lease, event| {
        lease.apply(event.clone(), START).unwrap_or_else(|refusal| panic!("{event:?}: {refusal}"))
    })
}

fn active() -> Lease {
    after(&[Event::Grant, attach(0, 10), attach(1, 11)])
}

fn refusal(lease: &Lease, event: Event) -> Refusal {
    lease.apply(event, START).expect_err("the event was taken")
}

#[test]
fn a_release_is_no_wider_than_the_policy_says() {
    let mut proposal = proposal();
    proposal.policy.window_blocks = 4;
    let lease = Lease::request(proposal.clone(), START).unwrap();
    let lease = [Event::Grant, attach(0, 10)]
        .into_iter()
        .fold(lease, |lease, event| lease.apply(event, START).unwrap());
    assert_eq!(refusal(&lease, release(0, 0, 5)), Refusal::TooWide);
    assert_eq!(refusal(&lease, release(0, 8, 12)), Refusal::OutOfShare);
    let lease = lease.apply(release(0, 2, 6), START).unwrap();
    let lease = lease.apply(release(0, 3, 3), START).unwrap();
    assert_eq!((lease.releases(), lease.released_blocks()), (2, 4));
    proposal.policy.window_blocks = 0;
    assert!(matches!(Lease::request(proposal, START), Err(Refusal::BadTerms(_))));
}

#[test]
fn an_orderly_life() {
    let lease = active();
    assert_eq!((lease.phase, lease.granted_at), (Phase::Active, START));
    let lease = lease.apply(release(0, 0, 4), START + 1).unwrap();
    let lease = lease.apply(release(0, 4, 10), START + 2).unwrap();
    assert_eq!(lease.attachment(0).unwrap().released, [(0, 10)]);
    assert_eq!((lease.releases(), lease.released_blocks()), (2, 10));
    let lease = lease.apply(Event::Drain, START + 3).unwrap();
    assert_eq!(lease.ending, Some(Ending { cause: Cause::Drained, at: START + 3 }));
    let lease = lease.apply(release(1, 10, 20), START + 4).unwrap();
    let lease = lease.apply(Event::Wiping, START + 5).unwrap();
    let lease = lease.apply(Event::Wiped { rank: 0 }, START + 6).unwrap();
    let lease = lease.apply(Event::Wiped { rank: 1 }, START + 7).unwrap();
    assert_eq!(lease.phase, Phase::Wiping);
    let lease = lease.apply(Event::KeyDestroyed, START + 8).unwrap();
    assert_eq!(lease.phase, Phase::Closed(Outcome::Wiped));
    assert_eq!(lease.key_destroyed_at, Some(START + 8));
}

#[test]
fn the_last_wipe_of_a_job_that_just_ended_begins_the_end() {
    let lease = active().apply(Event::Wiped { rank: 1 }, START).unwrap();
    assert_eq!((lease.phase, lease.ending), (Phase::Active, None));
    let lease = lease.apply(Event::Wiped { rank: 0 }, START).unwrap();
    assert_eq!(lease.phase, Phase::Wiping);
    assert_eq!(lease.ending.unwrap().cause, Cause::Drained);
}

#[test]
fn a_revoked_lease_whose_workers_answer_is_wiped() {
    let lease = active().apply(Event::Revoke, START).unwrap();
    assert_eq!(lease.phase, Phase::Draining);
    assert!(!lease.is_serving(START));
    let lease = lease.apply(Event::Wiped { rank: 0 }, START).unwrap();
    assert_eq!(lease.phase, Phase::Draining);
    let lease = lease.apply(Event::Wiped { rank: 1 }, START).unwrap();
    assert_eq!(lease.phase, Phase::Wiping);
    let lease = lease.apply(Event::KeyDestroyed, START).unwrap();
    assert_eq!(lease.phase, Phase::Closed(Outcome::Wiped));
    assert_eq!(lease.ending.unwrap().cause, Cause::Revoked);
}

#[test]
fn the_first_cause_without_grace_stays() {
    let (drained, late) = (active().apply(Event::Drain, START).unwrap(), DEADLINE);
    for (event, cause) in [
        (Event::Abandon, Cause::Abandoned),
        (Event::Expire, Cause::Expired),
        (Event::Revoke, Cause::Revoked),
        (Event::Vanished { rank: 0 }, Cause::Vanished),
    ] {
        let lease = drained.apply(event, late).unwrap().apply(Event::Revoke, late + 1).unwrap();
        assert_eq!(lease.ending, Some(Ending { cause, at: late }));
    }
}

#[test]
fn one_silent_rank_makes_it_withdrawn() {
    let lease = active().apply(Event::Wiped { rank: 0 }, START).unwrap();
    let late = START + SILENCE + 1;
    assert_eq!(lease.due(late), Some(Event::Vanished { rank: 1 }));
    let other = Event::Vanished { rank: 0 };
    assert_eq!(lease.apply(other, late), Err(Refusal::NotDue), "it has said all there was to say");
    let lease = lease.apply(Event::Vanished { rank: 1 }, late).unwrap();
    assert_eq!((lease.phase, lease.due(late)), (Phase::Draining, None));
    assert_eq!(lease.apply(release(1, 10, 11), late), Err(Refusal::LeaseOver));
    let lease = lease.apply(Event::KeyDestroyed, late).unwrap();
    assert_eq!(lease.phase, Phase::Closed(Outcome::Withdrawn));
}

#[test]
fn a_lease_that_nobody_joined_is_withdrawn() {
    let lease = after(&[Event::Grant, Event::Revoke, Event::KeyDestroyed]);
    assert_eq!(lease.phase, Phase::Closed(Outcome::Withdrawn));
}

#[test]
fn a_fenced_worker_that_said_nothing_makes_it_withdrawn() {
    let lease =
        after(&[Event::Grant, attach(0, 10), attach(1, 11), release(1, 10, 15), attach(2, 12)]);
    assert_eq!(lease.attachment(1).unwrap().identity, Identity([12; 32]));
    let fenced = &lease.attachments[1];
    assert_eq!((fenced.released.as_slice(), fenced.fenced_at), (&[(10, 15)][..], Some(START)));
    assert_eq!(lease.released_blocks(), 5);
    assert_eq!(refusal(&lease, attach(1, 11)), Refusal::TokenBound);
    let said = lease.apply(Event::FencedWiped { rank: 1, instance: fenced.instance }, START);
    let events = [Event::Wiped { rank: 0 }, Event::Wiped { rank: 1 }, Event::KeyDestroyed];
    let lease = events.into_iter().fold(lease, |lease, event| lease.apply(event, START).unwrap());
    assert_eq!(lease.phase, Phase::Closed(Outcome::Withdrawn));

    // One that did say so is no reason against it, and gets nothing for it.
    let said = said.unwrap();
    let current = said.attachment(1).unwrap();
    assert!(!current.wiped && said.phase == Phase::Active);
    let foreign = Event::FencedWiped { rank: 1, instance: current.instance };
    assert_eq!(refusal(&said, foreign), Refusal::NotAttached);
    let events = [Event::Wiped { rank: 0 }, Event::Wiped { rank: 1 }, Event::KeyDestroyed];
    let said = events.into_iter().fold(said, |lease, event| lease.apply(event, START).unwrap());
    assert_eq!(said.phase, Phase::Closed(Outcome::Wiped));
}

#[test]
fn a_further_token_lets_another_worker_take_the_rank_over() {
    let further = |id| Event::Token { id: token(id), rank: 0 };
    let lease = active().apply(further(7), START + 1).unwrap();
    assert_eq!((lease.phase, lease.attachment(0).unwrap().token), (Phase::Active, token(0)));
    let lease = lease.apply(attach(7, 17), START + 2).unwrap();
    assert_eq!(lease.attachment(0).unwrap().identity, Identity([17; 32]));
    assert_eq!(lease.fenced_last(0).unwrap().token, token(0));
    assert_eq!(lease.fenced_last(1), None);
    assert_eq!(
        refusal(&lease, attach(0, 10)),
        Refusal::TokenBound,
        "the fenced does not come back"
    );
    assert!(matches!(refusal(&lease, further(0)), Refusal::BadTerms(_)));
    let foreign = Event::Token { id: token(9), rank: 2 };
    assert!(matches!(refusal(&lease, foreign), Refusal::BadTerms(_)));
    assert_eq!(lease.apply(further(9), DEADLINE), Err(Refusal::LeaseOver));
    let drained = lease.apply(Event::Drain, START + 3).unwrap();
    assert_eq!(refusal(&drained, further(9)), Refusal::LeaseOver);
    let wiped = active().apply(Event::Wiped { rank: 0 }, START).unwrap();
    assert_eq!(refusal(&wiped, further(9)), Refusal::RankWiped);
}

#[test]
fn what_heartbeats_are_told() {
    let lease = active();
    assert_eq!(lease.standing(START), Standing::Continue);
    assert_eq!(lease.standing(DEADLINE), Standing::Die);
    let draining = lease.apply(Event::Drain, START).unwrap();
    assert_eq!(draining.standing(START), Standing::Drain);
    assert_eq!(draining.standing(DEADLINE), Standing::Die);
    assert_eq!(draining.apply(Event::Wiping, START).unwrap().standing(START), Standing::Die);
    assert_eq!(lease.apply(Event::Revoke, START).unwrap().standing(START), Standing::Die);
}

#[test]
fn a_restarted_worker_comes_back_with_what_it_was_given() {
    let lease = active().apply(release(0, 2, 3), START).unwrap();
    let again =
        Event::Attach { token: token(0), identity: Identity([10; 32]), instance: instance(99) };
    let lease = lease.apply(again, START + 5).unwrap();
    let held = lease.attachment(0).unwrap();
    assert_eq!((held.instance, held.last_seen, held.attached_at), (instance(99), START + 5, START));
    assert_eq!(held.released, [(2, 3)]);
    assert_eq!(lease.attachments.len(), 2);
}

#[test]
fn a_former_process_does_not_come_back() {
    let as_process =
        |n| Event::Attach { token: token(0), identity: Identity([10; 32]), instance: instance(n) };
    let mut lease = active();
    for n in [50, 51, 51] {
        lease = lease.apply(as_process(n), START).unwrap();
    }
    assert_eq!(lease.attachment(0).unwrap().instance, instance(51));
    for n in [10, 50] {
        assert_eq!(refusal(&lease, as_process(n)), Refusal::Superseded);
    }
    for n in 100..=255 {
        lease = lease.apply(as_process(n), START).unwrap();
    }
    assert_eq!(lease.attachment(0).unwrap().past.len(), 32, "what is remembered is bounded");
    assert_eq!(refusal(&lease, as_process(254)), Refusal::Superseded);
}

#[test]
fn tokens() {
    let lease = active();
    assert_eq!(lease.token(&token(0)).unwrap().bound, Some(Identity([10; 32])));
    assert_eq!(refusal(&lease, attach(0, 99)), Refusal::TokenBound);
    assert_eq!(refusal(&lease, attach(77, 10)), Refusal::TokenUnknown);
    let wiped = lease.apply(Event::Wiped { rank: 0 }, START).unwrap();
    assert_eq!(refusal(&wiped, attach(0, 10)), Refusal::RankWiped);
    assert_eq!(refusal(&wiped, release(0, 0, 1)), Refusal::RankWiped);
}

#[test]
fn shares() {
    let lease = active();
    for (rank, first, end) in
        [(0, 0, 11), (0, 9, 8), (1, 9, 12), (1, 10, 21), (2, 0, 1), (0, 10, 20)]
    {
        assert_eq!(refusal(&lease, release(rank, first, end)), Refusal::OutOfShare);
    }
    // The manifest alone.
    let lease = lease.apply(release(0, 0, 0), START).unwrap();
    assert_eq!((lease.releases(), lease.released_blocks()), (1, 0));
}

#[test]
fn not_attached() {
    let granted = after(&[Event::Grant]);
    assert_eq!(refusal(&granted, release(0, 0, 1)), Refusal::NotAttached);
    assert_eq!(refusal(&granted, Event::Wiped { rank: 0 }), Refusal::NotAttached);
    let half = after(&[Event::Grant, attach(0, 10)]);
    assert_eq!(refusal(&half, release(1, 10, 11)), Refusal::NotAttached);
    assert_eq!(refusal(&half, Event::Wiped { rank: 1 }), Refusal::NotAttached);
}

#[test]
fn out_of_order() {
    let early = requested();
    for event in [
        attach(0, 1),
        release(0, 0, 1),
        Event::Drain,
        Event::Wiped { rank: 0 },
        Event::Wiping,
        Event::Vanished { rank: 0 },
        Event::KeyDestroyed,
    ] {
        assert_eq!(refusal(&early, event), Refusal::OutOfOrder(Phase::Requested));
    }
    assert_eq!(refusal(&active(), Event::Grant), Refusal::OutOfOrder(Phase::Active));
    assert_eq!(refusal(&active(), Event::Wiping), Refusal::OutOfOrder(Phase::Active));
    assert_eq!(refusal(&active(), Event::KeyDestroyed), Refusal::OutOfOrder(Phase::Active));
}

#[test]
fn not_due() {
    assert_eq!(refusal(&active(), Event::Expire), Refusal::NotDue);
    assert_eq!(refusal(&active(), Event::Vanished { rank: 0 }), Refusal::NotDue);
    let silent = START + SILENCE;
    assert_eq!(active().due(silent), None);
    assert_eq!(active().apply(Event::Vanished { rank: 0 }, silent), Err(Refusal::NotDue));
    assert_eq!(active().due(silent + 1), Some(Event::Vanished { rank: 0 }));
}

#[test]
fn lease_over() {
    let closed = after(&[Event::Grant, Event::Drain, Event::KeyDestroyed]);
    for event in [Event::Grant, attach(0, 1), Event::Revoke, Event::KeyDestroyed, Event::Drain] {
        assert_eq!(refusal(&closed, event), Refusal::LeaseOver);
    }
    let draining = active().apply(Event::Drain, START).unwrap();
    assert_eq!(refusal(&draining, attach(0, 10)), Refusal::LeaseOver);
    let late = requested();
    assert_eq!(late.apply(Event::Grant, DEADLINE), Err(Refusal::LeaseOver));
}

#[test]
fn contradicting_terms_are_refused() {
    let cases: [fn(&mut Proposal); 8] = [
        |proposal| proposal.shares.clear(),
        |proposal| proposal.shares[0].0 = 1,
        |proposal| proposal.shares[1].0 = 11,
        |proposal| proposal.shares[1].1 = 9,
        |proposal| proposal.tokens[0].1 = 2,
        |proposal| proposal.tokens[0].0 = token(1),
        |proposal| proposal.policy.grace_s = 20,
        |proposal| proposal.policy.silence_s = 59,
    ];
    for case in cases {
        let mut proposal = proposal();
        case(&mut proposal);
        assert!(matches!(Lease::request(proposal, START), Err(Refusal::BadTerms(_))));
    }
    let lease = requested();
    assert_eq!((lease.ranks, lease.blocks, lease.phase), (2, 20, Phase::Requested));
}

#[test]
fn the_deadline_holds_by_itself() {
    let lease = active();
    assert!(lease.is_serving(DEADLINE - 1));
    assert!(!lease.is_serving(DEADLINE));
    assert_eq!(lease.apply(release(0, 0, 1), DEADLINE), Err(Refusal::LeaseOver));
    assert_eq!(lease.apply(attach(0, 10), DEADLINE), Err(Refusal::LeaseOver));
    assert_eq!(lease.due(DEADLINE), Some(Event::Expire));
    let lease = lease.apply(Event::Expire, DEADLINE).unwrap();
    assert_eq!(lease.due(DEADLINE + 1), None);
    // A clock that was set back does not bring it back.
    assert_eq!(lease.apply(release(0, 0, 1), START), Err(Refusal::LeaseOver));
}

#[test]
fn an_orderly_drain_gives_way_to_a_revocation() {
    let lease = active().apply(Event::Drain, START).unwrap();
    assert!(lease.is_serving(START));
    let lease = lease.apply(Event::Revoke, START + 1).unwrap();
    assert!(!lease.is_serving(START + 1));
    assert_eq!(lease.ending, Some(Ending { cause: Cause::Revoked, at: START + 1 }));
    let lease = lease.apply(Event::Expire, DEADLINE).unwrap();
    assert_eq!(lease.ending.unwrap().cause, Cause::Revoked);
}

#[test]
fn identities_are_hex_in_the_document() {
    let lease = active();
    let text = serde_json::to_string(&lease).unwrap();
    assert!(text.contains(&"0a".repeat(32)));
    assert_eq!(serde_json::from_str::<Lease>(&text).unwrap(), lease);
    for (from, to) in
        [("0a0a", "0A0a"), ("0a0a", "0a"), ("0a0a", "0g0a"), ("\"ranks\"", "\"rank\"")]
    {
        assert!(serde_json::from_str::<Lease>(&text.replacen(from, to, 1)).is_err());
    }
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..4_u8;
    prop_oneof![
        3 => (n.clone(), n).prop_map(|(token, identity)| attach(token, identity)),
        5 => (0..3_u16, 0..22_u32, 0..22_u32).prop_map(|(rank, a, b)| release(rank, a.min(b), a.max(b))),
        1 => Just(Event::Abandon),
        1 => Just(Event::Drain),
        1 => Just(Event::Expire),
        2 => Just(Event::Grant),
        1 => Just(Event::KeyDestroyed),
        1 => Just(Event::Revoke),
        1 => (0..3_u16).prop_map(|rank| Event::Vanished { rank }),
        2 => (0..3_u16).prop_map(|rank| Event::Wiped { rank }),
        1 => Just(Event::Wiping),
    ]
}

/// How far a lease has come; it never goes back.
fn stage(phase: Phase) -> u8 {
    match phase {
        Phase::Requested => 0,
        Phase::Granted => 1,
        Phase::Active => 2,
        Phase::Draining => 3,
        Phase::Wiping => 4,
        Phase::Closed(_) => 5,
    }
}

fn blocks(lease: &Lease, identity: Identity) -> Vec<u32> {
    let held = lease.attachments.iter().filter(|held| held.identity == identity);
    held.flat_map(|held| &held.released).flat_map(|(first, end)| *first..*end).collect()
}

proptest! {
    #[test]
    fn whatever_happens(
        granted in any::<bool>(),
        events in vec((event(), 0..40_u64), 0..60),
    ) {
        let mut lease = if granted { after(&[Event::Grant, attach(0, 0)]) } else { requested() };
        let mut now = START;
        for (event, passed) in events {
            // Time may also stand still or, one time in eight, fall back.
            now = if passed % 8 == 7 { now.saturating_sub(passed) } else { now + passed };
            let before = lease.clone();
            let seen = now.max(before.changed_at);
            match before.apply(event.clone(), now) {
                Ok(next) => {
                    prop_assert!(!before.is_closed(), "a closed lease took {event:?}");
                    prop_assert!(stage(next.phase) >= stage(before.phase));
                    prop_assert_eq!(next.changed_at, seen);
                    if matches!(event, Event::Release { .. } | Event::Attach { .. }) {
                        prop_assert!(seen < DEADLINE);
                        prop_assert_eq!(before.key_destroyed_at, None);
                    }
                    lease = next;
                }
                Err(refusal) => {
                    prop_assert!(!before.is_closed() || refusal == Refusal::LeaseOver);
                }
            }
            for identity in (0..4).map(|n| Identity([n; 32])) {
                let (old, new) = (blocks(&before, identity), blocks(&lease, identity));
                prop_assert!(old.iter().all(|block| new.contains(block)), "released ranges only grow");
            }
            for held in lease.attachments.iter() {
                let share = lease.shares[usize::from(held.rank)];
                prop_assert!(held.released.iter().all(|range| range.0 >= share.0 && range.1 <= share.1));
                prop_assert!(held.released.windows(2).all(|pair| pair[0].1 < pair[1].0));
                prop_assert_eq!(lease.token(&held.token).unwrap().bound, Some(held.identity));
            }
            let mut ranks: Vec<u16> = lease.attachments.iter().filter(|held| held.is_current()).map(|held| held.rank).collect();
            ranks.sort_unstable();
            prop_assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "one worker a rank");
            if let Phase::Closed(outcome) = lease.phase {
                prop_assert!(lease.key_destroyed_at.is_some());
                let seen_all = !lease.attachments.is_empty() && lease.attachments.iter().all(|held| held.wiped);
                prop_assert_eq!(outcome == Outcome::Wiped, seen_all);
            }
            // What is due can be applied, and is then no longer due.
            let due = lease.due(now);
            prop_assert!(seen < DEADLINE || due.is_some() || !lease.is_serving(now) );
            if let Some(due) = due {
                let next = lease.apply(due, now).unwrap();
                prop_assert_eq!(next.due(now), None);
                prop_assert!(!next.is_serving(now));
            }
            let document = serde_json::to_string(&lease).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Lease>(&document).unwrap(), &lease);
        }
    }
}
