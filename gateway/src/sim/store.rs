//! A bucket that keeps the contract of `design` and nothing more: creates are exclusive, reads and
//! listings see what was written; but answers are lost, late or said twice, and requests arrive
//! after their sender has given up.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::sync::oneshot;

use super::executor::{Host, Sim};

/// How a bucket breaks its contract, for showing that this is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// A create of what is there already is answered with success, and does nothing: what a writer
    /// that does not read back, or does not compare, would make of it.
    TakenIsSuccess,
    /// Writes under a prefix are answered before they are durable, and a crash may lose them.
    AnsweredEarly,
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) at: Duration,
    pub(super) path: String,
    /// `None` when it was deleted.
    pub(super) bytes: Option<Bytes>,
}

/// How things stand between the replicas and the bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Requests of a hundred that run into trouble.
    pub(super) trouble: u64,
    /// Nothing arrives.
    pub(super) away: bool,
}

/// The bucket itself, and its whole history.
pub(super) struct Bucket {
    sim: Sim,
    inner: InMemory,
    effects: Mutex<Vec<Effect>>,
    weather: Mutex<Weather>,
    lie: Option<Lie>,
}

impl Bucket {
    pub(super) fn new(sim: Sim, lie: Option<Lie>) -> Arc<Self> {
        let (effects, weather) = (Mutex::default(), Mutex::default());
        Arc::new(Self { sim, inner: InMemory::new(), effects, weather, lie })
    }

    pub(super) fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was last done under a prefix.
    pub(super) fn newest(&self, prefix: &str) -> Option<Effect> {
        let effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        effects.iter().rfind(|effect| effect.path.starts_with(prefix)).cloned()
    }

    pub(super) fn set_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.weather.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The bucket as the auditor reads it: at once and whole.
    pub(super) fn raw(&self) -> InMemory {
        self.inner.clone()
    }

    fn log(&self, path: &Path, bytes: Option<Bytes>) {
        let effect = Effect { at: self.sim.now(), path: path.to_string(), bytes };
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).push(effect);
    }

    fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let bytes = Bytes::from(payload.clone());
        let put = self.inner.put_opts(path, payload, options);
        let outcome = put.now_or_never().expect("memory answers at once");
        if outcome.is_ok() {
            self.log(path, Some(bytes));
        }
        match outcome {
            Err(Error::AlreadyExists { .. }) if self.lies_about(path) => {
                Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
            }
            outcome => outcome,
        }
    }

    /// The start's probe would see through it.
    fn lies_about(&self, path: &Path) -> bool {
        self.lie == Some(Lie::TakenIsSuccess) && !path.as_ref().starts_with("probe/")
    }

    fn delete(&self, path: &Path) -> Result<Path> {
        let there = self.inner.head(path).now_or_never().expect("memory answers at once").is_ok();
        let deleted = self.inner.delete(path).now_or_never().expect("memory answers at once");
        if there {
            self.log(path, None);
        }
        deleted.map(|()| path.clone())
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Fine,
    /// It never arrives; the sender sees a broken connection.
    Lost,
    /// It is done, but the answer is lost.
    Unanswered,
    /// It is done, and a repetition on the way is answered: taken, or not there.
    Repeated,
    /// The sender gives up first; it arrives afterwards.
    Late,
}

/// The bucket as one replica reaches it.
#[derive(Clone)]
pub(super) struct Reached {
    pub(super) bucket: Arc<Bucket>,
    pub(super) sim: Sim,
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reached(..)")
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated bucket")
    }
}

fn broken() -> Error {
    Error::Generic { store: "simulated", source: "the connection broke".into() }
}

impl Reached {
    fn fate(&self, writes: bool) -> Fate {
        let weather = *self.bucket.weather.lock().unwrap_or_else(PoisonError::into_inner);
        if weather.away {
            return Fate::Lost;
        }
        if !self.sim.chance(weather.trouble) {
            return Fate::Fine;
        }
        match self.sim.below(if writes { 4 } else { 1 }) {
            0 => Fate::Lost,
            1 => Fate::Unanswered,
            2 => Fate::Repeated,
            _ => Fate::Late,
        }
    }

    /// How long one way takes: mostly little.
    fn way(&self) -> Duration {
        match self.sim.below(100) {
            0 => self.sim.span(500..6_000),
            1..=9 => self.sim.span(20..500),
            _ => self.sim.span(1..20),
        }
    }

    /// Does `effect` somewhere between now and the answer, whatever becomes of the sender.
    async fn request<T: Send + 'static>(
        &self,
        writes: bool,
        effect: impl Fn(&Bucket) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (fate, there, back) = (self.fate(writes), self.way(), self.way());
        let (answer, answered) = oneshot::channel();
        let (bucket, sim) = (Arc::clone(&self.bucket), self.sim.clone());
        self.sim.spawn(Host::World, async move {
            let outcome = match fate {
                Fate::Lost => Err(broken()),
                Fate::Late => {
                    sim.sleep(sim.span(1_000..10_000)).await;
                    let _ = answer.send(Err(broken()));
                    sim.sleep(sim.span(0..10_000)).await;
                    let _ = effect(&bucket);
                    return;
                }
                Fate::Fine | Fate::Unanswered | Fate::Repeated => {
                    sim.sleep(there).await;
                    effect(&bucket)
                }
            };
            sim.sleep(back).await;
            let _ = answer.send(match fate {
                Fate::Unanswered => Err(broken()),
                Fate::Repeated => effect(&bucket),
                _ => outcome,
            });
        });
        answered.await.unwrap_or_else(|_| Err(broken()))
    }

    /// Says that a write is done before it is; a crash in between loses it.
    fn answer_early(&self, path: Path, payload: PutPayload, options: PutOptions) {
        let (bucket, sim) = (Arc::clone(&self.bucket), self.sim.clone());
        self.sim.spawn(Host::World, async move {
            sim.sleep(sim.span(100..3_000)).await;
            if !sim.chance(10) {
                let _ = bucket.put(&path, payload, options);
            }
        });
    }
}

#[async_trait::async_trait]
impl ObjectStore for Reached {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let location = location.clone();
        if self.bucket.lie == Some(Lie::AnsweredEarly)
            && location.as_ref().starts_with("ledger/batches/")
        {
            self.answer_early(location, payload, options);
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        self.request(true, move |bucket| bucket.put(&location, payload.clone(), options.clone()))
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        self.request(false, move |bucket| {
            let got = bucket.inner.get_opts(&location, options.clone());
            got.now_or_never().expect("memory answers at once")
        })
        .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    this.request(true, move |bucket| bucket.delete(&location)).await
                }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned();
        self.request(false, move |bucket| {
            let listed = bucket.inner.list_with_delimiter(prefix.as_ref());
            listed.now_or_never().expect("memory answers at once")
        })
        .await
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        futures_util::stream::once(async { Err(unused("list")) }).boxed()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(unused("put_multipart"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unused("copy"))
    }
}

/// The gateway's state never asks for it.
fn unused(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "simulated".to_owned() }
}
