//! Files that come home whole: in one piece, or of parts that are there already.

use std::sync::Arc;

use tidegate_ledger::{Digest, ListedResult, ResultsAct};
use tidegate_plan::{PartHash, RESULT_LEN_MAX, RESULT_PART_LEN, result_parts};
use tidegate_seal::open_content_key;
use tidegate_wire::{CommitRequest, PartReceipt, ProblemKind, StoreRequest, Stored};

use super::Bringing;
use crate::meters;
use crate::problem::Refusal;
use crate::results::{
    Arrival, Framed, HomeError, Sealing, Share, Ticket, copied_from, receipt_holds,
};

fn superseded() -> Stored {
    Stored { version: String::new(), blake3: Vec::new().into(), superseded: true }
}

fn malformed(why: &'static str) -> Refusal {
    Refusal::new(ProblemKind::Malformed, why)
}

/// `POST store`.
pub(crate) async fn store(
    bringing: &Bringing,
    request: StoreRequest,
    framed: Framed,
) -> Result<Stored, (Refusal, Option<Framed>)> {
    let len = usize::try_from(request.len).ok().filter(|len| *len <= RESULT_PART_LEN);
    let admitted = async {
        let len = len.ok_or_else(|| malformed("a file of more than one part comes in parts"))?;
        bringing.name(&request.path)?;
        let need = Share { bytes: request.len, files: 1 };
        let (seq, long) = (request.seq.to_be_bytes(), request.len.to_be_bytes());
        let what: [&[u8]; 5] =
            [b"store", request.path.as_bytes(), &seq, &long, request.content.as_bytes()];
        let spent = bringing.spend(need, &what).await?;
        let key = bringing.key().await?;
        let (lease, sealed) = (bringing.admitted.live.id, &request.key.0);
        let key = open_content_key(&key, &lease, &request.content, sealed)
            .map_err(|_| malformed("the content's key is not sealed to this lease"))?;
        // Whoever waits for its rate takes no room meanwhile.
        if let Some(rate) = &bringing.desk.rate {
            rate.take(request.len).await;
        }
        let room = bringing.room(len).await?;
        let sealing = Sealing { key, lease, content: request.content, first: 0 };
        Ok((len, spent, room, sealing))
    };
    let (len, mut spent, room, sealing) = match admitted.await {
        Ok(admitted) => admitted,
        Err(refusal) => return Err((refusal, Some(framed))),
    };
    let bytes = framed.plaintext(sealing, len).await.map_err(|refusal| (refusal, None))?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let _room = room;
        let Some(turn) = bringing.turn(&[&request.path], request.seq).await? else {
            return Ok(superseded());
        };
        bringing.settle(&mut spent).await?;
        let hash = tokio::task::spawn_blocking(move || (*blake3::hash(&bytes).as_bytes(), bytes));
        let (blake3, bytes) =
            hash.await.map_err(|error| Refusal::internal("a file was not hashed", &error))?;
        let file = Arrival {
            path: request.path,
            attributes: request.attributes,
            content: request.content,
            len: request.len,
            blake3,
        };
        let desk = Arc::clone(&bringing.desk);
        let put = desk.home.put(&desk.provenance, file.clone(), bytes).await;
        let version = put.map_err(|error| bringing.failed(error))?;
        spent.used(&file.path);
        let stored = arrived(&bringing, &file, version).await?;
        turn.done();
        Ok(stored)
    };
    caller.to_its_end(step).await.map_err(|refusal| (refusal, None))
}

/// Writes down that a file is at home.
async fn arrived(bringing: &Bringing, file: &Arrival, version: String) -> Result<Stored, Refusal> {
    let listed = ListedResult {
        path: file.path.clone(),
        from: None,
        bytes: file.len,
        blake3: Some(Digest::from_bytes(file.blake3)),
    };
    bringing.note(ResultsAct::Stored, listed).await?;
    meters::RESULTS_BYTES.add(file.len);
    meters::RESULTS_FILES.add(1);
    Ok(Stored { version, blake3: file.blake3.as_slice().into(), superseded: false })
}

/// `POST commit`.
pub(crate) async fn commit(bringing: &Bringing, request: CommitRequest) -> Result<Stored, Refusal> {
    bringing.name(&request.path)?;
    let (key, lease) = (bringing.key().await?, bringing.admitted.live.id);
    let ticket = Ticket::open(&request.upload, &key, &lease);
    let ticket = ticket.ok_or_else(|| Refusal::new(ProblemKind::Absent, ""))?;
    let blake3 = hash_of(&request, |receipt| receipt_holds(&key, &lease, &ticket.id, receipt))?;
    let seq = request.seq.to_be_bytes();
    let what: [&[u8]; 5] =
        [b"commit", ticket.id.as_bytes(), request.path.as_bytes(), &seq, &blake3];
    let mut spent = bringing.spend(Share { bytes: 0, files: 1 }, &what).await?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let Some(turn) = bringing.turn(&[&request.path], request.seq).await? else {
            // Nobody else will take it away while the lease lasts. If the home is away, the lease's end does.
            if bringing.desk.home.abandon(lease, &ticket).await.is_ok() {
                bringing.desk.ended(&ticket.id);
            }
            return Ok(superseded());
        };
        bringing.settle(&mut spent).await?;
        let file = Arrival {
            path: request.path,
            attributes: request.attributes,
            content: request.content,
            len: request.len,
            blake3,
        };
        let (desk, failed) = (&bringing.desk, |error| bringing.failed(error));
        // Its answer may have been lost.
        let known = desk.version_of(&spent.request);
        let finished =
            async || desk.home.finished(&ticket, &file, &request.parts, known.as_deref()).await;
        let unpaid = match spent.again {
            true => 0,
            false => unpaid(&bringing, &request.parts, &file.path).await.map_err(failed)?,
        };
        let before = if unpaid > 0 { finished().await.map_err(failed)? } else { None };
        let version = match before {
            Some(version) => version,
            None => {
                bringing.spend_more(&mut spent, Share { bytes: unpaid, files: 0 }).await?;
                let (made, parts) = (&desk.provenance, request.parts.clone());
                match desk.home.commit(made, &ticket, file.clone(), parts).await {
                    Ok(version) => version,
                    Err(error @ (HomeError::Absent | HomeError::Torn)) => finished()
                        .await
                        .map_err(failed)?
                        .ok_or_else(|| bringing.of_upload(&ticket, error))?,
                    Err(error) => return Err(failed(error)),
                }
            }
        };
        spent.used_as(&file.path, Some(&version));
        desk.ended(&ticket.id);
        let stored = arrived(&bringing, &file, version).await?;
        turn.done();
        Ok(stored)
    };
    caller.to_its_end(step).await
}

/// Bytes of parts that were copied for nothing: they took the place of the same bytes, if those are still
/// there. Where they are not, they are more than there was.
async fn unpaid(bringing: &Bringing, parts: &[PartReceipt], path: &str) -> Result<u64, HomeError> {
    if parts.iter().all(|receipt| copied_from(receipt).is_none()) {
        return Ok(0);
    }
    let there = bringing.desk.home.version(path).await?;
    let more = |receipt: &&PartReceipt| {
        copied_from(receipt).is_some_and(|version| Some(version) != there.as_deref())
    };
    Ok(parts.iter().filter(more).map(|receipt| u64::from(receipt.len)).sum())
}

/// The hash of the whole file from the receipts of its parts, all of them, in order, and each of the length that
/// its place says.
fn hash_of(
    request: &CommitRequest,
    holds: impl Fn(&PartReceipt) -> Option<PartHash>,
) -> Result<[u8; 32], Refusal> {
    if request.len > RESULT_LEN_MAX {
        return Err(malformed("the file is longer than any may be"));
    }
    if request.parts.len() as u64 != result_parts(request.len) || request.parts.len() < 2 {
        return Err(malformed("a file of so many bytes has another number of parts"));
    }
    let mut hashes = Vec::with_capacity(request.parts.len());
    let mut left = request.len;
    for (number, receipt) in (0..).zip(&request.parts) {
        let len = left.min(RESULT_PART_LEN as u64);
        left -= len;
        let hash =
            holds(receipt).filter(|_| (receipt.part, u64::from(receipt.len)) == (number, len));
        hashes.push(hash.ok_or_else(|| malformed("a receipt does not hold"))?);
    }
    PartHash::combine(&hashes).ok_or_else(|| malformed("a file in parts has two at least"))
}
