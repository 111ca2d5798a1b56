//! Changes of names at home.

use tidegate_ledger::ResultsAct;
use tidegate_wire::{Change, ChangeRequest, Changed};

use super::{Bringing, listed};
use crate::problem::Refusal;
use crate::results::{Gone, Kept, Share};

/// Bytes of names that a change is counted once for.
const NAMES: usize = 128;

/// `POST change`.
pub(crate) async fn change(
    bringing: &Bringing,
    request: ChangeRequest,
) -> Result<Changed, Refusal> {
    for path in paths(&request.change) {
        bringing.name(path)?;
    }
    // Names cost no budget: the more is written down of them, the slower they come.
    let long: usize = paths(&request.change).iter().map(|path| path.len()).sum();
    bringing.desk.changes.take(1 + (long / NAMES) as u64).await;
    let mut spent = match request.change {
        // A directory is one more thing at home, as a file is.
        Change::MakeDirectory { ref path, .. } => {
            let (one, seq) = (Share { bytes: 0, files: 1 }, request.seq.to_be_bytes());
            Some(bringing.spend(one, &[b"directory", path.as_bytes(), &seq]).await?)
        }
        _ => None,
    };
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let ChangeRequest { seq, change } = request;
        let nothing = || Changed { version: String::new() };
        let moves = match &change {
            Change::RenameDirectory { from, to } => Some([from.as_str(), to.as_str()]),
            _ => None,
        };
        let turn = bringing.turn_of(&paths(&change), moves.is_some(), seq).await?;
        let Some(turn) = turn else { return Ok(nothing()) };
        if let Some(spent) = &mut spent {
            bringing.settle(spent).await?;
        }
        let changed = make(&bringing, &change).await?;
        if let (Some(spent), Some(path)) = (spent, paths(&change).first()) {
            spent.used(path);
        }
        if let Some(names) = moves {
            bringing.desk.turns.moved(names, bringing.admitted.peer.public_key, seq);
        }
        turn.done();
        Ok(changed.unwrap_or_else(nothing))
    };
    caller.to_its_end(step).await
}

fn paths(change: &Change) -> Vec<&str> {
    match change {
        Change::Rename { from, to, .. } | Change::RenameDirectory { from, to } => vec![from, to],
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
        Change::Rename { from, to, version } => {
            let renamed = home.rename(from, to, version.as_deref(), only).await;
            let kept = renamed.map_err(failed)?;
            bringing.desk.forget_paid(Some(from));
            bringing.note(ResultsAct::Renamed, listed(to, Some(from), &kept)).await?;
            return Ok(Some(Changed { version: kept.version }));
        }
        Change::RenameDirectory { from, to } => {
            bringing.has_no_home_below(from)?;
            bringing.has_no_home_below(to)?;
            home.rename_directory(from, to).await.map_err(failed)?;
            bringing.desk.forget_paid(None);
            let directory = Kept { version: String::new(), len: 0, blake3: None };
            bringing.note(ResultsAct::Renamed, listed(to, Some(from), &directory)).await?;
        }
        Change::Unlink { path } => {
            let gone = home.unlink(path, only).await.map_err(failed)?;
            bringing.desk.forget_paid(Some(path));
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
        Change::RemoveDirectory { path } => {
            bringing.has_no_home_below(path)?;
            home.remove_directory(path).await.map_err(failed)?;
        }
        Change::SetAttributes { path, attributes } => {
            home.set_attributes(path, *attributes, only).await.map_err(failed)?;
        }
    }
    Ok(None)
}
