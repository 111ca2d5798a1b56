//! What a selection of a source comes to, before anything is granted: nothing moves.

use std::sync::Arc;

use tidegate_plan::{
    Estimate, Layout, LayoutError, Selection, SelectionError, SelectionSpec, Snapshot,
};

use crate::source::{Source, SourceError, SourceSpec};

/// A source listed, selected from and cut.
#[derive(Debug)]
pub struct Survey {
    pub source: Arc<Source>,
    pub snapshot: Arc<Snapshot>,
    pub selection: Arc<Selection>,
    pub layout: Arc<Layout>,
    /// Sums over all shares.
    pub lease: Estimate,
}

/// A survey cannot be made; each cause is one the caller can mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    #[error("the source cannot be used")]
    Source(#[from] SourceError),
    #[error("the selection cannot be made")]
    Selection(#[from] SelectionError),
    #[error("the selection cannot be cut into blocks")]
    Layout(#[from] LayoutError),
    #[error("the survey was given up")]
    Task(#[from] tokio::task::JoinError),
}

impl Survey {
    /// Lists `spec` and cuts the selection into `ranks` shares.
    pub async fn take(
        spec: SourceSpec,
        selection: &SelectionSpec,
        ranks: u16,
    ) -> Result<Self, SurveyError> {
        let source = Arc::new(Source::open(spec).await?);
        let snapshot = Arc::new(source.snapshot().await?);
        Self::of(source, snapshot, selection.clone(), ranks).await
    }

    /// The same of a snapshot that was taken before.
    pub(crate) async fn of(
        source: Arc<Source>,
        snapshot: Arc<Snapshot>,
        selection: SelectionSpec,
        ranks: u16,
    ) -> Result<Self, SurveyError> {
        tokio::task::spawn_blocking(move || {
            let selection = Selection::resolve(&snapshot, &selection)?;
            let layout = Layout::build(&snapshot, &selection, ranks)?;
            let lease = Estimate::of_lease(&snapshot, &selection, &layout);
            Ok(Self {
                source,
                snapshot,
                selection: Arc::new(selection),
                layout: Arc::new(layout),
                lease,
            })
        })
        .await?
    }

    /// Sums of one rank's share.
    pub fn share(&self, rank: u16) -> Estimate {
        Estimate::of_share(&self.snapshot, &self.selection, &self.layout, rank)
    }

    /// Names that cannot be shown as POSIX paths, each with the reason.
    pub fn unshown(&self) -> Vec<(String, String)> {
        let unshown = self.snapshot.unshown().iter();
        unshown
            .map(|name| (String::from_utf8_lossy(&name.name).into_owned(), name.reason.clone()))
            .collect()
    }
}
