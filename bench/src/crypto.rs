//! Sealing and opening 4 MiB blocks on one core, beside ring alone on the same chunks.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, anyhow};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{
    BlockKey, CHUNK_LEN, Context, HEADER_LEN, Kind, Opener, SEALED_CHUNK_LEN, Sealer, TAG_LEN,
    seal_message,
};

use crate::report::Report;

const BLOCK: usize = 4 << 20;
const CHUNKS: usize = BLOCK / CHUNK_LEN;
/// Blocks a round: enough that a round takes about a tenth of a second.
const BLOCKS: usize = 128;

pub(crate) fn measure(rounds: usize, report: &mut Report) -> Result<()> {
    let mut plain = page_aligned(vec![7; BLOCK + 4096]);
    let (mut seal, mut open, mut ring_seal, mut ring_open) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        ring_seal.push(timed(|| ring_alone(&mut plain))?);
        seal.push(timed(|| seal_block(&mut plain))?);
        ring_open.push(timed_ring_open()?);
        open.push(timed_open()?);
    }
    report.add(
        "seal, one core",
        "GB/s",
        seal,
        Some(("ring alone", ring_seal)),
        vec![],
        "≥ 0.85 of ring",
    );
    report.add(
        "open, one core",
        "GB/s",
        open,
        Some(("ring alone", ring_open)),
        vec![],
        "≥ 0.85 of ring",
    );
    Ok(())
}

/// A view of whole pages inside a vector.
struct Pages {
    room: Vec<u8>,
    start: usize,
}

fn page_aligned(room: Vec<u8>) -> Pages {
    let start = room.as_ptr().align_offset(4096);
    Pages { room, start }
}

impl Pages {
    fn block(&mut self, len: usize) -> &mut [u8] {
        &mut self.room[self.start..self.start + len]
    }
}

/// GB/s of [`BLOCKS`] calls.
fn timed(mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..BLOCKS {
        once()?;
    }
    Ok((BLOCKS * BLOCK) as f64 / 1e9 / start.elapsed().as_secs_f64())
}

fn ring_key() -> Result<LessSafeKey> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).map_err(|_| anyhow!("ring key"))?))
}

fn nonce(n: usize) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&(n as u64).to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn ring_alone(plain: &mut Pages) -> Result<()> {
    let key = ring_key()?;
    for (n, chunk) in plain.block(BLOCK).chunks_mut(CHUNK_LEN).enumerate() {
        let _tag = black_box(
            key.seal_in_place_separate_tag(nonce(n), Aad::empty(), chunk)
                .map_err(|_| anyhow!("ring seal"))?,
        );
    }
    Ok(())
}

fn context() -> Context {
    Context {
        kind: Kind::Block,
        lease: LeaseId::from_bytes([1; 16]),
        layout: LayoutId::from_bytes([2; 32]),
        number: 3,
        count: 8,
    }
}

fn seal_block(plain: &mut Pages) -> Result<()> {
    let mut sealer = Sealer::new(&BlockKey::from_bytes([1; 32]), &context(), [9; 24]);
    for chunk in plain.block(BLOCK).chunks_mut(CHUNK_LEN) {
        black_box(sealer.seal_chunk(chunk)?);
    }
    black_box(sealer.seal_chunk(&mut [])?);
    Ok(())
}

/// Both open from a fresh copy each time, and only the opening is timed.
fn timed_ring_open() -> Result<f64> {
    let key = ring_key()?;
    let mut sealed = Vec::with_capacity(CHUNKS * SEALED_CHUNK_LEN);
    for n in 0..CHUNKS {
        let mut chunk = vec![7; CHUNK_LEN];
        let tag = key
            .seal_in_place_separate_tag(nonce(n), Aad::empty(), &mut chunk)
            .map_err(|_| anyhow!("ring seal"))?;
        sealed.extend_from_slice(&chunk);
        sealed.extend_from_slice(tag.as_ref());
    }
    timed_on_copies(&sealed, |copy| {
        let key = ring_key()?;
        for (n, chunk) in copy.chunks_mut(SEALED_CHUNK_LEN).enumerate() {
            key.open_in_place(nonce(n), Aad::empty(), chunk).map_err(|_| anyhow!("ring open"))?;
        }
        Ok(())
    })
}

fn timed_open() -> Result<f64> {
    let key = BlockKey::from_bytes([1; 32]);
    let sealed = seal_message(&key, &context(), [9; 24], &vec![7; BLOCK]);
    let (header, body) = sealed.split_at(HEADER_LEN);
    let header: &[u8; HEADER_LEN] = header.try_into()?;
    timed_on_copies(&body[..body.len() - TAG_LEN], |copy| {
        let opener = Opener::new(&key, &context(), header, BLOCK as u64)?;
        black_box(opener.open_run(0, copy)?);
        Ok(())
    })
}

fn timed_on_copies(sealed: &[u8], mut open: impl FnMut(&mut [u8]) -> Result<()>) -> Result<f64> {
    let mut pages = page_aligned(vec![0; sealed.len() + 4096]);
    let mut spent = 0.0;
    for _ in 0..BLOCKS {
        let copy = pages.block(sealed.len());
        copy.copy_from_slice(sealed);
        let start = Instant::now();
        open(copy)?;
        spent += start.elapsed().as_secs_f64();
    }
    Ok((BLOCKS * BLOCK) as f64 / 1e9 / spent)
}
