//! Files of several parts, on their way.

use tidegate_plan::{PartHash, RESULT_BLOCK_LEN, RESULT_PART_LEN, RESULT_PARTS_MAX};
use tidegate_seal::open_content_key;
use tidegate_wire::{
    AbandonRequest, BeginReply, BeginRequest, CopyRequest, PartReceipt, PartRequest, ProblemKind,
};

use super::Bringing;
use crate::keyring::random;
use crate::problem::Refusal;
use crate::results::{
    Framed, HomeError, Sealing, Share, Ticket, Upload, copied_tag, receipt, receipt_holds,
};

/// Blocks of a whole part.
const BLOCKS: u64 = (RESULT_PART_LEN / RESULT_BLOCK_LEN) as u64;

fn malformed(why: &'static str) -> Refusal {
    Refusal::new(ProblemKind::Malformed, why)
}

fn absent() -> Refusal {
    Refusal::new(ProblemKind::Absent, "")
}

impl Bringing {
    /// The answer when a step of an upload did not happen. One that is gone is not under way.
    pub(super) fn of_upload(&self, ticket: &Ticket, error: HomeError) -> Refusal {
        if matches!(error, HomeError::Absent) {
            self.desk.ended(&ticket.id);
        }
        self.failed(error)
    }
}

/// `POST begin`.
pub(crate) async fn begin(
    bringing: &Bringing,
    request: BeginRequest,
) -> Result<BeginReply, Refusal> {
    bringing.name(&request.path)?;
    let key = bringing.key().await?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let desk = &bringing.desk;
        let id = hex::encode(random::<16>());
        if !desk.may_begin(&id) {
            let detail = "too many uploads are begun and not ended";
            return Err(Refusal::new(ProblemKind::TooMany, detail));
        }
        let made = &desk.provenance;
        let ticket = desk.home.begin(made, &request.path, id.clone()).await;
        let ticket = ticket.map_err(|error| {
            desk.ended(&id);
            bringing.failed(error)
        })?;
        let upload = Upload { path: ticket.path.clone(), store: ticket.store.clone() };
        desk.began(&ticket.id, upload);
        let upload = ticket.seal(&key, &bringing.admitted.live.id);
        let upload =
            upload.map_err(|error| Refusal::internal("an upload cannot be named", &error))?;
        Ok(BeginReply { upload })
    };
    caller.to_its_end(step).await
}

/// `POST part`.
pub(crate) async fn part(
    bringing: &Bringing,
    request: PartRequest,
    framed: Framed,
) -> Result<PartReceipt, (Refusal, Option<Framed>)> {
    let admitted = async {
        let len = request.len as usize;
        if len == 0 || len > RESULT_PART_LEN || request.part >= RESULT_PARTS_MAX {
            return Err(malformed("no part is so long, or counted so"));
        }
        let (key, lease) = (bringing.key().await?, bringing.admitted.live.id);
        let ticket = Ticket::open(&request.upload, &key, &lease).ok_or_else(absent)?;
        let block_key = open_content_key(&key, &lease, &request.content, &request.key.0)
            .map_err(|_| malformed("the content's key is not sealed to this lease"))?;
        let need = Share { bytes: u64::from(request.len), files: 0 };
        let (part, long) = (request.part.to_be_bytes(), request.len.to_be_bytes());
        let what: [&[u8]; 5] =
            [b"part", ticket.id.as_bytes(), &part, &long, request.content.as_bytes()];
        let spent = bringing.spend(need, &what).await?;
        // Whoever waits for its rate takes no room meanwhile.
        if let Some(rate) = &bringing.desk.rate {
            rate.take(u64::from(request.len)).await;
        }
        let room = bringing.room(len).await?;
        let first = u64::from(request.part) * BLOCKS;
        let sealing = Sealing { key: block_key, lease, content: request.content, first };
        Ok((len, ticket, spent, room, sealing, key))
    };
    let (len, ticket, mut spent, room, sealing, key) = match admitted.await {
        Ok(admitted) => admitted,
        Err(refusal) => return Err((refusal, Some(framed))),
    };
    let bytes = framed.plaintext(sealing, len).await.map_err(|refusal| (refusal, None))?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let _room = room;
        let (number, lease) = (request.part, bringing.admitted.live.id);
        let hashing = tokio::task::spawn_blocking(move || (PartHash::of(number, &bytes), bytes));
        let (hash, bytes) =
            hashing.await.map_err(|error| Refusal::internal("a part was not hashed", &error))?;
        let hash = hash.ok_or_else(|| malformed("a part has bytes"))?;
        bringing.settle(&mut spent).await?;
        let stored = bringing.desk.home.part(lease, &ticket, number, hash, bytes).await;
        let tag = stored.map_err(|error| bringing.of_upload(&ticket, error))?;
        spent.used(&ticket.path);
        Ok(receipt(&key, &lease, &ticket.id, (number, request.len), hash, tag))
    };
    caller.to_its_end(step).await.map_err(|refusal| (refusal, None))
}

/// `POST copy`. What takes the place of the same file brings nothing more home; a copy into another file does.
pub(crate) async fn copy(
    bringing: &Bringing,
    request: CopyRequest,
) -> Result<PartReceipt, Refusal> {
    bringing.name(&request.path)?;
    let (key, lease) = (bringing.key().await?, bringing.admitted.live.id);
    let ticket = Ticket::open(&request.upload, &key, &lease).ok_or_else(absent)?;
    let PartReceipt { part, len, .. } = request.receipt;
    if len == 0 || len as usize > RESULT_PART_LEN || part >= RESULT_PARTS_MAX {
        return Err(malformed("no part is so long, or counted so"));
    }
    let is_free = ticket.path == request.path;
    let bytes = if is_free { 0 } else { u64::from(len) };
    let (number, long) = (part.to_be_bytes(), len.to_be_bytes());
    let (path, version) = (request.path.as_bytes(), request.version.as_bytes());
    let what: [&[u8]; 6] = [b"copy", ticket.id.as_bytes(), &number, &long, path, version];
    let mut spent = bringing.spend(Share { bytes, files: 0 }, &what).await?;
    let room = bringing.room(len as usize).await?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let _room = room;
        bringing.settle(&mut spent).await?;
        let from = (request.path.as_str(), request.version.as_str());
        let vouched = |upload: &str| receipt_holds(&key, &lease, upload, &request.receipt);
        let (home, only) = (&bringing.desk.home, bringing.only());
        let copied = home.copy(lease, &ticket, from, &request.receipt, vouched, only).await;
        // What is gone may be the file and not the upload.
        let (hash, tag) = copied.map_err(|error| bringing.failed(error))?;
        spent.used(&ticket.path);
        let tag = if is_free { copied_tag(&tag, &request.version) } else { tag };
        Ok(receipt(&key, &lease, &ticket.id, (part, len), hash, tag))
    };
    caller.to_its_end(step).await
}

/// `POST abandon`.
pub(crate) async fn abandon(bringing: &Bringing, request: AbandonRequest) -> Result<(), Refusal> {
    let (key, lease) = (bringing.key().await?, bringing.admitted.live.id);
    let ticket = Ticket::open(&request.upload, &key, &lease).ok_or_else(absent)?;
    let caller = bringing;
    let bringing = bringing.clone();
    let step = async move {
        let abandoned = bringing.desk.home.abandon(lease, &ticket).await;
        abandoned.map_err(|error| bringing.failed(error))?;
        bringing.desk.ended(&ticket.id);
        Ok(())
    };
    caller.to_its_end(step).await
}
