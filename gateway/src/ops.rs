//! The gateway as its operators see it: up, ready, and its figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_kit::telemetry::exposition::Exposition;
use tidegate_kit::telemetry::ops::Daemon;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::meters;
use crate::office::Office;
use crate::status::{PHASES, phase};

/// State and ledger are asked at most this often, however often we are.
const CHECK_AGE: Duration = Duration::from_secs(4);
/// A store that takes longer is away.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// What the state and the ledger said when they were last asked.
type Verdict = Result<(), &'static str>;

/// Made before the gateway has come up; gets its office then.
pub(crate) struct Ops {
    exposition: Exposition,
    office: OnceLock<Arc<Office>>,
    stopping: AtomicBool,
    checked: Mutex<Option<(Instant, Verdict)>>,
}

impl Ops {
    pub(crate) fn new(exposition: Exposition) -> Self {
        Self {
            exposition,
            office: OnceLock::new(),
            stopping: AtomicBool::new(false),
            checked: Mutex::default(),
        }
    }

    /// The gateway has come up.
    pub(crate) fn started(&self, office: Arc<Office>) {
        self.office.get_or_init(|| office);
    }

    /// The gateway takes no more requests.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether state and ledger answer. One caller asks them; the others wait for what it hears.
    async fn check(&self) -> Verdict {
        let Some(office) = self.office.get() else { return Err("starting") };
        if self.stopping.load(Ordering::SeqCst) {
            return Err("stopping");
        }
        let mut checked = self.checked.lock().await;
        if let Some((at, verdict)) = *checked
            && at.elapsed() < CHECK_AGE
        {
            return verdict;
        }
        let verdict = match timeout(CHECK_TIME, office.record.check()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(error = %crate::recovery::chain(&error), "state or ledger do not answer");
                Err("state or ledger do not answer")
            }
            Err(_) => {
                tracing::warn!("state and ledger take too long to answer");
                Err("state or ledger take too long to answer")
            }
        };
        *checked = Some((Instant::now(), verdict));
        verdict
    }
}

impl Daemon for Ops {
    fn is_started(&self) -> bool {
        self.office.get().is_some()
    }

    async fn ready(&self) -> Result<(), String> {
        self.check().await.map_err(str::to_owned)
    }

    async fn metrics(&self) -> String {
        meters::READY.set(self.check().await.is_ok().into());
        if let Some(office) = self.office.get() {
            measure(office);
        }
        self.exposition.render()
    }

    fn upkeep(&self) {
        self.exposition.upkeep();
    }
}

/// Brings the gauges up to date.
fn measure(office: &Office) {
    let now = office.now();
    let (mut phases, mut workers, mut silence) = ([0; PHASES.len()], 0, 0);
    for live in office.all() {
        let document = live.view().document;
        let word = phase(&live);
        if let Some(place) = PHASES.iter().position(|known| *known == word) {
            phases[place] += 1;
        }
        if document.lease.is_closed() {
            continue;
        }
        for held in document.lease.attachments.iter().filter(|held| held.is_current()) {
            workers += 1;
            if !held.wiped {
                let seen = held.last_seen.max(live.presence(held.rank).last_seen());
                silence = silence.max(now.saturating_sub(seen));
            }
        }
    }
    for (word, count) in PHASES.iter().zip(phases) {
        meters::LEASES.set_for(&[word], count);
    }
    meters::LEASE_PLACES.set(office.places.available_permits() as u64);
    meters::WORKERS.set(workers);
    meters::SILENCE.set(silence);
    meters::BUFFERS.set(office.budget.used());
    meters::BUFFERS_LIMIT.set(office.config.limits.buffers);
    meters::SNAPSHOTS.set(office.shelf.bytes());
    meters::SNAPSHOTS_LIMIT.set(office.config.limits.snapshots);
    office.record.measure();
}
