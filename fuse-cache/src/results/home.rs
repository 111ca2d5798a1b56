//! What is asked of home, and asked again until it is answered or the time is over.
//!
//! A gateway that cannot be reached, is busy, or has a store in trouble is asked again for as long as
//! the lease lives: whoever waits for his bytes to be durable waits. A refusal is an answer.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_kit::clock::boottime;
use tidegate_wire::{ProblemKind, ReadRequest};
use tokio::sync::Notify;

use crate::blocks::ReadError;
use crate::client::{Client, ClientError, Outgoing};
use crate::errno::FsError;
use crate::life::Past;

/// Pauses between two tries grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Times that a gateway may talk nonsense.
const NONSENSE: u32 = 4;
/// Times that it may say that we are not allowed to, some seconds together.
const FENCED: u32 = 8;

/// Why something did not come home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Kind(ProblemKind),
    /// The lease or the time for draining is over, or the gateway is none.
    Over,
    /// What is to be sent is nowhere any more.
    Lost,
    /// The store cannot take a part from the version at home: it must be sent.
    NoCopy,
}

impl Refusal {
    pub(super) fn errno(self) -> FsError {
        match self {
            Self::Kind(ProblemKind::OverBudget) => FsError::OverBudget,
            Self::Kind(ProblemKind::NoSpace) => FsError::NoSpace,
            Self::Kind(ProblemKind::TooLarge) => FsError::TooLarge,
            Self::Kind(ProblemKind::Absent | ProblemKind::SourceChanged) => FsError::Gone,
            Self::Kind(ProblemKind::Occupied) => FsError::Exists,
            Self::Kind(ProblemKind::NotOffered) => FsError::CrossDevice,
            Self::Kind(ProblemKind::Malformed) => FsError::Invalid,
            Self::Lost => FsError::Lost,
            Self::Kind(_) | Self::Over | Self::NoCopy => FsError::Read(ReadError::LeaseOver),
        }
    }
}

/// The way home.
pub(super) struct Home {
    client: RwLock<Arc<Client>>,
    /// What the boot clock is behind the wall clock of the first worker, microseconds: later ones go on
    /// from that, whatever was done to the wall clock.
    base: u64,
    seq: AtomicU64,
    /// On the boot clock, nanoseconds.
    until: AtomicU64,
    changed: Notify,
}

impl Home {
    /// `base` as of a worker before this one; zero: there was none.
    pub(super) fn new(client: Arc<Client>, base: u64) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let base = if base > 0 { base } else { micros(wall.saturating_sub(boottime())) };
        Self {
            client: RwLock::new(client),
            base,
            seq: AtomicU64::new(0),
            until: AtomicU64::new(u64::MAX),
            changed: Notify::new(),
        }
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with another attachment.
    pub(super) fn exchange(&self, client: Arc<Client>) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        self.changed.notify_waiters();
    }

    /// Nothing is asked after that time on the boot clock.
    pub(super) fn end_at(&self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.until.fetch_min(until, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(super) fn is_over(&self) -> bool {
        boottime() >= self.until() || self.client().ring().life().past() == Some(Past::Deadline)
    }

    pub(super) fn until(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::SeqCst))
    }

    pub(super) fn seq_base(&self) -> u64 {
        self.base
    }

    /// The next number of a request that names a path: more than any before, those of workers before
    /// this one too, by the boot clock.
    pub(super) fn next_seq(&self) -> u64 {
        let now = self.base.saturating_add(micros(boottime()));
        let next = |last: u64| (last + 1).max(now);
        let updated =
            self.seq.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |seq| Some(next(seq)));
        next(updated.unwrap_or_else(|last| last))
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        route: &'static str,
        body: &impl Serialize,
    ) -> Result<T, Refusal> {
        let body = serde_json::to_vec(body).map_err(|_| Refusal::Kind(ProblemKind::Malformed))?;
        self.send(route, &Outgoing::whole(body.into())).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        route: &'static str,
        body: &Outgoing,
    ) -> Result<T, Refusal> {
        let (mut pause, mut nonsense, mut refused) = (PAUSES.0, 0, 0);
        while !self.is_over() {
            let client = self.client();
            match self.within(client.result_body(route, body)).await {
                None => break,
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(_)) if body.is_broken() => return Err(Refusal::Lost),
                Some(Err(why)) => judge(route, &why, &mut nonsense, &mut refused)?,
            }
            self.pause(&mut pause).await;
            self.count_anew(&client, &mut refused);
        }
        Err(Refusal::Over)
    }

    /// Fills the pieces, one behind the other, with what is at home from the request's offset on.
    pub(super) async fn read(
        &self,
        asked: &ReadRequest,
        out: &mut [&mut [u8]],
    ) -> Result<(), Refusal> {
        let (mut pause, mut nonsense, mut refused) = (PAUSES.0, 0, 0);
        while !self.is_over() {
            let client = self.client();
            match self.within(client.result_bytes(asked, out)).await {
                None => break,
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) => judge("read", &why, &mut nonsense, &mut refused)?,
            }
            self.pause(&mut pause).await;
            self.count_anew(&client, &mut refused);
        }
        Err(Refusal::Over)
    }

    /// Who is back after the grace is refused as who it was until it goes on as who it is.
    fn count_anew(&self, asked: &Arc<Client>, refused: &mut u32) {
        let is_away = asked.ring().life().past() == Some(Past::Grace);
        if is_away || !Arc::ptr_eq(asked, &self.client()) {
            *refused = 0;
        }
    }

    /// `None`: the time was over first.
    async fn within<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        let mut asking = std::pin::pin!(asking);
        loop {
            let left = self.until().saturating_sub(boottime());
            let left = left.min(Duration::from_secs(3600));
            tokio::select! {
                answer = &mut asking => return Some(answer),
                () = tokio::time::sleep(left) => {
                    if self.is_over() {
                        return None;
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }

    async fn pause(&self, pause: &mut Duration) {
        let left = self.until().saturating_sub(boottime());
        tokio::select! {
            () = tokio::time::sleep((*pause).min(left)) => {}
            () = self.changed.notified() => {}
        }
        *pause = (*pause * 2).min(PAUSES.1);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `Ok`: it may be asked again.
fn judge(
    what: &'static str,
    why: &ClientError,
    nonsense: &mut u32,
    refused: &mut u32,
) -> Result<(), Refusal> {
    match why {
        // One that knows us no more may be asked as who we are next.
        ClientError::Refused(problem) if problem.kind == ProblemKind::Unauthenticated => {}
        // Whoever attached anew after the grace is fenced as who he was, until he asks as who he is now.
        ClientError::Refused(problem)
            if problem.kind == ProblemKind::Forbidden && *refused < FENCED =>
        {
            *refused += 1;
        }
        why if why.may_pass() => {}
        ClientError::Refused(problem) => return Err(Refusal::Kind(problem.kind)),
        _ => {
            *nonsense += 1;
            tracing::warn!(%why, what, "a gateway answers what it should not");
            if *nonsense >= NONSENSE {
                return Err(Refusal::Over);
            }
        }
    }
    tracing::debug!(%why, what, "not home yet");
    Ok(())
}
