//! From sealed chunks in a slot to plaintext in a buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_plan::{CHUNK, Piece};
use tidegate_seal::SEALED_CHUNK_LEN;

use super::ReadError;
use super::core::Core;
use super::resident::{End, Resident};
use super::scratch::{MAX_READ, RUN, Scratch};
use super::table::Demanded;
use crate::keys::KeyError;

/// Why bytes that have arrived cannot be shown.
enum Fault {
    /// Their key is not here.
    Locked,
    /// They do not open, or the disk does not give them.
    Sealed,
    Final(ReadError),
}

impl Core {
    pub(super) fn try_read<R>(
        &self,
        piece: &Piece,
        len: usize,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError> {
        let Some(resident) = self.table().get(piece.block)? else { return Ok(None) };
        let resident = self.pin(resident);
        if resident.received() < needed(&resident, piece, len) {
            return Ok(None);
        }
        let Some(mut scratch) = self.scratches.try_take() else { return Ok(None) };
        match self.open(&resident, piece, len, &mut scratch) {
            Ok(bytes) => Ok(Some(show(bytes))),
            Err(Fault::Locked) => Ok(None),
            Err(Fault::Final(error)) => Err(error),
            Err(Fault::Sealed) => self.distrust(&resident).map(|()| None),
        }
    }

    pub(super) async fn read<R>(
        &self,
        piece: &Piece,
        len: usize,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError> {
        let (mut nonsense, mut sealed) = (0, 0);
        loop {
            let demanded = self.table().demand(piece.block)?;
            let resident = match demanded {
                Demanded::Here(resident) => resident,
                Demanded::Queued(granted) => {
                    self.wake();
                    granted.await.unwrap_or(Err(ReadError::LeaseOver))?
                }
            };
            let resident = self.pin(resident);
            match resident.wait(needed(&resident, piece, len)).await {
                Ok(()) => {}
                Err(End::Torn) => continue,
                Err(End::Nonsense) if nonsense == 0 => {
                    nonsense += 1;
                    continue;
                }
                Err(End::Nonsense) => return Err(ReadError::Integrity),
                Err(End::Stale) => return Err(ReadError::Stale),
                Err(End::Over) => return Err(ReadError::LeaseOver),
                Err(End::Unavailable) => return Err(ReadError::Unavailable),
            }
            let mut scratch = self.scratches.take().await;
            let fault = match self.open(&resident, piece, len, &mut scratch) {
                Ok(bytes) => return Ok(show(bytes)),
                Err(fault) => fault,
            };
            drop(scratch);
            match fault {
                Fault::Final(error) => return Err(error),
                Fault::Locked => self.unlock(&resident).await?,
                Fault::Sealed => {
                    self.distrust(&resident)?;
                    // Another reader's chunk of this block may open well, and take the suspicion away.
                    if sealed > 0 {
                        return Err(ReadError::Integrity);
                    }
                    sealed += 1;
                }
            }
        }
    }

    /// Waits for a block's key, if the block still stands.
    async fn unlock(&self, resident: &Arc<Resident>) -> Result<(), ReadError> {
        let Some(unlocked) = self.table().unlock(resident)? else { return Ok(()) };
        self.wake();
        unlocked.await.unwrap_or(Err(ReadError::LeaseOver))
    }

    /// Opens what a read needs, after the status of its extent.
    fn open<'b>(
        &self,
        resident: &Resident,
        piece: &Piece,
        len: usize,
        scratch: &'b mut Scratch<'_>,
    ) -> Result<&'b [u8], Fault> {
        if resident.info.packed {
            let bitmap = match resident.bitmap() {
                Some(bitmap) => bitmap,
                None => {
                    let len = resident.info.extents.div_ceil(8) as usize;
                    resident.set_bitmap(self.open_at(resident, 0, len, scratch)?)
                }
            };
            let (byte, bit) = (usize::from(piece.ordinal / 8), piece.ordinal % 8);
            if bitmap.get(byte).is_none_or(|byte| byte >> bit & 1 == 0) {
                return Err(Fault::Final(ReadError::Stale));
            }
        }
        let len = len.min(MAX_READ).min(piece.len as usize);
        let bytes = self.open_at(resident, piece.at as usize, len, scratch)?;
        if self.suspects.load(Ordering::Relaxed) > 0 {
            let mut table = self.table();
            table.trust(resident.block);
            self.suspects.store(table.suspects(), Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Opens plaintext `at..at + len` of a block. Runs are read to where the plaintext of the run
    /// before ends, so what the buffer holds in the end has no gaps.
    fn open_at<'b>(
        &self,
        resident: &Resident,
        at: usize,
        len: usize,
        scratch: &'b mut Scratch<'_>,
    ) -> Result<&'b [u8], Fault> {
        let header = resident.header().ok_or(Fault::Sealed)?;
        let opener = match self.keys.opener(resident.block, header, resident.info.plain_len) {
            Ok(opener) => opener,
            Err(KeyError::Foreign) => return Err(Fault::Sealed),
            Err(KeyError::Unreleased) => return Err(Fault::Locked),
            Err(KeyError::Over) => return Err(Fault::Final(ReadError::LeaseOver)),
        };
        let (first, last) = chunks(at, len);
        let end = usize::try_from(resident.chunk_bytes()).unwrap_or(usize::MAX);
        let mut filled = 0;
        let mut chunk = first;
        while chunk <= last {
            let next = (chunk + RUN).min(last + 1);
            let sealed = chunk * SEALED_CHUNK_LEN..(next * SEALED_CHUNK_LEN).min(end);
            let run = filled..filled + sealed.len();
            let run = scratch.get_mut(run).ok_or(Fault::Sealed)?;
            if let Err(why) = resident.slot.read_at(sealed.start as u64, run) {
                tracing::warn!(block = resident.block, error = %why, "the cache cannot be read");
                return Err(Fault::Sealed);
            }
            filled += opener.open_run(chunk as u64, run).map_err(|_| Fault::Sealed)?.len();
            chunk = next;
        }
        // Opened just in time is too late to be shown: the machine may have slept meanwhile.
        if self.keys.life().past().is_some() {
            return Err(Fault::Final(ReadError::LeaseOver));
        }
        let skip = at - first * CHUNK as usize;
        scratch.get(skip..skip + len).filter(|_| skip + len <= filled).ok_or(Fault::Sealed)
    }
}

/// The chunks that plaintext `at..at + len` lies in.
fn chunks(at: usize, len: usize) -> (usize, usize) {
    let chunk = CHUNK as usize;
    (at / chunk, (at + len.max(1) - 1) / chunk)
}

/// Chunk bytes that must have arrived for a read.
fn needed(resident: &Resident, piece: &Piece, len: usize) -> u64 {
    let (_, last) = chunks(piece.at as usize, len.min(MAX_READ).min(piece.len as usize));
    (((last + 1) * SEALED_CHUNK_LEN) as u64).min(resident.chunk_bytes())
}
