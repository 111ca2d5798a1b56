//! What a gateway opens before it listens: state, keyring, the book's key. A restore opens the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_kit::clock::SystemClock;
use tidegate_kit::keyfile::{self, KeyFileError};
use tidegate_kit::ledger_log::{LedgerConfig, LedgerLog, LogError};
use tidegate_kit::state::{Revisions, StateError, StateStore};
use tidegate_kit::telemetry::exposition::MeterError;
use tidegate_kit::telemetry::ops::OpsError;
use tidegate_kit::tls::{Authority, TlsError};
use zeroize::Zeroizing;

use crate::admin::AdminError;
use crate::book::Book;
use crate::config::{ConfigError, GatewayConfig};
use crate::keyring::{Keyring, KeyringError, Retired, Wrapped, random};
use crate::office::{Office, Parts};
use crate::record::Record;
use crate::recovery::{Alive, RecoveryError};
use crate::state::BucketError;

/// The document whose MAC says with which keys a state is written, and whose body on what terms.
const SITE: &str = "site";

/// What replicas must have in common besides their keys.
#[derive(Serialize, Deserialize)]
struct Terms {
    key_epoch_s: u64,
}

/// A gateway does not start; nothing is listened on then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the state directory cannot be used")]
    State(#[from] StateError),
    #[error("the bucket of `state_bucket` cannot hold the state")]
    Bucket(#[from] BucketError),
    #[error("the state directory cannot be used")]
    KeyFile(#[from] KeyFileError),
    #[error("the keyring cannot be opened")]
    Keyring(#[from] KeyringError),
    #[error("the ledger cannot be opened")]
    Ledger(#[from] LogError),
    #[error("the certificate authority cannot be used")]
    Tls(#[from] TlsError),
    #[error("the leases of the state directory cannot be taken over")]
    Recovery(#[from] RecoveryError),
    #[error(
        "the keys in {secrets} are not those that this state was written with: give every replica the \
         same `secrets`"
    )]
    OtherSecrets { secrets: PathBuf },
    #[error(
        "`key_epoch_s` is {ours} here, but this state is written with {theirs}: who counts periods in another \
         length destroys keys that others use. Set it to {theirs}; it stays as long as the state"
    )]
    OtherEpochs { ours: u64, theirs: u64 },
    #[error("what this state is written with cannot be read")]
    Terms(#[source] serde_json::Error),
    #[error(
        "`secrets` must be a directory in which this gateway can make files, shared with the other replicas: \
         each period's key is made there"
    )]
    SecretsNotWritable(#[source] KeyFileError),
    #[error("cannot listen on {address}: is the port taken?")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[error(transparent)]
    Meters(#[from] MeterError),
}

/// Opened, and this process's own until dropped.
pub(crate) struct Premises {
    pub(crate) config: GatewayConfig,
    pub(crate) alive: Alive,
    pub(crate) store: StateStore,
    pub(crate) keyring: Keyring,
    pub(crate) book: Book,
    nonce_key: [u8; 32],
}

impl Premises {
    pub(crate) async fn open(mut config: GatewayConfig) -> Result<Self, StartError> {
        config.check()?;
        config.sources.resolve();
        config.results.resolve();
        // The directory is this process's own before anything else is touched.
        let own = StateStore::open(&config.state)?;
        let alive = Alive::mark(&config.state, config.embedded)?;
        let secrets = config.secrets().to_owned();
        let (store, wrapped) = match &config.state_bucket {
            None => (own, Wrapped::directory(&secrets.join("keyring/leases")).await?),
            Some(bucket) => {
                let store = bucket.open().await?;
                (store.clone(), Wrapped::in_store(store))
            }
        };
        let revisions = Revisions::open(store.clone(), &secrets.join("state.key"))?;
        let (root, retired) = (secrets.join("keyring"), Retired::new(&revisions));
        let keyring = Keyring::open(&root, wrapped, retired, config.key_epoch_s).await?;
        agree(&revisions, &secrets, config.key_epoch_s).await?;
        keyfile::try_out(&secrets.join("keyring/epochs"))
            .map_err(StartError::SecretsNotWritable)?;
        let nonce_key = revisions.derive("tidegate/v1 challenge nonces");
        Ok(Self { config, alive, store, keyring, book: Book::new(revisions), nonce_key })
    }

    pub(crate) fn ledger(&self) -> LedgerConfig {
        LedgerConfig {
            key_file: self.config.secrets().join("ledger.key"),
            origin: self.config.origin.clone(),
            checkpoint_copy: self.config.checkpoint_copy.clone(),
        }
    }

    pub(crate) fn authority(&self) -> Result<Arc<Authority>, StartError> {
        let file = self.config.secrets().join("ca/authority.pem");
        Ok(Arc::new(Authority::load_or_create(&file)?))
    }

    /// The office in these premises; `urls` are where workers come.
    pub(crate) fn office(
        self,
        log: LedgerLog,
        authority: Arc<Authority>,
        urls: Vec<String>,
    ) -> Result<(Arc<Office>, Alive), StartError> {
        let Self { config, alive, store, keyring, book, nonce_key } = self;
        let replica = keyfile::load_or_create(&config.state.join("replica"), || {
            Zeroizing::new(hex::encode(random::<16>()).into_bytes())
        })?;
        let office = Office::new(Parts {
            book,
            record: Record::new(log, store),
            clock: Arc::new(SystemClock),
            owner: alive.owner.clone(),
            replica: String::from_utf8_lossy(&replica).into_owned(),
            nonce_key,
            config,
            keyring,
            authority,
            urls,
        });
        Ok((Arc::new(office), alive))
    }
}

/// Whether this gateway writes the state with the keys and on the terms of all others.
async fn agree(revisions: &Revisions, secrets: &Path, key_epoch_s: u64) -> Result<(), StartError> {
    let ours = serde_json::to_vec(&Terms { key_epoch_s }).map_err(StartError::Terms)?;
    let Some(terms) = revisions.claim(SITE, &ours).await? else {
        return Err(StartError::OtherSecrets { secrets: secrets.to_owned() });
    };
    let theirs: Terms = serde_json::from_slice(&terms).map_err(StartError::Terms)?;
    if theirs.key_epoch_s != key_epoch_s {
        let (ours, theirs) = (key_epoch_s, theirs.key_epoch_s);
        return Err(StartError::OtherEpochs { ours, theirs });
    }
    Ok(())
}

impl std::fmt::Debug for Premises {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Premises").field("state", &self.config.state).finish_non_exhaustive()
    }
}
