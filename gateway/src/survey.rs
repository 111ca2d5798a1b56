//! What a selection of a source comes to, before anything is granted: nothing moves.

use std::sync::Arc;

use tidegate_plan::SelectionSpec;

use crate::shelf::{Cut, CutError, Shelf};
use crate::source::{Source, SourceError, SourceSpec};

/// A source listed, selected from and cut.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) source: Arc<Source>,
    pub(crate) cut: Arc<Cut>,
}

/// A survey cannot be made; each cause is one the caller can mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    #[error("the source cannot be used")]
    Source(#[from] SourceError),
    #[error(transparent)]
    Cut(#[from] CutError),
    #[error("the survey was given up")]
    Task(#[from] tokio::task::JoinError),
}

impl Survey {
    /// Lists `spec` and cuts the selection into `ranks` shares.
    pub(crate) async fn take(
        shelf: &Arc<Shelf>,
        spec: SourceSpec,
        selection: SelectionSpec,
        ranks: u16,
    ) -> Result<Self, SurveyError> {
        let source = Arc::new(Source::open(spec).await?);
        let turn = shelf.turn().await;
        let snapshot = shelf.admit(source.snapshot().await?)?;
        drop(turn);
        let shelf = Arc::clone(shelf);
        let making = move || shelf.admit_cut(snapshot, &selection, ranks);
        let cut = tokio::task::spawn_blocking(making).await??;
        Ok(Self { source, cut })
    }

    /// Names that cannot be shown as POSIX paths, each with the reason.
    pub(crate) fn unshown(&self) -> Vec<(String, String)> {
        let unshown = self.cut.snapshot.unshown().iter();
        unshown
            .map(|name| (String::from_utf8_lossy(&name.name).into_owned(), name.reason.clone()))
            .collect()
    }
}
