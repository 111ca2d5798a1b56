//! A worker that serves: from the holder's start message to answered reads.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_plan::Manifest;
use tidegate_wire::{Directive, JoinFile, NodeFacts, ProblemKind};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::blocks::{Cache, CacheConfig, CacheParts, ShareManifest};
use crate::budget::Budget;
use crate::client::{Attached, Client, ClientError, Identity};
use crate::control::{Progress, Ready, Start};
use crate::fs::Fs;
use crate::fuse::{self, Served};
use crate::store::{Adopted, Demand, Store, StoreConfig};

use super::identity::KeptIdentity;
use super::patience::Patience;
use super::{WorkerError, heartbeat};

/// All that a serving worker holds.
pub(super) struct Live {
    pub(super) client: Arc<Client>,
    pub(super) cache: Arc<Cache>,
    pub(super) fs: Arc<Fs>,
    pub(super) served: Served,
    pub(super) identity: KeptIdentity,
    pub(super) facts: NodeFacts,
    pub(super) at: PathBuf,
    pub(super) cache_file: PathBuf,
    pub(super) mount_id: Option<u64>,
    pub(super) heartbeat: JoinHandle<()>,
    before: Progress,
    /// When the staging began, on the boot clock.
    begun: Duration,
    ready: Ready,
    directive: watch::Receiver<Directive>,
}

impl Live {
    /// Attaches, gets keys and manifest, opens the cache and serves the mount.
    pub(super) async fn begin(
        start: Start,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, WorkerError> {
        let mut descriptors = descriptors.into_iter();
        let identity = descriptors
            .next()
            .ok_or_else(|| WorkerError::Internal("no identity was handed over".into()))?;
        let (kept, identity) = KeptIdentity::open(identity).map_err(WorkerError::Serve)?;
        let successor = start.generation > 1;
        let facts = crate::facts::gather(&start.cache_dir);
        // Readers of a successor wait for as long as the grace; a first worker says at once what is wrong.
        let patience = Patience::of(Duration::from_secs(start.patience.into()));
        let attaching = || attach(&start.join, &identity, &facts, successor);
        let Attached { terms, client, .. } =
            patience.with("not attached yet; readers wait", attaching).await?;
        let releasing = || client.keys(terms.first_block, terms.end_block);
        let (keys, manifest_key) = patience.with("no keys yet; readers wait", releasing).await?;
        let fetching = || client.manifest(&manifest_key);
        let bytes = patience.with("no manifest yet; readers wait", fetching).await?;
        let manifest = Arc::new(parse(bytes).await?);
        drop(manifest_key);
        let budget = Budget::new(start.memory);
        let store_config = StoreConfig { dir: start.cache_dir, bytes: start.cache_bytes };
        let (store, adopted) = open_store(store_config, &client, &manifest).await?;
        let (cache_bytes, cache_file) = (store.bytes(), store.path().to_owned());
        let config = CacheConfig {
            connections: start.connections,
            grace: Duration::from_secs(u64::from(terms.grace)),
        };
        let parts = CacheParts {
            manifest: Arc::clone(&manifest),
            client: Arc::clone(&client),
            keys,
            store,
            adopted,
            budget: budget.clone(),
        };
        let cache = Cache::start(parts, config).map_err(WorkerError::Serve)?;
        let fs = Arc::new(Fs::new(
            Arc::clone(&manifest),
            Arc::clone(&cache),
            start.owner,
            start.generation,
        ));
        let served = fuse::serve(&fs, &budget, descriptors.collect(), &start.init.0, successor)
            .map_err(WorkerError::Serve)?;
        let (sender, directive) = watch::channel(Directive::Continue);
        let heartbeat = heartbeat::start(Arc::clone(&client), Arc::clone(&cache), sender);
        let ready = Ready {
            files: terms.files,
            bytes: terms.bytes,
            blocks: terms.end_block - terms.first_block,
            manifest_bytes: terms.manifest_len,
            cache_bytes,
            deadline: terms.deadline,
            grace: terms.grace,
        };
        let Start { at, mount_id, before, begun, .. } = start;
        Ok(Self {
            client,
            cache,
            fs,
            served,
            identity: kept,
            facts,
            at,
            cache_file,
            mount_id,
            heartbeat,
            before,
            begun,
            ready,
            directive,
        })
    }

    pub(super) fn ready(&self) -> Ready {
        self.ready
    }

    pub(super) fn progress(&self) -> Progress {
        let seen = self.cache.progress();
        let first_byte = seen.first_byte.map(|at| at.saturating_sub(self.begun).as_millis());
        let first_byte = first_byte.map(|time| u64::try_from(time).unwrap_or(u64::MAX));
        Progress {
            resident_blocks: seen.resident_blocks,
            blocks: seen.blocks,
            first_byte_ms: self.before.first_byte_ms.or(first_byte),
            ..self.before.with(&seen.counters)
        }
    }

    /// Waits for a new word of the gateway. Cancel safe: a word is either still to come or returned.
    pub(super) async fn directed(&mut self) -> Directive {
        if self.directive.changed().await.is_err() {
            std::future::pending::<()>().await; // the heart has stopped; nothing more will be said
        }
        *self.directive.borrow_and_update()
    }

    /// From here on nothing can be opened or read, by this process or from the kernel's cache.
    pub(super) async fn destroy_keys(&self) {
        self.fs.end();
        self.cache.shutdown_keys();
        self.served.wipe_buffers();
        let (pages, fs) = (self.served.pages(), Arc::clone(&self.fs));
        match blocking(move || pages.drop_of(fs.cached_inodes())).await {
            Ok(0) => {}
            Ok(refused) => tracing::warn!(
                refused,
                "the kernel keeps pages of some inodes until they are closed"
            ),
            Err(error) => tracing::error!(%error, "cached pages were not dropped"),
        }
    }
}

/// A gateway that was started anew between challenge and attach does not know its nonce any more: a
/// successor, whose token was good once, asks for another.
async fn attach(
    join: &JoinFile,
    identity: &Identity,
    facts: &NodeFacts,
    successor: bool,
) -> Result<Attached, ClientError> {
    let attached = crate::client::attach(join, identity, facts.clone()).await;
    match attached {
        Err(why) if successor && why.refusal() == Some(ProblemKind::Unauthenticated) => {
            crate::client::attach(join, identity, facts.clone()).await
        }
        attached => attached,
    }
}

async fn parse(bytes: crate::client::ManifestBytes) -> Result<ShareManifest, WorkerError> {
    blocking(move || Manifest::parse(bytes)).await?.map_err(WorkerError::Manifest)
}

async fn open_store(
    config: StoreConfig,
    client: &Arc<Client>,
    manifest: &Arc<ShareManifest>,
) -> Result<(Arc<Store>, Vec<Adopted>), WorkerError> {
    let blocks = manifest.blocks();
    let demand = Demand {
        blocks: blocks.end - blocks.start,
        largest: blocks
            .filter_map(|n| manifest.block(n))
            .map(|block| block.plain_len)
            .max()
            .unwrap_or(0),
    };
    let client = Arc::clone(client);
    Ok(blocking(move || Store::open(&config, client.terms(), demand)).await??)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkerError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| WorkerError::Serve(io::Error::other(error)))
}
