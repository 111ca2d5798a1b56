//! A worker that keeps the rules: takes nothing that is late or not in the ledger, renews, drops its
//! keys when nobody answers for the grace, comes back with another attachment, and states its wipe at
//! the end. Or does not: it may also vanish, come back as another process, or go on beside its successor.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use tidegate_kit::tls::{IdentityKey, PeerIdentity};
use tidegate_ledger::{
    Discarded, Event, METHOD_OVERWRITE, Stated, StatedCounters, StatedFacts, VerifierKey,
    WipeCertificate, verify_receipt,
};
use tidegate_plan::InstanceId;
use tidegate_seal::{HpkeKeyPair, JoinSecret, attach_proof};
use tidegate_wire::{
    AttachRequest, AttachResponse, Challenge, Counters, Directive, Evidence, Heartbeat,
    HeartbeatReply, JoinFile, KeyGrant, KeyRequest, LeaseTerms, NodeFacts, Receipt, WipeReceipt,
    WipeStatement,
};

use super::executor::Host;
use super::house::{GRACE_S, HEARTBEAT_S};
use super::notes::{Accepted, Beat, Stated as Said};
use super::world::{Answer, World};
use crate::keyring::{random, rng};

/// An answer older than this is dropped.
const STALE_S: u64 = 10;
/// For how long a worker tries what it must say or have.
const PATIENCE: Duration = Duration::from_secs(150);

/// A status that never came.
const NO_ANSWER: Option<u16> = None;

/// What a worker does when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// States a complete wipe.
    Wipe,
    /// States a wipe that lacks something.
    Partly,
    Vanish,
    /// Comes back as another process.
    Restart,
    /// The same, but the old process goes on for a while.
    Overlap,
    /// Nothing passes its link for a while, perhaps for longer than the grace; then it goes on.
    Away,
}

/// Why a process stopped before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    TimeIsUp,
    /// The lease is over, or it was told to finish.
    Over,
    Fenced,
}

/// The holder of one join file.
pub(super) struct Worker {
    pub(super) world: Arc<World>,
    pub(super) name: &'static str,
    pub(super) join: JoinFile,
    pub(super) identity: IdentityKey,
}

/// What a process believes of the gateway's time and ledger.
struct Trust {
    key: VerifierKey,
    /// The gateway's clock at a time of ours.
    clock: Option<(u64, Duration)>,
    slack: Duration,
}

struct Process<'a> {
    worker: &'a Worker,
    instance: InstanceId,
    hpke: HpkeKeyPair,
    trust: Trust,
    /// The newest attachment's.
    peer: Option<Arc<PeerIdentity>>,
    terms: Option<LeaseTerms>,
    /// The attachment's keys may be used.
    attached: bool,
    /// They were destroyed at the grace.
    lapsed: bool,
    /// When a gateway was last heard.
    heard: Duration,
    /// The replica it mostly speaks to.
    home: usize,
}

impl Trust {
    /// Refuses an answer that was made more than ten seconds ago by the gateway's clock, as far as
    /// the promptest answer tells.
    fn is_fresh(&mut self, time: u64, asked: Duration, now: Duration) -> bool {
        match self.clock {
            Some((then, at)) => {
                let expected = then + (now - at).as_secs();
                if time + STALE_S < expected {
                    return false;
                }
                if time > expected {
                    self.clock = Some((time, now));
                    self.slack = now - asked;
                }
            }
            None => (self.clock, self.slack) = (Some((time, now)), now - asked),
        }
        true
    }

    fn proven(&self, receipt: &Receipt) -> Option<Event> {
        let Receipt { entry, index, proof, checkpoint } = receipt;
        verify_receipt(&self.key, entry, *index, proof, checkpoint)
            .ok()
            .map(|(entry, _)| entry.event)
    }
}

fn parsed<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).unwrap())
}

impl Worker {
    /// Lives until a random time, ends in a random way, perhaps more than once.
    pub(super) async fn live(self: Arc<Self>) {
        let mut kept = None;
        for life in 0..4 {
            let sim = &self.world.sim;
            let span = sim.span(5_000..120_000);
            let end = match sim.below(100) {
                0..=34 => End::Wipe,
                35..=39 => End::Partly,
                40..=51 => End::Vanish,
                52..=67 => End::Restart,
                68..=83 => End::Away,
                _ => End::Overlap,
            };
            let name = self.name;
            sim.note(format_args!("{name}: life {life} of {span:?}, then {end:?}"));
            if end == End::Overlap {
                let worker = Arc::clone(&self);
                sim.spawn(Host::World, async move {
                    let sim = worker.world.sim.clone();
                    let longer = sim.span(1_000..90_000);
                    let stopped = Process::new(&worker).run(sim.now() + span + longer).await;
                    sim.note(format_args!("{}: an old process ends: {stopped:?}", worker.name));
                });
                sim.sleep(span).await;
                continue;
            }
            let mut process = kept.take().unwrap_or_else(|| Process::new(&self));
            let stopped = process.run(sim.now() + span).await;
            sim.note(format_args!("{name}: {stopped:?}"));
            match (stopped, end) {
                (Stopped::Fenced, _) => return process.wipe(end != End::Partly).await,
                (Stopped::TimeIsUp, End::Vanish) => return,
                (Stopped::TimeIsUp, End::Restart) => {
                    sim.sleep(sim.span(10..5_000)).await;
                }
                (Stopped::TimeIsUp, End::Away) => {
                    sim.sleep(sim.span(5_000..120_000)).await;
                    kept = Some(process);
                }
                (Stopped::Over, End::Vanish | End::Restart) => return,
                (_, end) => return process.wipe(end != End::Partly).await,
            }
        }
    }
}

impl<'a> Process<'a> {
    fn new(worker: &'a Worker) -> Self {
        let key = VerifierKey::parse(&worker.join.ledger_key).unwrap();
        Self {
            worker,
            instance: InstanceId::from_bytes(random()),
            hpke: HpkeKeyPair::generate(&mut rng()),
            trust: Trust { key, clock: None, slack: Duration::ZERO },
            peer: None,
            terms: None,
            attached: false,
            lapsed: false,
            heard: worker.world.sim.now(),
            home: worker.world.any_replica(),
        }
    }

    fn secret(&self) -> JoinSecret {
        JoinSecret::from_slice(&self.worker.join.secret.0).unwrap()
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/leases/{}/{rest}", self.worker.join.lease)
    }

    async fn run(&mut self, until: Duration) -> Stopped {
        let world = Arc::clone(&self.worker.world);
        let sim = world.sim.clone();
        let begun = sim.now();
        let mut beat = Duration::ZERO;
        let mut refused = 0;
        while sim.now() < until {
            if !self.attached {
                match self.attach().await {
                    Ok(()) => refused = 0,
                    Err(Some(403 | 410)) => return Stopped::Fenced,
                    // Strangers are told nothing; after a while it is plain that the lease is gone.
                    Err(Some(401)) if refused > 5 => return Stopped::Over,
                    Err(status) => {
                        refused += u32::from(status == Some(401));
                        if sim.now() > begun.max(self.heard) + PATIENCE {
                            return Stopped::Over;
                        }
                        self.home = world.any_replica();
                        sim.sleep(sim.span(200..3_000)).await;
                        continue;
                    }
                }
            }
            if sim.now() > self.heard + Duration::from_secs(GRACE_S.into()) {
                // Dead man: the keys are gone, only the identity is left.
                (self.attached, self.lapsed) = (false, true);
                continue;
            }
            let status = if sim.now() >= beat {
                beat = sim.now() + Duration::from_secs(HEARTBEAT_S.into());
                match self.beat().await {
                    Ok(Directive::Continue) => Ok(()),
                    Ok(Directive::Drain | Directive::Die) => return Stopped::Over,
                    Err(status) => {
                        beat = sim.now() + Duration::from_secs(1);
                        Err(status)
                    }
                }
            } else {
                self.keys().await
            };
            match status {
                Ok(()) => {}
                Err(Some(401)) => self.attached = false,
                Err(Some(403)) => return Stopped::Fenced,
                Err(Some(410)) => return Stopped::Over,
                Err(_) => self.home = world.any_replica(),
            }
            sim.sleep(sim.span(100..4_000)).await;
        }
        Stopped::TimeIsUp
    }

    /// The replica to ask next: mostly the same.
    fn replica(&self) -> usize {
        let world = &self.worker.world;
        if world.sim.chance(15) { world.any_replica() } else { self.home }
    }

    async fn attach(&mut self) -> Result<(), Option<u16>> {
        let worker = self.worker;
        let (world, join) = (Arc::clone(&worker.world), &worker.join);
        let replica = self.replica();
        let asked = world.sim.now();
        let answer = world.ask(replica, None, "/v1/challenge", &()).await.map_err(|_| NO_ANSWER)?;
        let challenge: Challenge = parsed(&answer).ok_or(Some(answer.status))?;
        if !self.trust.is_fresh(challenge.time, asked, world.sim.now()) {
            return Err(None);
        }
        let (new, hpke) = (InstanceId::from_bytes(random()), HpkeKeyPair::generate(&mut rng()));
        let mut request = AttachRequest {
            lease: join.lease,
            token: join.token,
            nonce: challenge.nonce,
            instance: new,
            identity_key: self.worker.identity.public_key().as_slice().into(),
            hpke_key: hpke.public().into(),
            facts: NodeFacts::default().to_text(),
            evidence: Evidence::default().to_text(),
            proof: Vec::new().into(),
            signature: Vec::new().into(),
        };
        let transcript = request.transcript();
        request.proof = attach_proof(&self.secret(), &transcript).as_slice().into();
        request.signature = self.worker.identity.sign(&transcript).as_slice().into();
        let asked = world.sim.now();
        let answer =
            world.ask(replica, None, "/v1/attach", &request).await.map_err(|_| NO_ANSWER)?;
        let response: AttachResponse = parsed(&answer).ok_or(Some(answer.status))?;
        if !self.trust.is_fresh(response.time, asked, world.sim.now()) {
            world.sim.note(format_args!("{}: an old attachment is dropped", self.worker.name));
            return Err(None);
        }
        match self.trust.proven(&response.receipt) {
            Some(Event::Attached { lease, rank, instance, revision, .. })
                if (lease, rank) == (join.lease, join.rank)
                    && (instance, revision) == (new, response.revision) => {}
            _ => world.wrong("an attachment without its entry"),
        }
        world.notes().checkpoints.push(response.receipt.checkpoint);
        world.sim.note(format_args!("{}: attached at {replica}", self.worker.name));
        if std::mem::take(&mut self.lapsed) {
            world.sim.note(format_args!("{}: is back after a silence", self.worker.name));
            world.notes().returns += 1;
        }
        (self.instance, self.hpke, self.attached) = (new, hpke, true);
        self.peer = Some(Arc::new(certified(&response.certificate)));
        self.terms = Some(response.terms);
        self.heard(asked, Directive::Continue);
        Ok(())
    }

    fn heard(&mut self, asked: Duration, directive: Directive) {
        let world = &self.worker.world;
        self.heard = world.sim.now();
        let (at, slack, to) = (self.heard, self.trust.slack, self.instance);
        world.notes().beats.push(Beat { asked, at, slack, to, directive });
    }

    async fn beat(&mut self) -> Result<Directive, Option<u16>> {
        let world = Arc::clone(&self.worker.world);
        let beat = Heartbeat { instance: self.instance, counters: Counters::default() };
        let (path, asked) = (self.path("heartbeat"), world.sim.now());
        let answer = world.ask(self.replica(), self.peer.as_ref(), &path, &beat).await;
        let answer = answer.map_err(|_| NO_ANSWER)?;
        let reply: HeartbeatReply = parsed(&answer).ok_or(Some(answer.status))?;
        if !self.trust.is_fresh(reply.time, asked, world.sim.now()) {
            return Err(None);
        }
        if let Some((certificate, _)) = reply.certificate {
            self.peer = Some(Arc::new(certified(&certificate)));
        }
        self.heard(asked, reply.directive);
        Ok(reply.directive)
    }

    async fn keys(&mut self) -> Result<(), Option<u16>> {
        let world = Arc::clone(&self.worker.world);
        let Some(terms) = &self.terms else { return Err(None) };
        let (first, end) = (u64::from(terms.first_block), u64::from(terms.end_block));
        let start = first + world.sim.below(end - first);
        let stop = (start + 1 + world.sim.below(3)).min(end);
        let request = KeyRequest {
            first_block: u32::try_from(start).unwrap(),
            end_block: u32::try_from(stop).unwrap(),
        };
        let (path, asked) = (self.path("keys"), world.sim.now());
        let answer = world.ask(self.replica(), self.peer.as_ref(), &path, &request).await;
        let answer = answer.map_err(|_| NO_ANSWER)?;
        let grant: KeyGrant = parsed(&answer).ok_or(Some(answer.status))?;
        let now = world.sim.now();
        if !self.trust.is_fresh(grant.time, asked, now) {
            world.sim.note(format_args!("{}: old keys are dropped", self.worker.name));
            return Err(None);
        }
        match self.trust.proven(&grant.receipt) {
            Some(Event::KeysReleased { lease, rank, epoch, first_block, end_block, .. })
                if (lease, rank, epoch) == (grant.lease, grant.rank, grant.epoch)
                    && (first_block, end_block) == (request.first_block, request.end_block) => {}
            _ => {
                world.wrong("keys without their entry");
                return Err(None);
            }
        }
        let (secret, token) = (self.secret(), &self.worker.join.token);
        if self.hpke.open_release(&secret, token, &grant.aad(), &grant.sealed.0).is_err() {
            world.wrong("keys that their worker cannot open");
        }
        let slack = self.trust.slack;
        world.notes().checkpoints.push(grant.receipt.checkpoint);
        let accepted = Accepted { at: now, epoch: grant.epoch, time: grant.time, slack };
        world.notes().accepted.push(accepted);
        Ok(())
    }

    /// States the wipe until somebody confirms it, or nobody will.
    async fn wipe(&mut self, complete: bool) {
        let worker = self.worker;
        let (world, join) = (Arc::clone(&worker.world), &worker.join);
        let sim = &world.sim;
        if self.peer.is_none() {
            return;
        }
        let now = sim.now().as_secs();
        let stated = Stated {
            v: Stated::VERSION,
            lease: join.lease,
            rank: join.rank,
            instance: self.instance,
            time: now,
            keys_destroyed_at: now,
            unmounted: complete,
            cache_bytes: 4096,
            overwritten_bytes: 4096,
            read_back_bytes: 4096,
            mismatched_bytes: 0,
            discarded: Discarded::Done,
            unlinked: true,
            method: METHOD_OVERWRITE.to_owned(),
            page_cache_bytes_freed_without_overwrite: 0,
            counters: StatedCounters::default(),
            facts: StatedFacts::default(),
            results: None,
        };
        let text = stated.to_canonical().unwrap();
        let signature = self.worker.identity.sign(text.as_bytes()).as_slice().into();
        let statement = WipeStatement { statement: text, facts: NodeFacts::default(), signature };
        world.notes().stated.push(Said { instance: self.instance, complete });
        let (path, begun) = (self.path("wipe-certificate"), sim.now());
        while sim.now() < begun + PATIENCE {
            let answer = world.ask(self.replica(), self.peer.as_ref(), &path, &statement).await;
            match answer {
                Ok(answer) if answer.status == 200 => {
                    self.confirmed(&parsed(&answer).unwrap());
                    return;
                }
                Ok(answer) if [401, 403, 410].contains(&answer.status) => {
                    let name = self.worker.name;
                    sim.note(format_args!("{name}: the wipe is refused: {}", answer.status));
                    return;
                }
                _ => self.home = world.any_replica(),
            }
            sim.sleep(sim.span(200..4_000)).await;
        }
    }

    fn confirmed(&self, receipt: &WipeReceipt) {
        let world = &self.worker.world;
        let certificate = WipeCertificate::parse(&receipt.certificate).unwrap();
        let digest = certificate.digest().unwrap();
        match self.trust.proven(&receipt.receipt) {
            Some(Event::Wiped { certificate, .. } | Event::Withdrawn { certificate, .. })
                if certificate == digest =>
            {
                world.sim.note(format_args!("{}: the wipe is confirmed", self.worker.name));
            }
            _ => world.wrong("a wipe without its entry"),
        }
        world.notes().checkpoints.push(receipt.receipt.checkpoint.clone());
    }
}

fn certified(pem: &str) -> PeerIdentity {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    PeerIdentity::from_certificate(&der).unwrap()
}
