//! The one task of a process that writes the ledger.

use std::path::Path;
use std::sync::Arc;

use tidegate_ledger::{
    Batch, Event, InstanceId, Ledger, ProposeError, Receipt, SigningKey, VerifierKey, batch_name,
};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::copy::CheckpointCopy;
use super::error::LogError;
use super::offline::is_batch_name;
use super::{BATCHES, Head, LedgerConfig};
use crate::clock::Clock;
use crate::keyfile;
use crate::state::{Creation, StateStore};

/// Most events that share a batch. Even at 64 KiB each, doubled by escapes, they stay below the
/// batch's limit.
const GROUP: usize = 48;
/// Lost races after which an append gives up.
const RACES: usize = 1000;

/// One caller's events and where its receipts go.
pub(super) struct Append {
    pub(super) events: Vec<Event>,
    pub(super) reply: oneshot::Sender<Result<Vec<Receipt>, LogError>>,
}

pub(super) struct Writer {
    store: StateStore,
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
        let key = signing_key(&store, &config.key_file, config.origin).await?;
        let copy = config.checkpoint_copy.map(CheckpointCopy::new);
        let empty = Head { size: 0, checkpoint: String::new(), time: 0 };
        let (head, receiver) = watch::channel(empty);
        let mut writer = Self {
            ledger: Ledger::new(key.verifier().clone()),
            id: InstanceId::from_bytes(keyfile::random()),
            store,
            key,
            copy,
            clock,
            head,
        };
        // Mark and names are read before the log, which only grows: a log that is behind them then
        // is behind for good.
        let mark = match &writer.copy {
            Some(copy) => copy.read(writer.ledger.keys())?,
            None => None,
        };
        let names = writer.store.list(BATCHES).await?;
        writer.catch_up().await?;
        let end = writer.ledger.size();
        let last = names.iter().rfind(|name| is_batch_name(name));
        if let Some(batch) = last.and_then(|name| name.parse().ok()).filter(|batch| *batch >= end) {
            return Err(LogError::Gap { end, batch });
        }
        if let Some(mark) = mark {
            match writer.ledger.tree().root_at(mark.size) {
                None => {
                    return Err(LogError::Behind { log: writer.ledger.size(), copy: mark.size });
                }
                Some(root) if root != mark.root => {
                    return Err(LogError::Forked { size: mark.size });
                }
                Some(_) => {}
            }
        }
        while writer.ledger.size() == 0 {
            let origin = writer.ledger.origin().to_owned();
            writer.try_write(vec![Event::LedgerOpened { origin }]).await?;
        }
        writer.publish().await?;
        Ok((writer, receiver))
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
        let batch = self.ledger.propose(events, self.clock.now_unix(), self.id, &self.key)?;
        let bytes = batch.to_bytes().map_err(ProposeError::Batch)?;
        let created = self.store.create(&path(batch.first), bytes).await;
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

    /// Reads and checks the batches that others wrote since.
    async fn catch_up(&mut self) -> Result<(), LogError> {
        loop {
            let next = self.ledger.size();
            let Some(bytes) = self.store.read(&path(next)).await? else { return Ok(()) };
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

/// The key in its file. A new one is made only for a ledger without batches.
async fn signing_key(
    store: &StateStore,
    file: &Path,
    origin: Option<String>,
) -> Result<SigningKey, LogError> {
    if let Some(text) = keyfile::read(file)? {
        return parse_key(&text);
    }
    let batches = store.list(BATCHES).await?.iter().filter(|name| is_batch_name(name)).count();
    if batches > 0 {
        // Another process may have made key and first batch between our two looks.
        return match keyfile::read(file)? {
            Some(text) => parse_key(&text),
            None => Err(LogError::KeyMissing(batches)),
        };
    }
    let origin = origin.unwrap_or_else(|| format!("tidegate/{}", keyfile::random_hex::<8>()));
    let made = SigningKey::from_seed(&origin, keyfile::random())?.to_text();
    parse_key(&keyfile::load_or_create(file, || Zeroizing::new(made.as_bytes().to_vec()))?)
}

fn parse_key(text: &[u8]) -> Result<SigningKey, LogError> {
    let text = std::str::from_utf8(text).map_err(|_| tidegate_ledger::KeyError::Syntax)?;
    Ok(SigningKey::parse(text)?)
}

fn path(first: u64) -> String {
    format!("{BATCHES}/{}", batch_name(first))
}

/// An error with its causes, for one line of log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words.push_str(": ");
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words
}
