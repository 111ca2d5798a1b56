//! What is at home, for a worker that needs it again.

use std::sync::Arc;

use tidegate_ledger::ResultsAct;
use tidegate_plan::RESULT_PART_LEN;
use tidegate_wire::{ListReply, ListRequest, ProblemKind, ReadRequest};

use super::{Bringing, listed, to_its_end};
use crate::problem::Refusal;
use crate::results::Room;

/// Bytes for a worker, and the room they take.
pub(crate) struct Readable {
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: Room,
}

/// `POST list`.
pub(crate) async fn list(bringing: &Bringing, request: ListRequest) -> Result<ListReply, Refusal> {
    let document = bringing.admitted.live.view().document;
    if !document.results.as_ref().is_some_and(|part| part.resume) {
        let detail = "the lease does not resume: what is at home is not shown";
        return Err(Refusal::new(ProblemKind::Forbidden, detail));
    }
    let listed = bringing.desk.home.list(request.after).await;
    let listed = listed.map_err(|error| bringing.failed(error))?;
    Ok(ListReply { found: listed.found, next: listed.next })
}

/// `POST read`.
pub(crate) async fn read(bringing: &Bringing, request: ReadRequest) -> Result<Readable, Refusal> {
    bringing.name(&request.path)?;
    let len = request.len as usize;
    if len > RESULT_PART_LEN {
        return Err(Refusal::new(ProblemKind::Malformed, "at most a part is read at once"));
    }
    let room = bringing.office.intake.room(bringing.worker(), len).await?;
    let bringing = bringing.clone();
    let step = async move {
        let desk = Arc::clone(&bringing.desk);
        let ReadRequest { path, version, offset, .. } = request;
        let read = desk.home.read(&path, &version, (offset, request.len)).await;
        let (kept, bytes) = read.map_err(|error| bringing.failed(error))?;
        if !desk.was_read(&path, &version) {
            bringing.note(ResultsAct::Read, listed(&path, None, &kept)).await?;
            desk.read(&path, &version);
        }
        Ok(Readable { bytes, room })
    };
    to_its_end(step).await
}
