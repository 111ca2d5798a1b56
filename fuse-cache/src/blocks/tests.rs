mod faults;
pub(crate) mod gateway;
pub(crate) mod home;
mod reading;
mod trust;
mod windows;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{JoinFile, NodeFacts};

use super::*;
use crate::client::{Attached, ClientError, Identity, attach};
use crate::store::{Demand, StoreConfig};
use gateway::Gateway;
use home::Home;

const MIB: u64 = 1 << 20;

/// A worker without its mount.
struct Worker {
    gateway: Arc<Gateway>,
    manifest: Arc<ShareManifest>,
    cache: Arc<Cache>,
    client: Arc<Client>,
    dir: tempfile::TempDir,
}

impl Worker {
    /// With a cache of so many bytes (`None`: as large as the share) and a grace.
    async fn start(home: Home, bytes: Option<u64>, grace: Duration) -> Self {
        let gateway = Gateway::start(home).await;
        Self::at(gateway, bytes, grace).await
    }

    async fn at(gateway: Arc<Gateway>, bytes: Option<u64>, grace: Duration) -> Self {
        Self::within(gateway, disk(), bytes, grace).await
    }

    async fn within(
        gateway: Arc<Gateway>,
        dir: tempfile::TempDir,
        bytes: Option<u64>,
        grace: Duration,
    ) -> Self {
        let (manifest, client, cache) = open(&gateway, dir.path(), bytes, grace).await;
        Self { gateway, manifest, cache, client, dir }
    }

    /// The worker that comes after this one was killed; what the kernel does for a killed process is
    /// done by hand.
    async fn succeeded(self) -> Self {
        self.cache.core.close();
        let filling = self.cache.filling.lock().unwrap().take();
        let Filling { task, threads } = filling.unwrap();
        task.await.unwrap();
        threads.shutdown_background();
        let Self { gateway, cache, dir, .. } = self;
        until(|| Arc::strong_count(&cache.core) == 1).await;
        drop(cache);
        Self::within(gateway, dir, None, LONG).await
    }

    /// Reads part of a file by way of its pieces, as the file system does.
    async fn read(&self, file: u32, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let mut out = vec![0; len];
        let mut done = 0;
        while done < len {
            let piece = self.manifest.locate(1 + file, offset + done as u64).unwrap();
            let many = (len - done).min(piece.len as usize);
            let part = &mut out[done..done + many];
            if !self.cache.try_read(&piece, part)? {
                self.cache.read(&piece, part).await?;
            }
            done += many;
        }
        Ok(out)
    }

    async fn check(&self, file: u32, offset: u64, len: usize) {
        let seen = self.read(file, offset, len).await.unwrap();
        assert!(seen == self.gateway.home.bytes(file, offset, len), "{file} {offset} {len}");
    }

    async fn check_all(&self) {
        for file in 0..u32::try_from(self.gateway.home.terms().files).unwrap() {
            let size = self.gateway.home.size(file);
            for offset in (0..size).step_by(3 << 20) {
                let len = usize::try_from((size - offset).min(3 << 20)).unwrap();
                self.check(file, offset, len).await;
            }
        }
    }

    /// Until every block of the share is on disk.
    async fn filled(&self) {
        until(|| {
            let progress = self.cache.progress();
            progress.resident_blocks == progress.blocks
        })
        .await;
    }

    fn block_of(&self, file: u32) -> u32 {
        self.manifest.locate(1 + file, 0).unwrap().block
    }
}

async fn open(
    gateway: &Arc<Gateway>,
    dir: &Path,
    bytes: Option<u64>,
    grace: Duration,
) -> (Arc<ShareManifest>, Arc<Client>, Arc<Cache>) {
    let identity = Identity::from_seed(&[1; 32]);
    let Attached { terms, client, .. } =
        attach(&gateway.join, &identity, NodeFacts::default()).await.unwrap();
    let is_successor = std::fs::read_dir(dir).unwrap().count() > 0;
    let first = terms.first_block;
    let window = if is_successor { first..first } else { terms.window_of(first) };
    let manifest_key = client.keys(window).await.unwrap();
    let manifest = client.manifest(&manifest_key).await.unwrap();
    let manifest = Arc::new(ShareManifest::parse(manifest).unwrap());
    let largest = manifest.blocks().filter_map(|block| manifest.block(block));
    let largest = largest.map(|block| block.plain_len).max().unwrap_or(0);
    let demand = Demand { blocks: manifest.blocks().end, largest };
    let config = StoreConfig { dir: dir.to_owned(), bytes };
    let (store, adopted) = Store::open(&config, &terms, demand).unwrap();
    let parts = CacheParts {
        manifest: Arc::clone(&manifest),
        client: Arc::clone(&client),
        keys: Arc::clone(client.ring()),
        store,
        adopted,
        budget: Budget::new(64 * MIB),
    };
    let cache = Cache::start(parts, CacheConfig { connections: 4, grace }).unwrap();
    (manifest, client, cache)
}

pub(crate) fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
}

/// Waits for a condition; the test's own limit of time is the harness's.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const LONG: Duration = Duration::from_secs(600);

fn seeded(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(2) | 1;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}
