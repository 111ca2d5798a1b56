//! One block from the gateway into its slot, piece by piece.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_plan::sealed_len;
use tidegate_seal::HEADER_LEN;
use tidegate_wire::ProblemKind;

use super::core::Core;
use super::resident::{End, Resident};
use crate::client::{BlockBody, ClientError};
use crate::keys::KeyError;
use crate::meters;

/// Bytes are written in pieces that begin and end on multiples of this, unless a reader waits.
const PIECE: u64 = 256 << 10;

/// How one fetch went.
pub(super) struct Fetched {
    pub(super) resident: Arc<Resident>,
    pub(super) outcome: Result<(), End>,
    /// A gateway answered, whatever it said.
    pub(super) heard: bool,
    /// Sealed bytes that came.
    pub(super) bytes: u64,
    /// From the request to the answer's head.
    pub(super) delay: Duration,
}

/// Fetches; ends early if the resident was given up or the cache closed. Never leaves a write
/// under way behind.
pub(super) async fn run(core: Arc<Core>, resident: Arc<Resident>) -> Fetched {
    let asked = Instant::now();
    let len = sealed_len(resident.info.plain_len.into());
    let answer = tokio::select! {
        answer = core.client.block(resident.block, len) => answer,
        () = core.closed() => return ended(resident, Err(End::Over), false, asked.elapsed()),
    };
    let delay = asked.elapsed();
    let body = match answer {
        Ok(body) => body,
        Err(error) => {
            let heard = !matches!(error, ClientError::Unreachable(_) | ClientError::Untrusted(_));
            let end = why(resident.block, &error);
            meters::FETCH_FAILED.add_for(&[end.word()], 1);
            return ended(resident, Err(end), heard, delay);
        }
    };
    let mut arrival = Arrival::new(&core, &resident);
    let outcome = arrival.take(body).await;
    let bytes = arrival.bytes;
    core.totals.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
    match outcome {
        Ok(()) => meters::FETCH.record(&[], asked),
        Err(end) => meters::FETCH_FAILED.add_for(&[end.word()], 1),
    }
    Fetched { resident, outcome, heard: true, bytes, delay }
}

fn ended(
    resident: Arc<Resident>,
    outcome: Result<(), End>,
    heard: bool,
    delay: Duration,
) -> Fetched {
    Fetched { resident, outcome, heard, bytes: 0, delay }
}

/// What an error means for the block.
fn why(block: u32, error: &ClientError) -> End {
    let end = match error {
        ClientError::Unreachable(_) | ClientError::Untrusted(_) => End::Torn,
        ClientError::Nonsense(_) => End::Nonsense,
        ClientError::Refused(problem) => match problem.kind {
            ProblemKind::SourceChanged => End::Stale,
            ProblemKind::LeaseOver | ProblemKind::Forbidden | ProblemKind::Unauthenticated => {
                End::Over
            }
            ProblemKind::Internal
            | ProblemKind::SourceUnavailable
            | ProblemKind::TooMany
            | ProblemKind::Unavailable => End::Torn,
            _ => End::Nonsense,
        },
    };
    if end == End::Torn {
        tracing::debug!(block, %error, "a block was not fetched and will be asked for again");
    } else {
        tracing::warn!(block, %error, "a block was not fetched");
    }
    end
}

/// The bytes of one block on their way to the disk.
struct Arrival<'a> {
    core: &'a Core,
    resident: &'a Arc<Resident>,
    header: Vec<u8>,
    pending: Vec<Bytes>,
    pending_len: u64,
    /// Chunk bytes in the slot.
    written: u64,
    bytes: u64,
}

impl<'a> Arrival<'a> {
    fn new(core: &'a Core, resident: &'a Arc<Resident>) -> Self {
        Self {
            core,
            resident,
            header: Vec::with_capacity(HEADER_LEN),
            pending: Vec::new(),
            pending_len: 0,
            written: 0,
            bytes: 0,
        }
    }

    async fn take(&mut self, mut body: BlockBody) -> Result<(), End> {
        loop {
            let next = tokio::select! {
                next = body.next() => next,
                () = self.resident.asked() => {
                    self.write_what_is_due()?;
                    continue;
                }
                () = self.core.closed() => return Err(End::Over),
            };
            let next = next.map_err(|error| why(self.resident.block, &error))?;
            if let Some(end) = self.resident.end() {
                return Err(end);
            }
            let Some(bytes) = next else { break };
            self.bytes += bytes.len() as u64;
            self.keep(bytes)?;
            self.write_what_is_due()?;
        }
        self.write(self.written + self.pending_len)
    }

    fn write_what_is_due(&mut self) -> Result<(), End> {
        let arrived = self.written + self.pending_len;
        let awaited = self.resident.awaited();
        let is_awaited = self.written < awaited && awaited <= arrived;
        let end = if is_awaited { arrived } else { arrived / PIECE * PIECE };
        if end > self.written { self.write(end) } else { Ok(()) }
    }

    /// Splits the sealed header off and checks at once that it is one of this block's.
    fn keep(&mut self, mut bytes: Bytes) -> Result<(), End> {
        if self.header.len() < HEADER_LEN {
            let head = bytes.split_to(bytes.len().min(HEADER_LEN - self.header.len()));
            self.header.extend_from_slice(&head);
            if let Some(header) = self.header.first_chunk() {
                let Resident { block, info, .. } = &**self.resident;
                match self.core.keys.opener(*block, header, info.plain_len) {
                    Ok(_) => self.resident.set_header(*header),
                    Err(KeyError::Foreign) => {
                        tracing::warn!(block, "what came is not that block");
                        return Err(End::Nonsense);
                    }
                    // Its key was here when the fetch began: it comes with the next.
                    Err(KeyError::Unreleased) => return Err(End::Torn),
                    Err(KeyError::Over) => return Err(End::Over),
                }
            }
        }
        self.pending_len += bytes.len() as u64;
        if !bytes.is_empty() {
            self.pending.push(bytes);
        }
        Ok(())
    }

    /// Writes what has arrived up to `end`, and at the block's end the slot's page; then readers
    /// may have it. This blocks the thread while the disk is behind, which holds the link back and
    /// nobody else: the threads of the filling do nothing but this.
    fn write(&mut self, end: u64) -> Result<(), End> {
        let from = self.written;
        let pieces = self.take_pending(end - from);
        let resident = self.resident;
        let terms = self.core.client.terms();
        let slices: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
        let written = (|| {
            if from == 0 {
                resident.slot.begin()?;
            }
            resident.slot.write_at(from, &slices)?;
            match resident.header() {
                Some(header) if end == resident.chunk_bytes() => {
                    resident.slot.finish(terms.lease, terms.layout, resident.block, *header)
                }
                _ => Ok(()),
            }
        })();
        if let Err(error) = written {
            tracing::error!(block = resident.block, %error, "the cache cannot be written");
            return Err(End::Torn);
        }
        self.written = end;
        resident.advance(end);
        self.core.totals.arrived();
        Ok(())
    }

    /// The first `len` of the pending bytes.
    fn take_pending(&mut self, len: u64) -> Vec<Bytes> {
        self.pending_len -= len;
        let mut pieces = std::mem::take(&mut self.pending);
        let mut rest = usize::try_from(self.pending_len).unwrap_or(usize::MAX);
        while rest > 0
            && let Some(mut last) = pieces.pop()
        {
            let later = last.split_off(last.len().saturating_sub(rest));
            rest -= later.len();
            self.pending.insert(0, later);
            if !last.is_empty() {
                pieces.push(last);
            }
        }
        pieces
    }
}
