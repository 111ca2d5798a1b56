//! Changes of names at home.

use tidegate_ledger::ResultsAct;
use tidegate_wire::{Change, ChangeRequest, Changed};

use super::{Bringing, listed, to_its_end};
use crate::problem::Refusal;
use crate::results::Kept;

/// `POST change`.
pub(crate) async fn change(
    bringing: &Bringing,
    request: ChangeRequest,
) -> Result<Changed, Refusal> {
    for path in paths(&request.change) {
        bringing.name(path)?;
    }
    let bringing = bringing.clone();
    let step = async move {
        let ChangeRequest { seq, change } = request;
        let nothing = || Changed { version: String::new() };
        let moves = match &change {
            Change::RenameDirectory { from, .. } => Some(from),
            _ => None,
        };
        let turn = bringing.turn_of(&paths(&change), moves.is_some(), seq).await?;
        let Some(turn) = turn else { return Ok(nothing()) };
        let changed = make(&bringing, &change).await?;
        if let Some(from) = moves {
            bringing.desk.turns.moved(from, bringing.admitted.peer.public_key, seq);
        }
        turn.done();
        Ok(changed.unwrap_or_else(nothing))
    };
    to_its_end(step).await
}

fn paths(change: &Change) -> Vec<&str> {
    match change {
        Change::Rename { from, to } | Change::RenameDirectory { from, to } => vec![from, to],
        Change::Unlink { path }
        | Change::MakeDirectory { path, .. }
        | Change::RemoveDirectory { path }
        | Change::SetAttributes { path, .. } => vec![path],
    }
}

async fn make(bringing: &Bringing, change: &Change) -> Result<Option<Changed>, Refusal> {
    let (home, failed) = (&bringing.desk.home, |error| bringing.failed(error));
    match change {
        Change::Rename { from, to } => {
            let kept = home.rename(from, to).await.map_err(failed)?;
            bringing.note(ResultsAct::Renamed, listed(to, Some(from), &kept)).await?;
            return Ok(Some(Changed { version: kept.version }));
        }
        Change::RenameDirectory { from, to } => {
            home.rename_directory(from, to).await.map_err(failed)?;
            let directory = Kept { version: String::new(), len: 0, blake3: None };
            bringing.note(ResultsAct::Renamed, listed(to, Some(from), &directory)).await?;
        }
        Change::Unlink { path } => {
            if let Some(kept) = home.unlink(path).await.map_err(failed)? {
                bringing.note(ResultsAct::Removed, listed(path, None, &kept)).await?;
            }
        }
        Change::MakeDirectory { path, mode } => {
            home.make_directory(path, *mode).await.map_err(failed)?;
        }
        Change::RemoveDirectory { path } => home.remove_directory(path).await.map_err(failed)?,
        Change::SetAttributes { path, attributes } => {
            home.set_attributes(path, *attributes).await.map_err(failed)?;
        }
    }
    Ok(None)
}
