//! How long a worker may be silent.

use super::*;

#[test]
fn signs_of_life() {
    let mut lease = active();
    lease.note_seen(0, instance(10), START + 50).unwrap();
    lease.note_seen(0, instance(10), START + 40).unwrap();
    assert_eq!(lease.attachment(0).unwrap().last_seen, START + 50);
    assert_eq!(lease.due(START + SILENCE + 1), Some(Event::Vanished { rank: 1 }));
    lease.note_seen(1, instance(11), START + 50).unwrap();
    assert_eq!(lease.due(START + SILENCE + 1), None);
    assert_eq!(lease.note_seen(1, instance(99), START + 60), Err(Refusal::NotAttached));
    assert_eq!(lease.note_seen(7, instance(11), START + 60), Err(Refusal::NotAttached));
    let events = [Event::Revoke, Event::KeyDestroyed];
    let events = events.into_iter();
    let mut closed = events.fold(lease, |lease, event| lease.apply(event, START + 50).unwrap());
    assert_eq!(closed.note_seen(1, instance(11), START + 60), Err(Refusal::LeaseOver));
}

/// A worker whose link was cut for longer than its grace comes back to its lease, as another process.
#[test]
fn past_the_grace_a_worker_may_come_back_until_it_is_gone() {
    let late = START + 2 * GRACE;
    let back = |at| Event::Attach {
        token: token(1),
        identity: Identity([11; 32]),
        instance: instance(at),
    };
    let lease = active().apply(release(1, 10, 15), START).unwrap();
    assert_eq!(lease.due(late), None);
    let lease = lease.apply(back(77), late).unwrap();
    let held = lease.attachment(1).unwrap();
    assert_eq!((held.instance, held.last_seen), (instance(77), late));
    assert_eq!(held.released, [(10, 15)], "what it once had is still of the history");
    assert_eq!(lease.apply(release(1, 10, 11), late).unwrap().phase, Phase::Active);
    let last = START + SILENCE + 1;
    let lease = active().apply(back(77), last).unwrap();
    let vanished = |rank| Event::Vanished { rank };
    assert_eq!(lease.apply(vanished(1), last), Err(Refusal::NotDue), "whoever else is silent");
    assert_eq!(lease.due(last), Some(vanished(0)));
    let gone = active().apply(vanished(1), last).unwrap();
    assert_eq!(gone.apply(back(77), last + 1), Err(Refusal::LeaseOver));
}

/// A document that does not say how long a silence may be.
#[test]
fn without_a_silence_of_its_own_it_is_the_grace() {
    let mut document = serde_json::to_value(active()).unwrap();
    document["policy"].as_object_mut().unwrap().remove("silence_s").unwrap();
    let lease: Lease = serde_json::from_value(document).unwrap();
    assert_eq!(lease.due(START + GRACE), None);
    assert_eq!(lease.due(START + GRACE + 1), Some(Event::Vanished { rank: 0 }));
}
