//! After a loss of state: every lease ends, and a new ledger says what is missing.
//!
//! Keys die first, so that a restore that broke off leaves nothing that could be served. The new
//! ledger is opened next, once whoever still writes the old one has noticed; then each lease that was still open is closed as *withdrawn* in it.

use std::collections::BTreeSet;

use tidegate_kit::ledger_log::{LedgerLog, LogError, inspect, put_document};
use tidegate_ledger::{Action, Event, Predecessor};
use tidegate_plan::LeaseId;

use crate::book::BookError;
use crate::closing::{CloseError, retire_epochs};
use crate::config::GatewayConfig;
use crate::keyring::{Keyring, KeyringError};
use crate::office::Office;
use crate::owed::owes;
use crate::premises::{Premises, StartError};
use crate::record::RecordError;
use crate::recovery::{RecoveryError, chain, withdraw};

/// A state cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the ledger cannot be restored")]
    Ledger(#[from] LogError),
    #[error("the lease keys cannot be destroyed")]
    Keyring(#[from] KeyringError),
    #[error("the leases cannot be listed")]
    Book(#[from] BookError),
    #[error("the restore cannot be recorded")]
    Record(#[from] RecordError),
    #[error("the keys of past epochs cannot be destroyed")]
    Epochs(#[source] CloseError),
}

/// A restore that was looked at and not begun.
#[derive(Debug)]
pub struct Restore {
    premises: Premises,
    after: Predecessor,
    /// Leases of which a wrapped key is there.
    keys: Vec<LeaseId>,
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Verifier key of the new ledger, in signed-note form.
    pub key: String,
    /// Its newest signed head.
    pub checkpoint: String,
    /// Leases that were closed as withdrawn.
    pub withdrawn: usize,
    /// Keys that were destroyed without a lease that could be closed.
    pub voided: usize,
}

impl Restore {
    /// Looks at what is there; nothing is changed. No gateway may run on the state.
    pub async fn look(config: GatewayConfig) -> Result<Self, RestoreError> {
        let premises = Premises::open(config).await?;
        if !premises.alive.is_alone().map_err(StartError::from)? {
            return Err(StartError::from(RecoveryError::InUse).into());
        }
        let after = inspect(&premises.store, &premises.ledger()).await?;
        let keys = premises.keyring.leases().await?;
        Ok(Self { premises, after, keys })
    }

    /// The ledger as it is, and what is known to be missing of it.
    pub fn after(&self) -> &Predecessor {
        &self.after
    }

    /// Leases whose keys will be destroyed.
    pub fn open_leases(&self) -> usize {
        self.keys.len()
    }

    /// Destroys every lease key, opens the new ledger, closes every lease.
    pub async fn carry_out(self, subject: &str) -> Result<Restored, RestoreError> {
        let Self { premises, .. } = self;
        let mut keys = destroy_keys(&premises.keyring).await?;
        let subject = put_document(&premises.store, subject).await?;
        let act = |action, lease| Event::Admin { action, lease, subject };
        let opening = vec![act(Action::Restore, None)];
        let (store, ledger) = (premises.store.clone(), premises.ledger());
        let log = LedgerLog::restore(store, ledger, opening).await?;
        // A gateway that was left running elsewhere may have granted until it noticed.
        keys.extend(destroy_keys(&premises.keyring).await?);
        let authority = premises.authority()?;
        let (office, _alive) = premises.office(log, authority, Vec::new())?;

        let withdrawn = withdraw_all(&office, &keys).await?;
        let void: Vec<_> = keys.into_iter().filter(|lease| !withdrawn.contains(lease)).collect();
        let voided = void.len();
        let events: Vec<_> = void.into_iter().map(|id| act(Action::Void, Some(id))).collect();
        office.record.append(events).await?;
        retire_epochs(&office, office.now()).await.map_err(RestoreError::Epochs)?;
        Ok(Restored {
            key: office.record.vkey(),
            checkpoint: office.record.checkpoint(),
            withdrawn: withdrawn.len(),
            voided,
        })
    }
}

/// Destroys every lease key that is there; the leases they were of.
async fn destroy_keys(keyring: &Keyring) -> Result<Vec<LeaseId>, KeyringError> {
    let keys = keyring.leases().await?;
    for lease in &keys {
        keyring.destroy(*lease).await?;
    }
    Ok(keys)
}

/// Closes what is open, as far as it can be read; the rest is said in the log.
async fn withdraw_all(
    office: &Office,
    keys: &[LeaseId],
) -> Result<BTreeSet<LeaseId>, RestoreError> {
    let mut open: BTreeSet<_> = office.book.marked().await?.into_iter().collect();
    open.extend(keys);
    let mut withdrawn = BTreeSet::new();
    for id in open {
        let closed = match office.book.head(id).await {
            Ok((_, document)) if document.lease.is_closed() && !owes(&document) => continue,
            Ok((revision, document)) => {
                withdraw(office, id, revision, document).await.map_err(|error| chain(&error))
            }
            // Only its key was left.
            Err(BookError::Gone) => continue,
            Err(error) => Err(chain(&error)),
        };
        match closed {
            Ok(()) => {
                withdrawn.insert(id);
            }
            Err(error) => tracing::error!(lease = %id, error, "a lease cannot be closed"),
        }
    }
    Ok(withdrawn)
}
