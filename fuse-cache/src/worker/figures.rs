//! The worker's figures, made when its holder asks for them.

use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_kit::telemetry::exposition::{Exposition, MeterError};

use super::heartbeat;
use super::live::Live;
use crate::control::{Figures, ResultsProgress};
use crate::meters;

/// Collects from now on.
pub(super) fn begin() -> Result<Exposition, MeterError> {
    Exposition::begin(&[meters::ALL])
}

/// All figures as they are now.
pub(super) fn take(live: &Live, exposition: &Exposition) -> Figures {
    let progress = live.progress();
    meters::READS.total(progress.reads);
    meters::READ_ERRORS.total(progress.read_errors);
    meters::READ_BYTES.total(progress.bytes_read);
    meters::FETCHED.total(progress.blocks_fetched);
    meters::FETCHED_BYTES.total(progress.bytes_fetched);
    meters::REFETCHED.total(progress.refetched);
    meters::SHARE.set(progress.blocks.into());
    meters::RESIDENT.set(progress.resident_blocks.into());
    meters::REPLACED.total(live.replaced().into());
    let ready = live.ready();
    meters::CACHE.set(ready.cache_bytes);
    meters::DEADLINE.set(ready.deadline);
    let mut page_cache = live.fs.page_cache_bytes();
    if let Some(homeward) = &live.homeward {
        page_cache += homeward.results.page_cache_bytes();
        homewards(&homeward.progress());
    }
    meters::PAGE_CACHE.set(page_cache);
    meters::BUFFERS.set(live.budget().in_use());
    meters::BUFFERS_LIMIT.set(live.budget().total());

    let grace = Duration::from_secs(u64::from(live.client.terms().grace));
    let age = heartbeat::last_heard().map(|heard| boottime().saturating_sub(heard));
    meters::HEARTBEAT_AGE.set_seconds(age.unwrap_or_default());
    let left =
        if live.serves() { grace.saturating_sub(age.unwrap_or_default()) } else { Duration::ZERO };
    meters::GRACE_LEFT.set_seconds(left);
    let serves = !left.is_zero();
    meters::READY.set(serves.into());
    meters::UP.set(1);
    Figures { text: exposition.render(), ready: serves }
}

fn homewards(results: &ResultsProgress) {
    meters::RESULTS_UNSENT.set(results.unsent_bytes);
    meters::RESULTS_SPOOL.set(results.spool_bytes);
    meters::RESULTS_HOME_BYTES.total(results.home_bytes);
    meters::RESULTS_HOME_FILES.total(results.home_files);
    meters::RESULTS_OLDEST.set(results.oldest_unsaved_s.unwrap_or_default());
}
