//! Changes of names at home.

use tidegate_ledger::ResultsAct;
use tidegate_wire::{Change, ChangeRequest, Changed};

use super::{Bringing, listed};
use crate::problem::Refusal;
use crate::results::{Gone, Kept};

/// `POST change`.
pub(crate) async fn change(
    bringing: &Bringing,
    request: ChangeRequest,
) -> Result<Changed, Refusal> {
    for path in paths(&request.change) {
        bringing.name(path)?;
    }
    bringing.desk.changes.take(1).await;
    let caller = bringing;
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
    caller.to_its_end(step).await
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
    let only = bringing.only();
    match change {
        Change::Rename { from, to } => {
            let kept = home.rename(from, to, only).await.map_err(failed)?;
            bringing.note(ResultsAct::Renamed, listed(to, Some(from), &kept)).await?;
            return Ok(Some(Changed { version: kept.version }));
        }
        Change::RenameDirectory { from, to } => {
            home.rename_directory(from, to).await.map_err(failed)?;
            let directory = Kept { version: String::new(), len: 0, blake3: None };
            bringing.note(ResultsAct::Renamed, listed(to, Some(from), &directory)).await?;
        }
        Change::Unlink { path } => {
            let gone = home.unlink(path, only).await.map_err(failed)?;
            let kept = match gone {
                Gone::Now(kept) => kept,
                // It went when this was asked before, perhaps, and its entry was not written.
                Gone::Before => Kept::default(),
                Gone::Hidden => return Ok(None),
            };
            bringing.note(ResultsAct::Removed, listed(path, None, &kept)).await?;
        }
        Change::MakeDirectory { path, mode } => {
            home.make_directory(path, *mode).await.map_err(failed)?;
        }
        Change::RemoveDirectory { path } => home.remove_directory(path).await.map_err(failed)?,
        Change::SetAttributes { path, attributes } => {
            home.set_attributes(path, *attributes, only).await.map_err(failed)?;
        }
    }
    Ok(None)
}
