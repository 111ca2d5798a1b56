//! One run: a lease, its workers, an administrator, and whatever befalls the replicas meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_kit::tls::IdentityKey;
use tidegate_lease::{Event as LeaseEvent, JoinToken};
use tidegate_plan::{LeaseId, TokenId};
use tidegate_wire::JoinFile;
use tokio::sync::oneshot;

use super::executor::{Host, Sim};
use super::house::House;
use super::oracle::judge;
use super::planted::Planted;
use super::worker::Worker;
use super::world::World;
use crate::book::Document;
use crate::closing::{cut_off, drain, finish};
use crate::granting::grant;
use crate::keyring::random;
use crate::recovery::find_any;

/// How a run came out.
pub(super) struct Outcome {
    pub(super) wrong: Vec<String>,
    pub(super) trace: String,
    pub(super) digest: blake3::Hash,
    /// Releases that left a gateway.
    pub(super) releases: u64,
    /// Workers that came back after their grace.
    pub(super) returns: u64,
}

impl Outcome {
    /// Of a run that ended in a panic, whose message was printed.
    pub(super) fn panic() -> Self {
        let wrong = vec!["it panics".to_owned()];
        let digest = blake3::hash(b"");
        Self { wrong, trace: String::new(), digest, releases: 0, returns: 0 }
    }
}

/// A house with the keys that every run finds, so that each takes the same steps.
pub(super) fn house() -> Arc<House> {
    let house = House::build();
    run(0, &house, None);
    house
}

/// Runs one seed.
pub(super) fn run(seed: u64, house: &Arc<House>, planted: Option<Planted>) -> Outcome {
    let sim = Sim::new(seed);
    let replicas = if sim.chance(70) { 2 } else { 3 };
    let world = World::new(sim.clone(), Arc::clone(house), replicas, planted);
    let steady = sim.chance(60);
    let ran = sim.run(story(Arc::clone(&world), steady));
    let mut wrong = world.notes().wrong.clone();
    if let Err(stuck) = ran {
        wrong.push(format!("the run does not end: {stuck:?}"));
    }
    let notes = world.notes();
    let (releases, returns) = (notes.handed.len() as u64, notes.returns);
    Outcome { wrong, trace: sim.trace(160), digest: sim.digest(), releases, returns }
}

async fn story(world: Arc<World>, steady: bool) {
    let sim = &world.sim;
    for number in 0..world.replicas() {
        world.start(number);
    }
    let duration = sim.span(100_000..400_000);
    let (lease, joins) = granted(&world, duration).await;
    let names = ["rank 0", "rank 1", "usurper"];
    for (name, join) in names.into_iter().zip(joins.clone()) {
        let worker =
            Worker { world: Arc::clone(&world), name, join, identity: IdentityKey::generate() };
        let late = if name == "usurper" {
            if sim.chance(60) {
                continue;
            }
            sim.span(10_000..100_000)
        } else {
            sim.span(0..5_000)
        };
        let sim = sim.clone();
        world.sim.spawn(Host::World, async move {
            sim.sleep(late).await;
            Arc::new(worker).live().await;
        });
    }
    let others = Arc::clone(&world);
    sim.spawn(Host::World, async move { administrate(&others, lease).await });
    let quiet = sim.span(60_000..200_000);
    trouble(&world, quiet, steady).await;
    // From here on all is well, so all must come to its end.
    let limit = sim.now() + duration + Duration::from_secs(400);
    while !ended(&world, lease) {
        if sim.now() > limit {
            world.wrong("the lease does not come to its end");
            break;
        }
        sim.sleep(Duration::from_secs(1)).await;
    }
    // What was late may still come.
    sim.sleep(Duration::from_secs(130)).await;
    let wrong = judge(&world, &joins[0].ledger_key, steady).await;
    world.notes().wrong = wrong;
}

/// Grants a lease in peace, and gives rank 1 a second token.
async fn granted(world: &Arc<World>, duration: Duration) -> (LeaseId, Vec<JoinFile>) {
    let replica = loop {
        if let Some(replica) = world.up(0) {
            break replica;
        }
        let late = world.sim.now() > Duration::from_secs(300);
        assert!(!late, "no replica starts:\n{}", world.sim.trace(20));
        world.sim.sleep(Duration::from_millis(100)).await;
    };
    let request = world.house.request(duration);
    let (done, granted) = oneshot::channel();
    world.sim.spawn(Host::Replica(0), async move {
        let office = &replica.office;
        let granted = grant(office, request).await.unwrap();
        let live = office.find(granted.lease).unwrap();
        let token = TokenId::from_bytes(random());
        let _turn = live.turn.lock().await;
        office
            .advance(&live, |document| {
                document.lease.tokens.push(JoinToken { id: token, rank: 1, bound: None });
                Ok(())
            })
            .await
            .unwrap();
        let secret = office.keyring.with(live.id, |key| key.join_secret(&token).expose().to_vec());
        let mut joins = granted.joins;
        joins.push(JoinFile { token, secret: secret.unwrap().into(), ..joins[1].clone() });
        let _ = done.send((granted.lease, joins));
    });
    granted.await.unwrap()
}

/// Ends the lease by hand, or not.
async fn administrate(world: &Arc<World>, lease: LeaseId) {
    let sim = &world.sim;
    let deed = sim.below(100);
    sim.sleep(sim.span(10_000..250_000)).await;
    for _ in 0..20 {
        let number = world.any_replica();
        if let Some(replica) = world.up(number) {
            let note = sim.clone();
            sim.spawn(Host::Replica(number), async move {
                let office = &replica.office;
                let Ok(Some(live)) = find_any(office, lease).await else { return };
                let done = match deed {
                    0..=19 => drain(office, &live).await.is_ok(),
                    20..=39 => cut_off(office, &live, LeaseEvent::Revoke).await.is_ok(),
                    40..=54 => {
                        let _turn = live.turn.lock().await;
                        finish(office, &live, LeaseEvent::Revoke, office.now()).await.is_ok()
                    }
                    _ => true,
                };
                note.note(format_args!("administrator: deed {deed} at {number}: {done}"));
            });
            return;
        }
        sim.sleep(Duration::from_secs(3)).await;
    }
}

/// Kills, pauses, cuts off and confuses the replicas for `span`; everything is well when it returns.
async fn trouble(world: &Arc<World>, span: Duration, steady: bool) {
    let sim = &world.sim;
    let end = sim.now() + span;
    let trouble = match sim.below(4) {
        0 => 0,
        1 => 2,
        2 => 10,
        _ => 30,
    };
    world.bucket.set_weather(|weather| weather.trouble = trouble);
    while sim.now() < end {
        sim.sleep(sim.span(500..15_000)).await;
        let number = world.any_replica();
        match sim.below(100) {
            0..=29 => {
                world.kill(number);
                let again = Arc::clone(world);
                sim.spawn(Host::World, async move {
                    again.sim.sleep(again.sim.span(10..20_000)).await;
                    again.start(number);
                });
                // Not killed again before it was started again.
                sim.sleep(Duration::from_secs(21)).await;
            }
            30..=69 => {
                let span =
                    if sim.chance(60) { sim.span(100..12_000) } else { sim.span(12_000..90_000) };
                sim.note(format_args!("replica {number} is paused for {span:?}"));
                sim.pause(Host::Replica(number), span);
            }
            70..=84 => {
                let span = sim.span(500..25_000);
                sim.note(format_args!("the bucket is away for {span:?}"));
                world.bucket.set_weather(|weather| weather.away = true);
                sim.sleep(span).await;
                world.bucket.set_weather(|weather| weather.away = false);
            }
            _ if steady => {}
            _ => {
                let ahead = i64::try_from(sim.below(60)).unwrap_or_default() - 30;
                sim.note(format_args!("the clock of replica {number} is {ahead} s ahead"));
                world.ahead[number].store(ahead, Ordering::SeqCst);
            }
        }
    }
    world.bucket.set_weather(|weather| weather.trouble = 0);
    for ahead in &world.ahead {
        ahead.store(0, Ordering::SeqCst);
    }
    sim.note(format_args!("quiet"));
}

/// Closed, and nothing owed.
fn ended(world: &World, lease: LeaseId) -> bool {
    let newest = world.bucket.newest(&format!("leases/{lease}/"));
    let Some(bytes) = newest.and_then(|effect| effect.bytes) else { return false };
    let start = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let document: Document = serde_json::from_slice(&bytes[start..]).unwrap();
    document.lease.is_closed() && !crate::owed::owes(&document)
}
