//! What all replicas of a simulation have in common, and one replica opened on it: the real office,
//! routes and reaper over the simulated bucket, clock and network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidegate_kit::ledger_log::{LedgerConfig, LedgerLog};
use tidegate_kit::state::{Revisions, StateStore};
use tidegate_kit::tls::Authority;
use tidegate_plan::SelectionSpec;

use super::executor::{Host, HostClock, Sim};
use super::planted::{self, Planted};
use super::store::Reached;
use crate::book::Book;
use crate::config::GatewayConfig;
use crate::granting::GrantRequest;
use crate::keyring::{Keyring, Retired, Wrapped};
use crate::nodes::NodePolicy;
use crate::office::{Office, Parts};
use crate::reaper::{look, round};
use crate::record::Record;
use crate::recovery::recover;
use crate::source::{S3Options, SourceSpec};
use crate::state::StateBucket;

/// Seconds between heartbeats, the grace, and the silence after which a worker is taken for gone.
pub(super) const HEARTBEAT_S: u32 = 10;
pub(super) const GRACE_S: u32 = 30;
pub(super) const SILENCE_S: u32 = 80;

/// A directory with the data and the keys that the replicas share. Nothing of a lease lies here.
pub(super) struct House {
    dir: tempfile::TempDir,
    authority: Arc<Authority>,
}

impl House {
    pub(super) fn build() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        for (name, mib) in [("data/a", 18), ("data/b", 18)] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().set_len(mib << 20).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("state/gateways")).unwrap();
        let authority = Arc::new(Authority::generate().unwrap());
        Arc::new(Self { dir, authority })
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    fn config(&self) -> GatewayConfig {
        let bucket = StateBucket {
            url: "s3://simulated/state".to_owned(),
            endpoint: None,
            region: None,
            profile: None,
            credentials_file: None,
        };
        let mut config = GatewayConfig::embedded(self.dir.path().join("state"), self.data());
        config.embedded = false;
        config.nodes = NodePolicy::default();
        config.state_bucket = Some(bucket);
        (config.heartbeat_s, config.grace_s) = (HEARTBEAT_S, GRACE_S);
        config.silence_s = Some(SILENCE_S);
        config
    }

    /// Two ranks of some blocks each.
    pub(super) fn request(&self, duration: Duration) -> GrantRequest {
        GrantRequest {
            source: SourceSpec::parse(&self.data(), S3Options::default()).unwrap(),
            selection: SelectionSpec::default(),
            ranks: 2,
            only_rank: None,
            duration,
            subject: "somebody".to_owned(),
            dataset: "set".to_owned(),
            results: None,
        }
    }

    /// The lease documents of a bucket, believed only with the right MAC.
    pub(super) fn revisions(&self, store: StateStore) -> Revisions {
        Revisions::open(store, &self.secrets().join("state.key")).unwrap()
    }
}

/// A replica that is up.
pub(super) struct Replica {
    pub(super) office: Arc<Office>,
    pub(super) router: Router,
}

impl Replica {
    /// What a gateway's start does, but for its listeners.
    pub(super) async fn open(
        house: &House,
        reached: Reached,
        clock: HostClock,
        number: usize,
        planted: Option<Planted>,
    ) -> anyhow::Result<Arc<Self>> {
        let sim = reached.sim.clone();
        let store = StateStore::in_bucket(Arc::new(reached), "simulated".to_owned()).await?;
        let root = house.secrets().join("keyring");
        let revisions = house.revisions(store.clone());
        let (wrapped, retired) = (Wrapped::in_store(store.clone()), Retired::new(&revisions));
        let keyring = Keyring::open(&root, wrapped, retired, house.config().key_epoch_s).await?;
        let config = LedgerConfig {
            key_file: house.secrets().join("ledger.key"),
            origin: Some("simulated".to_owned()),
            checkpoint_copy: None,
        };
        let clock = Arc::new(clock);
        let (log, writing) = LedgerLog::open_with(store.clone(), config, clock.clone()).await?;
        sim.spawn(Host::Replica(number), writing);
        let office = Arc::new(Office::new(Parts {
            nonce_key: revisions.derive("tidegate/v1 challenge nonces"),
            book: Book::new(revisions),
            record: Record::new(log, store),
            config: house.config(),
            keyring,
            authority: Arc::clone(&house.authority),
            clock,
            urls: vec!["https://simulated:1".to_owned()],
            owner: None,
            replica: number.to_string(),
        }));
        recover(&office).await?;
        let router = planted::router(Arc::clone(&office), planted, &sim, number);
        Ok(Arc::new(Self { office, router }))
    }

    /// What the reaper does, second by second.
    pub(super) async fn keep(&self, sim: &Sim, mut each_second: impl FnMut(&Self)) {
        let mut last = self.office.now();
        for second in 1_u64.. {
            sim.sleep(Duration::from_secs(1)).await;
            look(&self.office, last).await;
            if second % 10 == 0 {
                round(&self.office).await;
            }
            last = self.office.now();
            each_second(self);
        }
    }
}
