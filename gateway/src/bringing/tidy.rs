//! What a lease that is over has left half done at home is taken away: its temporary directory, its
//! uploads. The lease's end does not wait for it, since the home may be away; it is tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use tidegate_kit::telemetry::chain;

use super::home::{self, HomeRefused};
use crate::live::Live;
use crate::office::Office;
use crate::results::HomeError;

/// For how long one home is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Leases that are tidied up after at once.
const AT_ONCE: usize = 16;

/// Tidies up after all leases that are closed, and were not tidied up after.
pub(crate) async fn tidy(office: &Office) {
    let untidy = |live: &Arc<Live>| live.is_closed() && !live.tidied.load(Ordering::SeqCst);
    let closed = futures_util::stream::iter(office.all().into_iter().filter(untidy));
    let tidying = closed.for_each_concurrent(AT_ONCE, async |live| {
        match tokio::time::timeout(PATIENCE, tidy_one(office, &live)).await {
            Ok(Ok(())) => live.tidied.store(true, Ordering::SeqCst),
            Ok(Err(error)) => {
                tracing::warn!(lease = %live.id, error = %chain(&error), "what a lease left half done at home stays for now");
            }
            Err(_) => {
                tracing::warn!(lease = %live.id, "what a lease left half done at home stays for now: no answer");
            }
        }
    });
    tidying.await;
}

#[derive(Debug, thiserror::Error)]
enum Untidy {
    #[error(transparent)]
    Refused(#[from] HomeRefused),
    #[error(transparent)]
    Home(#[from] HomeError),
}

async fn tidy_one(office: &Office, live: &Live) -> Result<(), Untidy> {
    let document = live.view().document;
    let Some(part) = &document.results else { return Ok(()) };
    let desk = match live.desk.get() {
        Some(desk) => Arc::clone(desk),
        None => home::open(office, live, &document, part).await?,
    };
    for upload in desk.left_over() {
        desk.home.give_up(&upload).await?;
    }
    desk.home.tidy(live.id).await?;
    // Uploads that another process began are known to the store alone, which does not say whose they are: a rule
    // of the bucket takes them away.
    Ok(())
}
