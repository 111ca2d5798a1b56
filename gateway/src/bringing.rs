//! Results that a worker brings home: admitted, counted, stored, written down, answered.
//!
//! A step at home and its entry are made in a task of their own: a caller who leaves changes nothing about
//! it. Whatever was done and not answered may be asked for again.

mod changes;
mod files;
mod home;
mod reads;
mod tidy;
mod uploads;

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_lease::Refusal as LeaseRefusal;
use tidegate_ledger::{Digest, ListedResult, ResultsAct};
use tidegate_plan::LeaseId;
use tidegate_seal::ResultsKey;
use tidegate_wire::{ProblemKind, ResultsTerms};
use tracing::Instrument as _;

pub(crate) use changes::change;
pub(crate) use files::{commit, store};
pub use home::HomeRefused;
pub(crate) use home::{Asked, begin as begin_home, prepare, terms_document};
pub(crate) use reads::{list, read};
pub(crate) use tidy::tidy;
pub(crate) use uploads::{abandon, begin, copy, part};

use crate::admission::{Admitted, Purpose, over, refuse, refused};
use crate::book::Document;
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::problem::Refusal;
use crate::refusals::Reason;
use crate::results::{Desk, HomeError, Kept, Room, Share, Standing, Turn, checked, is_reserved};
use crate::serving::dormant;
use crate::source::SourceSpec;

/// What one request works with.
#[derive(Clone)]
pub(crate) struct Bringing {
    pub(crate) office: Arc<Office>,
    pub(crate) admitted: Admitted,
    pub(crate) desk: Arc<Desk>,
}

/// What a worker must know to bring results home.
pub(crate) fn terms(office: &Office, live: &Live, document: &Document) -> Option<ResultsTerms> {
    let part = document.results.as_ref()?;
    let key = office
        .keyring
        .with(live.id, |key| tidegate_seal::results_public_key(&key.results_key()))?;
    let held = live.desk.get().map_or_else(Share::default, |desk| desk.purse.held());
    let left = part.most().less(part.reserved());
    Some(ResultsTerms {
        public_key: key.into(),
        resume: part.resume,
        bytes: left.bytes + held.bytes,
        files: left.files + held.files,
        drain_s: part.drain_s,
        directories: part.has_directories(),
    })
}

/// The desk of an admitted worker's lease; its home is opened when it is first asked for.
pub(crate) async fn desk(office: &Arc<Office>, admitted: Admitted) -> Result<Bringing, Refusal> {
    let live = Arc::clone(&admitted.live);
    let document = live.view().document;
    let Some(part) = &document.results else {
        let detail = "the lease brings no results home";
        return Err(Refusal::new(ProblemKind::Forbidden, detail));
    };
    let opened =
        live.desk.get_or_try_init(async || home::open_begun(office, &live, &document, part).await);
    match opened.await {
        Ok(desk) => Ok(Bringing { office: Arc::clone(office), admitted, desk: Arc::clone(desk) }),
        Err(error) => {
            let error = tidegate_kit::telemetry::chain(&error);
            tracing::warn!(lease = %live.id, %error, "the home of results cannot be opened");
            Err(Refusal::new(ProblemKind::SourceUnavailable, ""))
        }
    }
}

impl Bringing {
    /// Waits for room for so many bytes.
    async fn room(&self, bytes: usize) -> Result<Room, Refusal> {
        let rank = (self.admitted.live.id, self.admitted.rank);
        self.office.intake.room(rank, &self.desk.place, bytes).await
    }

    /// The lease's key of results, while it lives.
    async fn key(&self) -> Result<ResultsKey, Refusal> {
        let live = &self.admitted.live;
        match self.office.keyring.with(live.id, |key| key.results_key()) {
            Some(key) => Ok(key),
            None if live.is_dormant() => Err(dormant()),
            None => Err(over(&self.office, live.id).await),
        }
    }

    /// Whether a file of results may be called so.
    fn name<'a>(&self, path: &'a str) -> Result<&'a str, Refusal> {
        let taken = checked(path).and_then(|path| self.desk.home.takes(path).map(|()| path));
        let path = taken.map_err(|error| self.failed(error))?;
        if is_reserved(path) {
            let detail = "names that begin with `.tidegate-` are not a job's";
            return Err(Refusal::new(ProblemKind::Forbidden, detail));
        }
        Ok(path)
    }

    /// The answer when a step at home did not happen.
    fn failed(&self, error: HomeError) -> Refusal {
        let lease = self.admitted.live.id;
        match error {
            HomeError::Absent | HomeError::Torn => Refusal::new(ProblemKind::Absent, ""),
            HomeError::Occupied => Refusal::new(ProblemKind::Occupied, ""),
            HomeError::NotOffered => Refusal::new(ProblemKind::NotOffered, ""),
            HomeError::Changed => Refusal::new(ProblemKind::SourceChanged, ""),
            HomeError::Unfit(why) => Refusal::new(ProblemKind::Malformed, why),
            // Its step [writes it down](Self::to_its_end).
            HomeError::Full => {
                tracing::warn!(%lease, "the home of results is full");
                Refusal::new(ProblemKind::NoSpace, "")
            }
            HomeError::Unavailable(cause) => {
                tracing::warn!(%lease, %cause, "the home of results cannot be used now");
                Refusal::new(ProblemKind::SourceUnavailable, "")
            }
        }
    }

    /// Takes the turn for these paths; `None` when a later request came first.
    async fn turn(&self, paths: &[&str], seq: u64) -> Result<Option<Turn>, Refusal> {
        self.turn_of(paths, false, seq).await
    }

    /// The same, for all below these paths where it says `tree`.
    async fn turn_of(&self, paths: &[&str], tree: bool, seq: u64) -> Result<Option<Turn>, Refusal> {
        let (turns, worker) = (&self.desk.turns, self.admitted.peer.public_key);
        let turn = if tree {
            turns.take_tree(paths, worker, seq).await
        } else {
            turns.take(paths, worker, seq).await
        };
        // It may have waited, or its body have been long under way.
        self.admitted.still(&self.office, Purpose::Serve).await?;
        Ok((turn.standing() == Standing::Newest).then_some(turn))
    }

    /// Writes down what became of a file.
    async fn note(&self, act: ResultsAct, file: ListedResult) -> Result<(), Refusal> {
        let desk = &self.desk;
        let noted = desk.clerk.note(
            &self.office.record,
            (&desk.provenance, &desk.place),
            (self.admitted.rank, act),
            file,
        );
        let what = "the ledger cannot be written, so nothing is confirmed";
        noted.await.map_err(|error| Refusal::unavailable(what, &error))
    }

    /// The lease, where it is shown only what it brought home itself.
    fn only(&self) -> Option<LeaseId> {
        let live = &self.admitted.live;
        let resumes = live.view().document.results.as_ref().is_some_and(|part| part.resume);
        (!resumes).then_some(live.id)
    }

    /// Takes what is needed out of the lease's budget, until it is [used](Spent::used). What came home before
    /// and was not answered is not paid for again: `request` says what it is.
    async fn spend(&self, need: Share, request: &[&[u8]]) -> Result<Spent, Refusal> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.admitted.peer.public_key);
        for part in request {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        let request = *hasher.finalize().as_bytes();
        let again = self.desk.is_paid(&request);
        let desk = Arc::clone(&self.desk);
        let mut spent = Spent { desk, need, share: Share::default(), request, again };
        if again {
            return Ok(spent);
        }
        if self.desk.purse.take(need) {
            spent.share = need;
            return Ok(spent);
        }
        // A slice that is reserved and then forgotten would be lost to the lease.
        let bringing = self.clone();
        let taking = async move {
            bringing.spend_more(&mut spent, need).await?;
            Ok(spent)
        };
        self.to_its_end(taking).await
    }

    /// Looks once more whether a request is paid for, when it has its body and its turn, in the step that brings
    /// it: the same may have come home meanwhile, or what had come before have another name by now.
    async fn settle(&self, spent: &mut Spent) -> Result<(), Refusal> {
        if spent.again && !self.desk.is_still_paid(&spent.request) {
            spent.again = false;
            let need = spent.need;
            return self.spend_more(spent, need).await;
        }
        if !spent.again && self.desk.is_paid(&spent.request) {
            spent.again = true;
            self.desk.purse.put(std::mem::take(&mut spent.share));
        }
        Ok(())
    }

    /// Takes more for what is under way, in the step that brings it.
    async fn spend_more(&self, spent: &mut Spent, more: Share) -> Result<(), Refusal> {
        if !self.desk.purse.take(more) {
            self.take_slice(more).await?;
        }
        spent.share = spent.share.plus(more);
        Ok(())
    }

    /// Refuses what would take a directory away from under another lease, or put another in its place.
    fn has_no_home_below(&self, path: &str) -> Result<(), Refusal> {
        let directory = |live: &Live| match &live.view().document.results.as_ref()?.home {
            SourceSpec::Directory(home) => Some(home.clone()),
            SourceSpec::S3 { .. } => None,
        };
        let own = &self.admitted.live;
        let Some(moved) = directory(own).map(|home| home.join(path)) else { return Ok(()) };
        let is_below = |live: &Arc<Live>| {
            let other = live.id != own.id && !live.is_closed();
            other && directory(live).is_some_and(|home| home.starts_with(&moved))
        };
        match self.office.all().iter().any(is_below) {
            true => Err(Refusal::new(ProblemKind::Occupied, "results of another lease go there")),
            false => Ok(()),
        }
    }

    /// Takes what is needed, with another slice of the budget.
    async fn take_slice(&self, need: Share) -> Result<(), Refusal> {
        let (office, live, purse) = (&self.office, &self.admitted.live, &self.desk.purse);
        if !purse.take(need) {
            let _turn = live.turn.lock().await;
            if !purse.take(need) {
                let slice = reserve(office, live, purse.held(), need).await;
                let slice = match slice {
                    Ok(slice) => slice,
                    Err(AdvanceError::Refused(LeaseRefusal::TooWide)) => {
                        let (reason, kind) = (Reason::ResultsBudget, ProblemKind::OverBudget);
                        return Err(refuse(office, live.id, reason, kind, "").await);
                    }
                    Err(error) => return Err(refused(office, live.id, error).await),
                };
                purse.put(slice);
                if !purse.take(need) {
                    let kind = ProblemKind::Unavailable;
                    return Err(Refusal::new(kind, "others took the budget; ask again"));
                }
            }
        }
        Ok(())
    }

    /// Runs a step to its end, whether or not its caller waits; so does a gateway that is shutting down. That a
    /// home is full is written down.
    async fn to_its_end<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let under_way = Arc::clone(&self.office.steps).read_owned().await;
        let (office, lease) = (Arc::clone(&self.office), self.admitted.live.id);
        let step = async move {
            let _under_way = under_way;
            match step.await {
                Err(Refusal { kind: ProblemKind::NoSpace, detail }) => {
                    let (reason, kind) = (Reason::ResultsNoSpace, ProblemKind::NoSpace);
                    Err(refuse(&office, lease, reason, kind, &detail).await)
                }
                done => done,
            }
        };
        let done = tokio::spawn(step.in_current_span()).await;
        done.map_err(|error| Refusal::internal("a step of results was given up", &error))?
    }
}

/// Reserves a slice of the budget in the lease's document. The caller holds the turn.
async fn reserve(
    office: &Office,
    live: &Live,
    held: Share,
    need: Share,
) -> Result<Share, AdvanceError> {
    let reserved = Mutex::new(Share::default());
    let advanced = office.advance(live, |document| {
        let part = document.results.as_mut().ok_or(LeaseRefusal::NotDue)?;
        let slice = Share::slice(part.most(), part.reserved(), held, need);
        let slice = slice.ok_or(LeaseRefusal::TooWide)?;
        part.reserve(slice);
        *reserved.lock().unwrap_or_else(PoisonError::into_inner) = slice;
        Ok(())
    });
    advanced.await?;
    Ok(reserved.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What was taken out of the budget; it goes back when it is not used.
struct Spent {
    desk: Arc<Desk>,
    /// What the request costs.
    need: Share,
    share: Share,
    request: [u8; 32],
    /// It was paid for before.
    again: bool,
}

impl Spent {
    /// It came home under that name. What cost nothing is no payment. Parts take no turns: where the same came
    /// home meanwhile, this goes back.
    fn used(self, path: &str) {
        self.used_as(path, None);
    }

    /// The same of a file of several parts, which is that version now.
    fn used_as(mut self, path: &str, version: Option<&str>) {
        if self.share == Share::default() || self.desk.is_paid(&self.request) {
            return;
        }
        self.desk.paid(self.request, path, version);
        self.share = Share::default();
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.desk.purse.put(self.share);
    }
}

/// A file in a listing.
fn listed(path: &str, from: Option<&str>, kept: &Kept) -> ListedResult {
    ListedResult {
        path: path.to_owned(),
        from: from.map(str::to_owned),
        bytes: kept.len,
        blake3: kept.blake3.map(Digest::from_bytes),
    }
}
