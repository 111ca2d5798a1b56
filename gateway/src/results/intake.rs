//! Bodies of sealed blocks: read as they come, opened block by block into the plaintext of one part.
//!
//! Plaintext waits in memory until its home has taken it. So there is room for a few parts in a process,
//! for half of them at once from one worker, who waits for itself beyond that, and never for all of them on
//! their way to one home, which may hang. A sender must bring a block, or what is left of its body, within a
//! minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tidegate_plan::{
    ContentId, LeaseId, RESULT_BLOCK_LEN, RESULT_PART_LEN, result_blocks, sealed_len,
};
use tidegate_seal::{BlockKey, Context, HEADER_LEN, OpenError, Opener};
use tidegate_wire::{ProblemKind, head_len};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Refusal;

/// Parts in memory at once.
const PARTS: usize = 8;
/// Parts of these that one rank's workers may have.
const PARTS_EACH: usize = PARTS / 2;
/// And how many may be on their way to one home.
const PARTS_THERE: usize = PARTS - 2;
/// What is counted: small files take little room.
const UNIT: usize = 64 << 10;
/// A block, or a head, that takes longer than this comes from nobody who means it: 140 kbit/s.
const SPAN: Duration = Duration::from_secs(60);
/// What is read of a body that is refused, so that its sender gets to read why: a part with all it is sealed in.
const PASSED_OVER: usize = RESULT_PART_LEN + (1 << 20);

/// Who has some of the room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Rank(LeaseId, u16),
    Home(String),
}

/// The room for plaintext of a process.
#[derive(Debug)]
pub(crate) struct Intake {
    all: Arc<Semaphore>,
    holders: Mutex<HashMap<Holder, Weak<Semaphore>>>,
}

/// Room that is taken, until dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _all: OwnedSemaphorePermit,
    _own: [OwnedSemaphorePermit; 2],
}

impl Default for Intake {
    fn default() -> Self {
        let all = Arc::new(Semaphore::new(PARTS * RESULT_PART_LEN / UNIT));
        Self { all, holders: Mutex::default() }
    }
}

impl Intake {
    fn own(&self, holder: Holder, parts: usize) -> Arc<Semaphore> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = holders.get(&holder).and_then(Weak::upgrade) {
            return own;
        }
        holders.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(parts * RESULT_PART_LEN / UNIT));
        holders.insert(holder, Arc::downgrade(&own));
        own
    }

    /// Waits for room for so many bytes, at most those of a part, on their way between a rank's worker and a
    /// home.
    pub(crate) async fn room(
        &self,
        (lease, rank): (LeaseId, u16),
        home: &str,
        bytes: usize,
    ) -> Result<Room, Refusal> {
        let units = bytes.min(RESULT_PART_LEN).div_ceil(UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // First the own parts: who has used those up does not stand in the way of others.
        let closed = |error| Refusal::internal("no results are taken any more", &error);
        let rank = self.own(Holder::Rank(lease, rank), PARTS_EACH);
        let rank = rank.acquire_many_owned(units).await.map_err(closed)?;
        let home = self.own(Holder::Home(home.to_owned()), PARTS_THERE);
        let home = home.acquire_many_owned(units).await.map_err(closed)?;
        let all = Arc::clone(&self.all).acquire_many_owned(units).await.map_err(closed)?;
        Ok(Room { _all: all, _own: [rank, home] })
    }
}

/// A body of a head and sealed blocks.
pub(crate) struct Framed {
    body: Body,
    rest: Bytes,
    span: Duration,
}

/// How a part's blocks are sealed.
pub(crate) struct Sealing {
    pub(crate) key: BlockKey,
    pub(crate) lease: LeaseId,
    pub(crate) content: ContentId,
    /// Number of the part's first block in its content.
    pub(crate) first: u64,
}

fn malformed(why: &'static str) -> Refusal {
    Refusal::new(ProblemKind::Malformed, why)
}

/// The link's fault, and not that of what was sent: the same may be sent again.
fn broken(why: &'static str) -> Refusal {
    Refusal::new(ProblemKind::Unavailable, why)
}

impl Framed {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new(), span: SPAN }
    }

    /// Reads exactly `len` bytes into `out`, which is emptied first.
    async fn fill(&mut self, out: &mut Vec<u8>, len: usize) -> Result<(), Refusal> {
        out.clear();
        let span = self.span;
        let filling = async {
            while out.len() < len {
                if self.rest.is_empty() {
                    let frame = self.body.frame().await;
                    let frame = frame.ok_or_else(|| malformed("the body is too short"))?;
                    let frame = frame.map_err(|_| broken("the body broke off"))?;
                    self.rest = frame.into_data().unwrap_or_default();
                    continue;
                }
                let more = self.rest.len().min(len - out.len());
                out.extend_from_slice(&self.rest[..more]);
                self.rest.advance(more);
            }
            Ok(())
        };
        tokio::time::timeout(span, filling)
            .await
            .unwrap_or_else(|_| Err(broken("the body comes too slowly")))
    }

    /// The head. Its content is never repeated in an error.
    pub(crate) async fn head<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        let mut bytes = Vec::new();
        self.fill(&mut bytes, 4).await?;
        let prefix = bytes.first_chunk().copied().unwrap_or_default();
        let len = head_len(prefix)
            .ok_or_else(|| Refusal::new(ProblemKind::TooLarge, "the head is too long"))?;
        self.fill(&mut bytes, len).await?;
        serde_json::from_slice(&bytes)
            .map_err(|_| malformed("the head is not what this route takes"))
    }

    /// The plaintext of `len` bytes, and nothing behind its last block. What does not open is refused whole.
    pub(crate) async fn plaintext(
        mut self,
        sealing: Sealing,
        len: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let (mut plain, mut sealed) = (Vec::with_capacity(len), Vec::new());
        let sealing = Arc::new(sealing);
        for block in 0..result_blocks(len as u64) {
            let left = len - plain.len();
            let plain_len = left.min(RESULT_BLOCK_LEN);
            let sealed_len = usize::try_from(sealed_len(plain_len as u64)).unwrap_or(usize::MAX);
            self.fill(&mut sealed, sealed_len).await?;
            let sealing = Arc::clone(&sealing);
            let opening = tokio::task::spawn_blocking(move || {
                let number = sealing.first + block;
                let context = Context::result(sealing.lease, &sealing.content, number);
                let opened = open(&sealing.key, &context, &mut sealed, plain_len)
                    .map(|bytes| plain.extend_from_slice(bytes));
                (opened, plain, sealed)
            });
            let opened = opening.await;
            let opened =
                opened.map_err(|error| Refusal::internal("a block was not opened", &error))?;
            (plain, sealed) = (opened.1, opened.2);
            opened.0.map_err(|_| malformed("the sealed bytes are not what was sealed"))?;
        }
        let end = tokio::time::timeout(self.span, self.body.frame()).await;
        match end {
            Ok(None) if self.rest.is_empty() => Ok(plain),
            Ok(Some(Err(_))) | Err(_) => Err(broken("the body has no end")),
            _ => Err(malformed("the body is too long")),
        }
    }

    /// Reads a refused body away, a little of it at a time, so that a caller who is still writing gets to
    /// read the refusal.
    pub(crate) async fn pass_over(mut self) {
        let reading = async {
            let mut passed = self.rest.len();
            while passed < PASSED_OVER
                && let Some(Ok(frame)) = self.body.frame().await
            {
                passed += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Whichever way it ends, the refusal is what is answered.
        let _ = tokio::time::timeout(SPAN, reading).await;
    }
}

fn open<'a>(
    key: &BlockKey,
    context: &Context,
    sealed: &'a mut [u8],
    plain_len: usize,
) -> Result<&'a [u8], OpenError> {
    let (header, chunks) = sealed.split_first_chunk_mut::<HEADER_LEN>().ok_or(OpenError)?;
    let opener = Opener::new(key, context, header, plain_len as u64)?;
    Ok(opener.open_run(0, chunks)?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use tidegate_seal::{SALT_LEN, seal_message};

    const LEASE: LeaseId = LeaseId::from_bytes([1; 16]);
    const CONTENT: ContentId = ContentId::from_bytes([2; 32]);

    fn sealed(plain: &[u8], first: u64) -> Vec<u8> {
        let key = BlockKey::from_bytes([3; 32]);
        let empty = [plain];
        let blocks: Vec<_> = if plain.is_empty() {
            empty.to_vec()
        } else {
            plain.chunks(RESULT_BLOCK_LEN).collect()
        };
        let blocks = (first..).zip(blocks).map(|(number, block)| {
            let salt = [u8::try_from(number % 251).unwrap(); SALT_LEN];
            seal_message(&key, &Context::result(LEASE, &CONTENT, number), salt, block)
        });
        blocks.flatten().collect()
    }

    async fn opened(body: Vec<u8>, first: u64, len: usize) -> Result<Vec<u8>, ProblemKind> {
        let key = BlockKey::from_bytes([3; 32]);
        let sealing = Sealing { key, lease: LEASE, content: CONTENT, first };
        let framed = Framed::new(Body::from(body));
        framed.plaintext(sealing, len).await.map_err(|refused| refused.kind)
    }

    #[tokio::test]
    async fn blocks_are_opened_in_their_order_to_their_end() {
        for len in [0, 1, RESULT_BLOCK_LEN, 2 * RESULT_BLOCK_LEN + 5] {
            let plain: Vec<u8> = (0..=252_u8).cycle().take(len).collect();
            let body = sealed(&plain, 16);
            assert_eq!(opened(body.clone(), 16, len).await.unwrap(), plain);
            let malformed = Err(ProblemKind::Malformed);
            assert_eq!(opened(body.clone(), 0, len).await, malformed, "another part");
            assert_eq!(opened(body[..body.len() - 1].to_vec(), 16, len).await, malformed);
            assert_eq!(opened([body.clone(), vec![0]].concat(), 16, len).await, malformed);
            assert_eq!(opened(body.clone(), 16, len + 1).await, malformed);
            let mut changed = body.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            assert_eq!(opened(changed, 16, len).await, malformed);
        }
    }

    #[tokio::test]
    async fn a_body_that_stalls_or_breaks_off_may_come_again() {
        let body = sealed(b"plain", 0);
        let first = &body[..10];
        let first = Ok::<_, std::io::Error>(Bytes::copy_from_slice(first));
        let broke = Err(std::io::Error::other("reset"));
        let whole = Bytes::copy_from_slice(&body);
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>;
        for body in [
            Body::from_stream(futures_util::stream::iter([first, broke])),
            Body::from_stream(silent()),
            Body::from_stream(
                futures_util::stream::iter([Ok::<_, std::io::Error>(whole)]).chain(silent()),
            ),
        ] {
            let key = BlockKey::from_bytes([3; 32]);
            let sealing = Sealing { key, lease: LEASE, content: CONTENT, first: 0 };
            let mut framed = Framed::new(body);
            framed.span = Duration::from_millis(20);
            let refused = framed.plaintext(sealing, 5).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::Unavailable);
        }
    }

    #[tokio::test]
    async fn neither_one_rank_nor_one_home_has_all_of_the_room() {
        let intake = Intake::default();
        let (one, two, three) = ((LEASE, 0), (LEASE, 1), (LEASE, 2));
        let mut rooms = Vec::new();
        let room = |rank, home| intake.room(rank, home, RESULT_PART_LEN);
        for _ in 0..PARTS_EACH {
            rooms.push(room(one, "a").await.unwrap());
        }
        let short = Duration::from_millis(50);
        let waits = async |rank, home| {
            tokio::time::timeout(short, intake.room(rank, home, 1)).await.is_err()
        };
        assert!(waits(one, "b").await, "it has its part");
        for _ in PARTS_EACH..PARTS_THERE {
            rooms.push(room(two, "a").await.unwrap());
        }
        assert!(waits(two, "a").await, "so has this home");
        for _ in PARTS_THERE..PARTS {
            rooms.push(room(three, "b").await.unwrap());
        }
        assert!(waits(three, "b").await, "there is no more");
        drop(rooms);
        assert!(!waits(one, "a").await);
    }
}
