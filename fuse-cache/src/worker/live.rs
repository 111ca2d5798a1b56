//! A worker that serves: from the holder's start message to answered reads.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_plan::Manifest;
use tidegate_wire::{JoinFile, NodeFacts, ProblemKind};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::blocks::{Cache, CacheConfig, CacheParts, ReadError, ShareManifest};
use crate::budget::Budget;
use crate::client::{Attached, Client, ClientError, Identity};
use crate::control::{Progress, Ready, Start};
use crate::fs::Fs;
use crate::fuse::{self, Connection, Served};
use crate::life::Past;
use crate::store::{Adopted, Demand, Store, StoreConfig};

use super::blocking::blocking;
use super::handed::HandedOver;
use super::heartbeat::Counted;
use super::homeward::{Beginnings, Homeward};
use super::identity::KeptIdentity;
use super::patience::Patience;
use super::returning::Returning;
use super::turn::{Return, Turn};
use super::{WorkerError, deadman, heartbeat, returning};

/// All that a serving worker holds.
pub(super) struct Live {
    pub(super) client: Arc<Client>,
    pub(super) cache: Arc<Cache>,
    pub(super) fs: Arc<Fs>,
    pub(super) served: Served,
    pub(super) identity: KeptIdentity,
    pub(super) facts: NodeFacts,
    pub(super) at: PathBuf,
    /// With ciphertext, to be gone at the end.
    pub(super) files: Vec<PathBuf>,
    pub(super) mount_id: Option<u64>,
    pub(super) homeward: Option<Homeward>,
    pub(super) heartbeat: JoinHandle<()>,
    manifest: Arc<ShareManifest>,
    store: Arc<Store>,
    budget: Budget,
    config: CacheConfig,
    before: Progress,
    /// When the staging began, on the boot clock.
    begun: Duration,
    replaced: u32,
    ready: Ready,
    turns: UnboundedReceiver<Turn>,
    turn_sender: UnboundedSender<Turn>,
    silence: Option<Silence>,
    /// The lease has ended for us.
    over: bool,
}

/// No gateway was heard for the grace: nothing is served until one is.
struct Silence {
    /// Ends with the sealed blocks that lie complete on the disk.
    retiring: JoinHandle<Vec<Adopted>>,
    returning: Returning,
}

impl Live {
    /// Attaches, gets keys and manifest, opens the cache and serves the mount.
    pub(super) async fn begin(
        mut start: Start,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, WorkerError> {
        let handed = HandedOver::sort(start.results.as_ref(), descriptors)
            .ok_or_else(|| WorkerError::Internal("descriptors were not handed over".into()))?;
        let (kept, identity) = KeptIdentity::open(handed.identity).map_err(WorkerError::Serve)?;
        let successor = start.generation > 1;
        let facts = crate::facts::gather(&start.cache_dir);
        // Readers of a successor wait for as long as the grace; a first worker says at once what is wrong.
        let patience = Patience::of(Duration::from_secs(start.patience.into()));
        let attaching = || attach(&start.join, &identity, &facts, successor);
        let Attached { terms, client, .. } =
            patience.with("not attached yet; readers wait", attaching).await?;
        let (turn_sender, turns) = mpsc::unbounded_channel();
        // From here on the gateway waits for signs of life, however long the manifest takes.
        let counted = Arc::<Counted>::default();
        let heartbeat =
            heartbeat::start(Arc::clone(&client), Arc::clone(&counted), turn_sender.clone());
        deadman::watch(Arc::clone(client.ring()), turn_sender.clone())
            .map_err(WorkerError::Serve)?;
        // A successor asks for the manifest alone: of the blocks that it finds in the cache it does
        // not know yet which will be read.
        let first = terms.first_block;
        let window = if successor { first..first } else { terms.window_of(first) };
        let releasing = || client.keys(window.clone());
        let manifest_key = patience.with("no keys yet; readers wait", releasing).await?;
        let fetching = || client.manifest(&manifest_key);
        let bytes = patience.with("no manifest yet; readers wait", fetching).await?;
        let manifest = Arc::new(parse(bytes).await?);
        drop(manifest_key);
        let budget = Budget::new(start.memory);
        let store_config = StoreConfig { dir: start.cache_dir.clone(), bytes: start.cache_bytes };
        let (store, adopted) = open_store(store_config, &client, &manifest).await?;
        let cache_bytes = store.bytes();
        let config = CacheConfig {
            connections: start.connections,
            grace: Duration::from_secs(u64::from(terms.grace)),
        };
        // First of all, since blocks that are read take all that is left.
        let bring = start.results.is_some() && terms.results.is_some();
        let homewards = if bring { Some(crate::results::part_of(&budget).await) } else { None };
        let parts = CacheParts {
            manifest: Arc::clone(&manifest),
            client: Arc::clone(&client),
            keys: Arc::clone(client.ring()),
            store: Arc::clone(&store),
            adopted,
            budget: budget.clone(),
        };
        let cache = Cache::start(parts, config).map_err(WorkerError::Serve)?;
        counted.cache.get_or_init(|| Arc::clone(&cache));
        let fs = Arc::new(Fs::new(
            Arc::clone(&manifest),
            Arc::clone(&cache),
            start.owner,
            start.generation,
        ));
        let connection = Connection { devices: handed.data, init: start.init.0, successor };
        let served = fuse::serve(&fs, &budget, connection).map_err(WorkerError::Serve)?;
        let homeward = match (start.results.take(), handed.journal) {
            (Some(results), Some(journal)) => {
                let from = Beginnings {
                    client: &client,
                    budget: homewards.unwrap_or_else(|| budget.clone()),
                    dir: &start.cache_dir,
                    owner: start.owner,
                    generation: start.generation,
                };
                Homeward::begin(results, journal, handed.results, from).await?
            }
            _ => None,
        };
        let mut files = vec![store.path().to_owned()];
        if let Some(homeward) = &homeward {
            counted.results.get_or_init(|| Arc::clone(&homeward.results));
            files.push(crate::results::spool_in(&start.cache_dir, terms.lease, terms.rank));
        }
        let ready = Ready {
            files: terms.files,
            bytes: terms.bytes,
            blocks: terms.end_block - terms.first_block,
            inodes: fs.statfs().files,
            manifest_bytes: terms.manifest_len,
            cache_bytes,
            deadline: terms.deadline,
            grace: terms.grace,
            results: homeward.as_ref().map(Homeward::ready),
        };
        let Start { at, mount_id, before, begun, generation, .. } = start;
        Ok(Self {
            client,
            cache,
            fs,
            served,
            identity: kept,
            facts,
            at,
            files,
            mount_id,
            homeward,
            heartbeat,
            manifest,
            store,
            budget,
            config,
            before,
            begun,
            replaced: generation - 1,
            ready,
            turns,
            turn_sender,
            silence: None,
            over: false,
        })
    }

    pub(super) fn ready(&self) -> Ready {
        self.ready
    }

    pub(super) fn progress(&self) -> Progress {
        let (counted, refused) = (self.counted(), self.fs.refused());
        Progress {
            reads: counted.reads + refused,
            read_errors: counted.read_errors + refused,
            ..counted
        }
    }

    /// All that caches have counted.
    fn counted(&self) -> Progress {
        let seen = self.cache.progress();
        let first_byte = seen.first_byte.map(|at| at.saturating_sub(self.begun).as_millis());
        let first_byte = first_byte.map(|time| u64::try_from(time).unwrap_or(u64::MAX));
        Progress {
            resident_blocks: seen.resident_blocks,
            blocks: seen.blocks,
            first_byte_ms: self.before.first_byte_ms.or(first_byte),
            results: self.homeward.as_ref().map(Homeward::progress),
            ..self.before.with(&seen.counters)
        }
    }

    /// The budget of all buffers.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Workers of this mount that were killed before this one.
    pub(super) fn replaced(&self) -> u32 {
        self.replaced
    }

    /// The lease has ended for us.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Brings results home now that the job is over, at most for `most`; `None`: there are none to wait for.
    pub(super) fn drain(
        &mut self,
        most: Duration,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let ends = self.client.ring().life().ends();
        let homeward = self.homeward.as_mut().filter(|_| !self.over)?;
        Some(homeward.drain(most, ends))
    }

    /// Whether reads are answered.
    pub(super) fn serves(&self) -> bool {
        !self.over && self.silence.is_none()
    }

    /// Whether the lease's deadline has come, as our newest attachment knows it.
    pub(super) fn is_past_deadline(&self) -> bool {
        self.client.ring().life().past() == Some(Past::Deadline)
    }

    /// Until when on the boot clock reads are answered without another word of a gateway; `None` while
    /// none is.
    pub(super) fn until(&self) -> Option<Duration> {
        self.serves().then(|| self.client.ring().life().until())
    }

    /// Waits for what changes our standing. Cancel safe.
    pub(super) async fn turn(&mut self) -> Turn {
        match self.turns.recv().await {
            Some(turn) => turn,
            // Not reached: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// No gateway was heard for the grace. Nothing can be opened or read, by this process or from the
    /// kernel's cache, until one lets us attach again. The sealed blocks stay on the disk.
    pub(super) async fn fall_silent(&mut self) {
        if self.over || self.silence.is_some() {
            return;
        }
        self.heartbeat.abort();
        self.close(ReadError::Unavailable).await;
        // Fetches may be waiting for the disk; that is not waited for here.
        let cache = Arc::clone(&self.cache);
        let retiring = tokio::spawn(async move { cache.retire().await });
        let returning = returning::start(
            Arc::clone(&self.client),
            self.facts.clone(),
            self.turn_sender.clone(),
        );
        self.silence = Some(Silence { retiring, returning });
    }

    /// Reads are answered again, with the keys of a new attachment and the blocks that are here.
    pub(super) async fn resume(&mut self, back: Return) -> io::Result<()> {
        if self.over {
            return Ok(());
        }
        let Some(Silence { retiring, .. }) = self.silence.take() else { return Ok(()) };
        let Return { client, keys } = back;
        deadman::watch(Arc::clone(&keys), self.turn_sender.clone())?;
        let adopted = retiring.await.map_err(io::Error::other)?;
        self.before = self.counted();
        let parts = CacheParts {
            manifest: Arc::clone(&self.manifest),
            client: Arc::clone(&client),
            keys,
            store: Arc::clone(&self.store),
            adopted,
            budget: self.budget.clone(),
        };
        self.cache = Cache::start(parts, self.config)?;
        if let Some(homeward) = &self.homeward {
            homeward.results.reattached(Arc::clone(&client));
        }
        self.client = client;
        self.heartbeat = self.beat();
        self.fs.resume(Arc::clone(&self.cache));
        Ok(())
    }

    fn beat(&self) -> JoinHandle<()> {
        let counted = Counted {
            cache: Arc::clone(&self.cache).into(),
            results: match &self.homeward {
                Some(homeward) => Arc::clone(&homeward.results).into(),
                None => OnceLock::new(),
            },
        };
        heartbeat::start(Arc::clone(&self.client), Arc::new(counted), self.turn_sender.clone())
    }

    /// The end, whatever comes: from here on nothing can be opened or read, by this process or from the
    /// kernel's cache.
    pub(super) async fn destroy_keys(&mut self) {
        self.over = true;
        if let Some(Silence { retiring, returning }) = self.silence.take() {
            if let Some(client) = returning.give_up().await {
                client.ring().destroy();
                self.client = client;
            }
            let _ended_either_way = retiring.await;
            self.heartbeat = self.beat();
        }
        // All keys before any page: the kernel may take its time with those.
        let written = self.homeward.as_mut().map(Homeward::destroy_keys);
        self.close(ReadError::LeaseOver).await;
        if let Some(written) = written {
            written.await;
        }
    }

    /// Destroys the keys and drops all plaintext; reads fail for this reason.
    async fn close(&self, why: ReadError) {
        self.fs.refuse(why);
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
