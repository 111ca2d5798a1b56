//! The world around the replicas: their processes, the network to them, and what is noted of both.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::BodyExt as _;
use tidegate_kit::tls::PeerIdentity;
use tidegate_wire::KeyGrant;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use super::executor::{Host, HostClock, Sim};
use super::house::{House, Replica};
use super::notes::{Handed, Notes};
use super::planted::Planted;
use super::store::{Bucket, Lie, Reached};
use crate::admission::Caller;

pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) house: Arc<House>,
    pub(super) bucket: Arc<Bucket>,
    /// Seconds by which each replica's clock is ahead.
    pub(super) ahead: Vec<Arc<AtomicI64>>,
    planted: Option<Planted>,
    up: Mutex<Vec<Option<Arc<Replica>>>>,
    notes: Mutex<Notes>,
}

/// One answer of a replica.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// No answer came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreached;

impl World {
    pub(super) fn new(
        sim: Sim,
        house: Arc<House>,
        replicas: usize,
        planted: Option<Planted>,
    ) -> Arc<Self> {
        let lie = match planted {
            Some(Planted::TakenIsSuccess) => Some(Lie::TakenIsSuccess),
            Some(Planted::AnsweredEarly) => Some(Lie::AnsweredEarly),
            _ => None,
        };
        Arc::new(Self {
            bucket: Bucket::new(sim.clone(), lie),
            sim,
            house,
            ahead: (0..replicas).map(|_| Arc::default()).collect(),
            planted,
            up: Mutex::new((0..replicas).map(|_| None).collect()),
            notes: Mutex::default(),
        })
    }

    pub(super) fn replicas(&self) -> usize {
        self.ahead.len()
    }

    pub(super) fn any_replica(&self) -> usize {
        usize::try_from(self.sim.below(self.replicas() as u64)).unwrap_or_default()
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.sim.remark(format_args!("WRONG: {what}"));
        self.notes().wrong.push(what);
    }

    /// A replica that is up.
    pub(super) fn up(&self, number: usize) -> Option<Arc<Replica>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)[number].clone()
    }

    fn set_up(&self, number: usize, replica: Option<Arc<Replica>>) {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)[number] = replica;
    }

    /// Starts a replica's process, which tries until it is up.
    pub(super) fn start(self: &Arc<Self>, number: usize) {
        let world = Arc::clone(self);
        self.sim.spawn(Host::Replica(number), async move {
            loop {
                let reached = Reached { bucket: Arc::clone(&world.bucket), sim: world.sim.clone() };
                let clock =
                    HostClock { sim: world.sim.clone(), ahead: Arc::clone(&world.ahead[number]) };
                let opened =
                    Replica::open(&world.house, reached, clock, number, world.planted).await;
                match opened {
                    Ok(replica) => {
                        world.sim.note(format_args!("replica {number} is up"));
                        world.set_up(number, Some(Arc::clone(&replica)));
                        let mut time = 0;
                        let watch = |replica: &Replica| world.watch(number, replica, &mut time);
                        replica.keep(&world.sim, watch).await;
                    }
                    Err(error) => {
                        world.sim.note(format_args!("replica {number} does not start"));
                        world.sim.remark(format_args!("{error:#}"));
                    }
                }
                world.sim.sleep(Duration::from_secs(2)).await;
            }
        });
    }

    /// Ends a replica's process at whatever it does.
    pub(super) fn kill(&self, number: usize) {
        self.sim.note(format_args!("replica {number} is killed"));
        self.set_up(number, None);
        self.sim.kill(Host::Replica(number));
    }

    /// What must hold of a replica at any time.
    fn watch(&self, number: usize, replica: &Replica, time: &mut u64) {
        let now = replica.office.now();
        if now < *time {
            self.wrong(format!("the time of replica {number} went back from {time} to {now}"));
        }
        *time = now;
        self.notes().checkpoints.push(replica.office.record.checkpoint());
    }

    /// One request over the link. The answer may be lost, late, or made for nobody.
    pub(super) async fn ask<T: serde::Serialize>(
        self: &Arc<Self>,
        number: usize,
        peer: Option<&Arc<PeerIdentity>>,
        path: &str,
        body: &T,
    ) -> Result<Answer, Unreached> {
        self.sim.sleep(self.way()).await;
        let replica = self.up(number).ok_or(Unreached)?;
        let body = Body::from(serde_json::to_vec(body).unwrap());
        let mut request = Request::post(path).body(body).unwrap();
        request.extensions_mut().insert(Caller(peer.cloned()));
        let (answer, answered) = oneshot::channel();
        let world = Arc::clone(self);
        let peer = peer.cloned();
        let task = self.sim.spawn(Host::Replica(number), async move {
            let Ok(response) = replica.router.clone().oneshot(request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            if let Some(peer) = peer {
                world.note_keys(number, &peer, status, &body);
            }
            let _ = answer.send(Answer { status, body });
        });
        let patience = Box::pin(self.sim.sleep(self.sim.span(5_000..30_000)));
        let answer = match select(answered, patience).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) => return Err(Unreached),
            Either::Right(_) => {
                // A closed connection ends the request, if the gateway gets to see it.
                if self.sim.chance(50) {
                    self.sim.stop(task);
                }
                return Err(Unreached);
            }
        };
        self.sim.sleep(self.way()).await;
        if self.sim.chance(2) { Err(Unreached) } else { Ok(answer) }
    }

    fn note_keys(&self, replica: usize, peer: &PeerIdentity, status: u16, body: &[u8]) {
        if status != 200 {
            return;
        }
        if let Ok(grant) = serde_json::from_slice::<KeyGrant>(body) {
            let at = self.sim.now();
            self.sim.note(format_args!(
                "replica {replica} hands out release {} to rank {}",
                grant.epoch, peer.rank
            ));
            self.notes().handed.push(Handed { at, replica, to: peer.instance, grant });
        }
    }

    /// One way over the link: 20 ms, seldom far more.
    fn way(&self) -> Duration {
        match self.sim.below(100) {
            0 => self.sim.span(1_000..20_000),
            _ => self.sim.span(20..30),
        }
    }
}
