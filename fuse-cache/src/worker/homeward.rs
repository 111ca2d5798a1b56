//! Results of a worker's job: the mount they are written to, and their way home.
//!
//! Silence of the gateway takes nothing from them: they are the job's own, operations wait for as long as
//! the lease lives, and their keys stay. The end of the lease destroys them with everything else.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::INodeNo;
use tidegate_kit::clock::boottime;
use tidegate_ledger::StatedResults;
use tidegate_wire::ResultsTerms;

use crate::budget::Budget;
use crate::client::Client;
use crate::control::{ReadyResults, ResultsProgress, ResultsStart};
use crate::fuse::{self, Connection, Served};
use crate::results::{Results, ResultsConfig};

use super::WorkerError;
use super::blocking::blocking;

/// How long the kernel may take to hand over what was written to mappings.
const MAPPED: Duration = Duration::from_secs(60);

/// The served mount for results.
pub(super) struct Homeward {
    pub(super) results: Arc<Results>,
    served: Served,
    pub(super) at: PathBuf,
    pub(super) mount_id: Option<u64>,
    ready: ReadyResults,
    draining: bool,
    /// Once the keys are gone: what is at home, and what is lost, and that in bytes.
    stated: Option<(StatedResults, u64)>,
}

/// What the results of a lease begin with.
pub(super) struct Beginnings<'a> {
    pub(super) client: &'a Arc<Client>,
    /// What is theirs of all buffers.
    pub(super) budget: Budget,
    /// Of the cache, where the spool lies too.
    pub(super) dir: &'a Path,
    pub(super) owner: (u32, u32),
    pub(super) generation: u32,
}

impl Homeward {
    /// Serves the mount; `None` for a lease that brings nothing home.
    pub(super) async fn begin(
        start: ResultsStart,
        journal: OwnedFd,
        devices: Vec<OwnedFd>,
        from: Beginnings<'_>,
    ) -> Result<Option<Self>, WorkerError> {
        let Some(terms) = &from.client.terms().results else {
            return if start.required { Err(WorkerError::NoResults) } else { Ok(None) };
        };
        let ResultsTerms { bytes, files, resume: resumed, drain_s, .. } = *terms;
        let config = ResultsConfig {
            dir: from.dir.to_owned(),
            spool_bytes: start.spool_bytes,
            asynchronous: start.asynchronous,
            owner: from.owner,
            journal,
            generation: from.generation,
        };
        let results = Results::begin(config, Arc::clone(from.client), from.budget).await?;
        let successor = from.generation > 1;
        let connection = Connection { devices, init: start.init.0, successor };
        let served = fuse::serve_results(&results, connection).map_err(WorkerError::Serve)?;
        Ok(Some(Self {
            results,
            served,
            at: start.at,
            mount_id: start.mount_id,
            ready: ReadyResults { bytes, files, resumed, drain_s },
            draining: false,
            stated: None,
        }))
    }

    pub(super) fn ready(&self) -> ReadyResults {
        self.ready
    }

    pub(super) fn progress(&self) -> ResultsProgress {
        let seen = self.results.figures();
        ResultsProgress {
            unsent_bytes: self.stated.as_ref().map_or(seen.unsent_bytes, |(_, lost)| *lost),
            unsent_files: match &self.stated {
                Some((stated, _)) => stated.lost_files,
                None => seen.unsent_files,
            },
            spool_bytes: seen.spool_bytes,
            home_bytes: seen.home_bytes,
            home_files: seen.home_files,
            oldest_unsaved_s: seen.oldest_unsaved_s,
            draining: self.draining,
        }
    }

    /// The job is over: brings home what is not there, for as long as the terms allow, at most for `most`,
    /// and never past `ends` on the boot clock. What comes of it is known once the keys are destroyed.
    pub(super) fn drain(
        &mut self,
        most: Duration,
        ends: Duration,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.draining = true;
        let long = Duration::from_secs(self.ready.drain_s.into()).min(most);
        let until = boottime().saturating_add(long).min(ends);
        let (results, handing_over) = (Arc::clone(&self.results), self.drop_pages());
        async move {
            // Dropping a page that was written to in a mapping writes it to us first.
            let in_time = tokio::time::timeout(MAPPED.min(long / 4), handing_over).await;
            if in_time.is_err() {
                tracing::warn!("the kernel still has pages of mapped results");
            }
            let left = results.drain(until).await;
            if left.lost_files > 0 {
                tracing::error!(files = left.lost_files, "not all results came home");
            }
        }
    }

    /// Nothing of the results can be opened or written any more; the kernel's pages go after that.
    pub(super) fn destroy_keys(&mut self) -> impl Future<Output = ()> + Send + 'static {
        if self.stated.is_none() {
            let unsent = self.results.figures().unsent_bytes;
            let stated = self.results.destroy_keys();
            // A file may be lost that has no bytes.
            let lost = if stated.lost_files > 0 { unsent.max(1) } else { 0 };
            self.stated = Some((stated, lost));
        }
        self.drop_pages()
    }

    pub(super) fn stated(&self) -> Option<StatedResults> {
        self.stated.as_ref().map(|(stated, _)| stated.clone())
    }

    fn drop_pages(&self) -> impl Future<Output = ()> + Send + 'static {
        let (pages, results) = (self.served.pages(), Arc::clone(&self.results));
        let dropping = move || pages.drop_of(results.cached_nodes().into_iter().map(INodeNo));
        async move {
            match blocking(dropping).await {
                Ok(0) => {}
                Ok(refused) => {
                    tracing::debug!(refused, "pages of some results were not dropped");
                }
                Err(error) => tracing::error!(%error, "cached pages of results were not dropped"),
            }
        }
    }

    pub(super) fn into_parts(self) -> (Arc<Results>, Served) {
        (self.results, self.served)
    }
}
