//! A new ledger after one that was lost, cut, forked or damaged.
//!
//! Nothing of the old one is touched. The new one has a key and a name of its own, and its first
//! entry names the head that was found and, when that is another, the head in the second place:
//! what lies between the two is lost, and said to be.

use std::sync::Arc;
use std::time::Duration;

use tidegate_ledger::{
    Checkpoint, Event, Ledger, Predecessor, SigningKey, VerifierKey, batch_name,
};

use super::copy::{CheckpointCopy, Mark};
use super::error::LogError;
use super::volume::Volume;
use super::writer::{LAST_AGE, Writer, parse_key};
use super::{LedgerConfig, LedgerLog};
use crate::clock::SystemClock;
use crate::keyfile;
use crate::state::{Creation, StateStore};

/// How long a restore waits for others to notice it: as long as they may go without looking, and as much
/// again for what they have under way.
const SETTLE: Duration = LAST_AGE.saturating_mul(2);

/// What is there of the ledger in `store`, and what was known of it elsewhere. Changes nothing.
pub async fn inspect(store: &StateStore, config: &LedgerConfig) -> Result<Predecessor, LogError> {
    let volume = Volume::newest_written(store).await?;
    let key = verifier_key(store, volume, config).await?;
    let copy = config.checkpoint_copy.clone().map(CheckpointCopy::new);
    let keys = key.clone().map(|key| vec![key]).unwrap_or_default();
    let mark = match copy.map(|copy| copy.look(&keys)).transpose()?.flatten() {
        Some(Mark::Ours(mark)) => Some(mark),
        Some(Mark::Foreign { says, .. }) => says,
        None => None,
    };
    let Some(key) = key else {
        let known = mark.ok_or(LogError::NothingToRestore)?;
        let root = tidegate_ledger::Tree::new().root();
        let found = Checkpoint { origin: known.origin.clone(), size: 0, root };
        return Ok(Predecessor { found, key: None, known: Some(known) });
    };
    let ledger = replay(store, volume, &key).await?;
    let reached = |mark: &Checkpoint| {
        mark.origin == ledger.origin() && ledger.tree().root_at(mark.size) == Some(mark.root)
    };
    let known = mark.filter(|mark| !reached(mark));
    Ok(Predecessor { found: ledger.head(), key: Some(key.to_string()), known })
}

/// The key that the ledger began with: the signing key's, or what lies beside the batches.
async fn verifier_key(
    store: &StateStore,
    volume: Volume,
    config: &LedgerConfig,
) -> Result<Option<VerifierKey>, LogError> {
    if let Some(text) = keyfile::read(&volume.key_file(&config.key_file))? {
        return Ok(Some(parse_key(&text)?.verifier().clone()));
    }
    let beside = store.read(&volume.verifier()).await?;
    Ok(beside.and_then(|text| VerifierKey::parse(String::from_utf8_lossy(&text).trim()).ok()))
}

/// As far as it goes and holds.
async fn replay(store: &StateStore, volume: Volume, key: &VerifierKey) -> Result<Ledger, LogError> {
    let mut ledger = Ledger::new(key.clone());
    loop {
        let next = ledger.size();
        let Some(bytes) = store.read(&volume.batch(next)).await? else { return Ok(ledger) };
        if let Err(fault) = ledger.accept_stored(&batch_name(next), &bytes) {
            tracing::warn!(%fault, "the old ledger holds up to here");
            return Ok(ledger);
        }
    }
}

impl LedgerLog {
    /// Opens a new ledger that follows the one that is there; `events` are its next entries. Whoever still
    /// writes the old one notices within seconds and stops, and only then is it looked how far it goes.
    pub async fn restore(
        store: StateStore,
        config: LedgerConfig,
        events: Vec<Event>,
    ) -> Result<Self, LogError> {
        Self::follow(store, config, events, tokio::time::sleep(SETTLE)).await
    }

    /// The same, when `settled` comes: after it nobody writes the old ledger.
    async fn follow(
        store: StateStore,
        config: LedgerConfig,
        events: Vec<Event>,
        settled: impl Future<Output = ()>,
    ) -> Result<Self, LogError> {
        // Before anything is changed.
        inspect(&store, &config).await?;
        let mut volume = Volume::newest(&store).await?.next();
        // A key that is there already may have signed something that is lost now.
        while keyfile::read(&volume.key_file(&config.key_file))?.is_some() {
            volume = volume.next();
        }
        let name = config.origin.as_deref().unwrap_or("tidegate");
        let origin = format!("{name}/{}", keyfile::random_hex::<8>());
        let key = SigningKey::from_seed(&origin, keyfile::random())?;
        if !keyfile::create(&volume.key_file(&config.key_file), key.to_text().as_bytes())? {
            return Err(LogError::Contended);
        }
        // What the old one's writers look for.
        let seen = store.create(&volume.verifier(), format!("{}\n", key.verifier())).await?;
        if seen == Creation::Exists {
            return Err(LogError::Contended);
        }
        tracing::info!("waits until whoever may still write the old ledger has noticed");
        settled.await;
        let after = inspect(&store, &config).await?;
        let (mut writer, head) =
            Writer::new(store.clone(), volume, key, config.checkpoint_copy, Arc::new(SystemClock));
        writer.begin(Some(Box::new(after)), events).await?;
        let (log, writing) = Self::with(store, writer, head).await?;
        tokio::spawn(writing);
        Ok(log)
    }
}

#[cfg(test)]
mod tests;
