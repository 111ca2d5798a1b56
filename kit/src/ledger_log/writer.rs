//! The one task of a process that writes the ledger.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_ledger::{
    Batch, Checkpoint, Event, InstanceId, Ledger, Predecessor, ProposeError, Receipt, SigningKey,
    VerifierKey, batch_name,
};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::copy::{CheckpointCopy, Mark};
use super::error::LogError;
use super::offline::is_batch_name;
use super::volume::Volume;
use super::{Head, LedgerConfig};
use crate::clock::Clock;
use crate::keyfile;
use crate::state::{Creation, StateStore};
use crate::telemetry::chain;

/// Most events that share a batch. Even at 64 KiB each, doubled by escapes, they stay below the
/// batch's limit.
const GROUP: usize = 48;
/// Lost races after which an append gives up.
const RACES: usize = 1000;
/// How old the knowledge may be that no other ledger follows this one.
pub(super) const LAST_AGE: Duration = Duration::from_secs(4);

/// One caller's events and where its receipts go.
pub(super) struct Append {
    pub(super) events: Vec<Event>,
    pub(super) reply: oneshot::Sender<Result<Vec<Receipt>, LogError>>,
}

pub(super) struct Writer {
    store: StateStore,
    volume: Volume,
    /// When it was last seen to be the newest, on the boot clock.
    newest_at: Duration,
    ledger: Ledger,
    key: SigningKey,
    id: InstanceId,
    copy: Option<CheckpointCopy>,
    clock: Arc<dyn Clock>,
    head: watch::Sender<Head>,
}

impl Writer {
    pub(super) async fn open(
        store: StateStore,
        config: LedgerConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, watch::Receiver<Head>), LogError> {
        let volume = Volume::newest(&store).await?;
        if volume.follows_another() && !volume.is_written(&store).await? {
            return Err(LogError::Unfinished);
        }
        let key = signing_key(&store, volume, &config).await?;
        let (mut writer, receiver) = Self::new(store, volume, key, config.checkpoint_copy, clock);
        // Mark and names are read before the log, which only grows: a log that is behind them then
        // is behind for good.
        let mark = writer.copy.as_ref().map(|copy| copy.look(writer.ledger.keys())).transpose()?;
        let names = writer.store.list(&volume.batches()).await?;
        writer.catch_up().await?;
        let end = writer.ledger.size();
        let last = names.iter().rfind(|name| is_batch_name(name));
        if let Some(batch) = last.and_then(|name| name.parse().ok()).filter(|batch| *batch >= end) {
            return Err(LogError::Gap { end, batch });
        }
        if let Some((copy, mark)) = writer.copy.clone().zip(mark.flatten()) {
            writer.compare(&copy, mark)?;
        }
        if writer.ledger.size() == 0 {
            writer.begin(None, Vec::new()).await?;
        } else {
            writer.publish().await?;
        }
        Ok((writer, receiver))
    }

    /// A writer that has read nothing yet.
    pub(super) fn new(
        store: StateStore,
        volume: Volume,
        key: SigningKey,
        copy: Option<PathBuf>,
        clock: Arc<dyn Clock>,
    ) -> (Self, watch::Receiver<Head>) {
        let empty = Head { size: 0, checkpoint: String::new(), time: 0 };
        let (head, receiver) = watch::channel(empty);
        let writer = Self {
            ledger: Ledger::new(key.verifier().clone()),
            id: InstanceId::from_bytes(keyfile::random()),
            copy: copy.map(CheckpointCopy::new),
            newest_at: clock.boottime(),
            clock,
            store,
            volume,
            key,
            head,
        };
        (writer, receiver)
    }

    /// Opens the ledger, unless another process is just doing so. A ledger that follows another is
    /// opened by one alone, and takes the second place over.
    pub(super) async fn begin(
        &mut self,
        after: Option<Box<Predecessor>>,
        events: Vec<Event>,
    ) -> Result<(), LogError> {
        let restores = after.is_some();
        let mut first =
            vec![Event::LedgerOpened { origin: self.ledger.origin().to_owned(), after }];
        first.extend(events);
        while self.ledger.size() == 0 {
            if self.try_write(first.clone()).await?.is_none() && restores {
                return Err(LogError::Contended);
            }
        }
        if let Some(copy) = self.copy.as_ref().filter(|_| restores) {
            copy.supersede(self.ledger.checkpoint().unwrap_or_default())?;
        }
        self.publish().await
    }

    /// Holds the log against its second place.
    fn compare(&self, copy: &CheckpointCopy, mark: Mark) -> Result<(), LogError> {
        let path = copy.path().to_owned();
        match mark {
            Mark::Ours(mark) => match self.ledger.tree().root_at(mark.size) {
                None => {
                    let log = self.ledger.size();
                    Err(LogError::Behind { log, copy: mark.size, path })
                }
                Some(root) if root != mark.root => Err(LogError::Forked { size: mark.size, path }),
                Some(_) => Ok(()),
            },
            // A restore elsewhere, or one that broke off before it came to the copy.
            Mark::Foreign { says: Some(says), .. } if self.follows(&says) => {
                copy.supersede(self.ledger.checkpoint().unwrap_or_default())
            }
            Mark::Foreign { source, .. } => Err(copy.foreign(source)),
        }
    }

    /// Whether this ledger says that it follows one of which at least `mark` was known.
    fn follows(&self, mark: &Checkpoint) -> bool {
        let Some(after) = self.ledger.after() else { return false };
        std::iter::once(&after.found)
            .chain(&after.known)
            .any(|head| head.origin == mark.origin && (mark.size < head.size || mark == head))
    }

    pub(super) const fn volume(&self) -> Volume {
        self.volume
    }

    pub(super) fn first_key(&self) -> &VerifierKey {
        self.ledger.keys().first().unwrap_or_else(|| self.key.verifier())
    }

    /// Serves appends until every sender is gone.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Append>) {
        while let Some(first) = requests.recv().await {
            let mut events = first.events.len();
            let mut group = vec![first];
            while events < GROUP {
                let Ok(next) = requests.try_recv() else { break };
                events += next.events.len();
                group.push(next);
            }
            self.serve(group).await;
        }
    }

    async fn serve(&mut self, group: Vec<Append>) {
        let joint = group.iter().flat_map(|append| append.events.clone()).collect();
        match self.write(joint).await {
            Ok(mut receipts) => {
                for append in group.into_iter().rev() {
                    let own = receipts.split_off(receipts.len() - append.events.len());
                    // A caller that left has its entries all the same.
                    let _ = append.reply.send(Ok(own));
                }
            }
            // One caller's events are not to fail another's.
            Err(LogError::Propose(_)) if group.len() > 1 => {
                for append in group {
                    let outcome = self.write(append.events).await;
                    let _ = append.reply.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the ledger cannot be written");
                let error = Arc::new(error);
                for append in group {
                    let _ = append.reply.send(Err(LogError::Shared(error.clone())));
                }
            }
        }
    }

    /// Appends events and returns their receipts once all of it is durable.
    async fn write(&mut self, events: Vec<Event>) -> Result<Vec<Receipt>, LogError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..RACES {
            let Some(batch) = self.try_write(events.clone()).await? else { continue };
            self.publish().await?;
            let receipts = (batch.first..).zip(batch.entries);
            return receipts
                .map(|(index, entry)| self.ledger.receipt(index, entry).ok_or(LogError::Closed))
                .collect();
        }
        Err(LogError::Contended)
    }

    /// One try: `None` when another writer was first, whose batches are then read.
    async fn try_write(&mut self, events: Vec<Event>) -> Result<Option<Batch>, LogError> {
        self.check_newest().await?;
        let batch = self.ledger.propose(events, self.clock.now_unix(), self.id, &self.key)?;
        let bytes = batch.to_bytes().map_err(ProposeError::Batch)?;
        let created = self.store.create(&self.volume.batch(batch.first), bytes).await;
        match created {
            Ok(Creation::Created) => {
                self.ledger.accept(&batch)?;
                Ok(Some(batch))
            }
            Ok(Creation::Exists) => {
                self.catch_up().await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever is left over from before a restore writes nothing more.
    async fn check_newest(&mut self) -> Result<(), LogError> {
        let now = self.clock.boottime();
        if now.saturating_sub(self.newest_at) > LAST_AGE {
            if Volume::newest(&self.store).await? > self.volume {
                return Err(LogError::Followed);
            }
            self.newest_at = now;
        }
        Ok(())
    }

    /// Reads and checks the batches that others wrote since.
    async fn catch_up(&mut self) -> Result<(), LogError> {
        loop {
            let next = self.ledger.size();
            let Some(bytes) = self.store.read(&self.volume.batch(next)).await? else {
                return Ok(());
            };
            self.ledger.accept_stored(&batch_name(next), &bytes)?;
        }
    }

    /// Copies the newest checkpoint to the second place, then shows it.
    async fn publish(&self) -> Result<(), LogError> {
        let checkpoint = self.ledger.checkpoint().unwrap_or_default().to_owned();
        let size = self.ledger.size();
        if let Some(copy) = self.copy.clone() {
            let (note, keys) = (checkpoint.clone(), self.ledger.keys().to_vec());
            let advanced =
                tokio::task::spawn_blocking(move || copy.advance(&note, size, &keys)).await;
            advanced.map_err(|_| LogError::Closed)??;
        }
        self.head.send_replace(Head { size, checkpoint, time: self.ledger.time() });
        Ok(())
    }
}

/// The key in its file. A new one is made only for a first ledger without batches.
async fn signing_key(
    store: &StateStore,
    volume: Volume,
    config: &LedgerConfig,
) -> Result<SigningKey, LogError> {
    let file = volume.key_file(&config.key_file);
    if let Some(text) = keyfile::read(&file)? {
        return parse_key(&text);
    }
    let names = store.list(&volume.batches()).await?;
    let batches = names.iter().filter(|name| is_batch_name(name)).count();
    if batches > 0 {
        // Another process may have made key and first batch between our two looks.
        return match keyfile::read(&file)? {
            Some(text) => parse_key(&text),
            None => Err(LogError::KeyMissing { batches, file }),
        };
    }
    if let Some(path) = config.checkpoint_copy.clone().filter(|path| path.exists()) {
        return match keyfile::read(&file)? {
            Some(text) => parse_key(&text),
            None => Err(LogError::Lost { path }),
        };
    }
    let random = || format!("tidegate/{}", keyfile::random_hex::<8>());
    let origin = config.origin.clone().unwrap_or_else(random);
    let made = SigningKey::from_seed(&origin, keyfile::random())?.to_text();
    parse_key(&keyfile::load_or_create(&file, || Zeroizing::new(made.as_bytes().to_vec()))?)
}

pub(super) fn parse_key(text: &[u8]) -> Result<SigningKey, LogError> {
    let text = std::str::from_utf8(text).map_err(|_| tidegate_ledger::KeyError::Syntax)?;
    Ok(SigningKey::parse(text)?)
}
