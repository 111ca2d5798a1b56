//! What is at home, for a worker that needs it again.

use std::sync::Arc;

use tidegate_ledger::ResultsAct;
use tidegate_plan::RESULT_PART_LEN;
use tidegate_wire::{ListReply, ListRequest, ProblemKind, ReadRequest};

use super::{Bringing, listed};
use crate::admission::Purpose;
use crate::problem::Refusal;
use crate::results::Room;

/// Bytes for a worker, and the room they take.
pub(crate) struct Readable {
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: Room,
}

/// `POST list`.
pub(crate) async fn list(bringing: &Bringing, request: ListRequest) -> Result<ListReply, Refusal> {
    if bringing.only().is_some() {
        let detail = "the lease does not resume: what is at home is not shown";
        return Err(Refusal::new(ProblemKind::Forbidden, detail));
    }
    let one = Arc::clone(&bringing.desk.listing).lock_owned().await;
    // The lease may have ended while this waited.
    bringing.admitted.still(&bringing.office, Purpose::Serve).await?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let _one = one;
        let listed = bringing.desk.home.list(request.after).await;
        let listed = listed.map_err(|error| bringing.failed(error))?;
        Ok(ListReply { found: listed.found, next: listed.next })
    };
    caller.to_its_end(step).await
}

/// `POST read`.
pub(crate) async fn read(bringing: &Bringing, request: ReadRequest) -> Result<Readable, Refusal> {
    bringing.name(&request.path)?;
    let len = request.len as usize;
    if len > RESULT_PART_LEN {
        return Err(Refusal::new(ProblemKind::Malformed, "at most a part is read at once"));
    }
    // Whoever waits for the rate takes no room meanwhile.
    if let Some(rate) = &bringing.office.rate {
        rate.take(len as u64).await;
    }
    let room = bringing.room(len).await?;
    // The lease may have ended while this waited.
    bringing.admitted.still(&bringing.office, Purpose::Serve).await?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let desk = Arc::clone(&bringing.desk);
        let ReadRequest { path, version, offset, .. } = request;
        let only = bringing.only();
        let read = desk.home.read(&path, &version, (offset, request.len), only).await;
        let (kept, bytes) = read.map_err(|error| bringing.failed(error))?;
        if !desk.was_read(&path, &version) {
            desk.changes.take(1).await;
            bringing.note(ResultsAct::Read, listed(&path, None, &kept)).await?;
            desk.read(&path, &version);
        }
        bringing.admitted.still(&bringing.office, Purpose::Serve).await?;
        Ok(Readable { bytes, room })
    };
    caller.to_its_end(step).await
}
