//! One block of a file while it is in RAM: plaintext that becomes a sealed message where it lies.
//!
//! The plaintext's chunks lie apart by what sealing adds: the header in front of the first, a tag
//! behind each. So the one copy from the kernel's buffer is the last: sealing, the spool's one write
//! and the request to the gateway use the same bytes.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use getrandom::SysRng;
use tidegate_plan::{ContentId, LeaseId, RESULT_BLOCK_LEN, sealed_len};
use tidegate_seal::rand_core::UnwrapErr;
use tidegate_seal::{
    BlockKey, CHUNK_LEN, Context, HEADER_LEN, Opener, SALT_LEN, SEALED_CHUNK_LEN, Sealer, TAG_LEN,
    seal_content_key,
};
use tidegate_wire::PartReceipt;

use super::spool::Slot;
use crate::budget::{Buffer, PAGE};
use crate::errno::FsError;

/// Plaintext of a block, bytes.
pub(super) const BLOCK: usize = RESULT_BLOCK_LEN;

/// Plaintext of the buffers that a file's first block begins with; a larger one is taken when it
/// grows beyond.
const SIZES: [usize; 3] = [32 << 10, 256 << 10, BLOCK];

/// Length of the sealed form, bytes.
pub(super) fn sealed(plain: usize) -> usize {
    usize::try_from(sealed_len(plain as u64)).unwrap_or(usize::MAX)
}

/// Length of a buffer for so much plaintext of a block, bytes: whole pages.
pub(super) fn buffer_len(plain: usize) -> usize {
    sealed(SIZES.into_iter().find(|size| *size >= plain).unwrap_or(BLOCK)).next_multiple_of(PAGE)
}

/// Where a part of a version is.
#[derive(Clone)]
pub(super) enum Part {
    /// As in the version at home.
    Copy(PartReceipt),
    /// In that upload only.
    Brought {
        upload: String,
        receipt: PartReceipt,
    },
    Sealed(Vec<Arc<Sealed>>),
}

impl Part {
    /// What it is sealed as here.
    pub(super) fn content(&self) -> Option<ContentId> {
        match self {
            Self::Sealed(blocks) => blocks.first().map(|block| block.content.id),
            Self::Copy(_) | Self::Brought { .. } => None,
        }
    }
}

/// The key of one version of a file's bytes.
pub(super) struct Content {
    pub(super) id: ContentId,
    /// Gone once keys were destroyed, and never there after another worker sealed it.
    key: Mutex<Option<BlockKey>>,
    /// The same under HPKE, for whoever is to open it.
    pub(super) sealed_key: Vec<u8>,
}

impl Content {
    pub(super) fn generate(public: &[u8], lease: &LeaseId) -> Result<Self, FsError> {
        let mut id = [0; ContentId::LEN];
        getrandom::fill(&mut id).map_err(|_| FsError::Lost)?;
        let id = ContentId::from_bytes(id);
        let rng = &mut UnwrapErr(SysRng);
        let key = BlockKey::generate(rng);
        let sealed_key =
            seal_content_key(public, lease, &id, &key, rng).map_err(|_| FsError::Lost)?;
        Ok(Self { id, key: Mutex::new(Some(key)), sealed_key })
    }

    /// What another worker sealed and this one can only pass on.
    pub(super) fn adopted(id: ContentId, sealed_key: Vec<u8>) -> Self {
        Self { id, key: Mutex::new(None), sealed_key }
    }

    /// Whether this worker can open what was sealed.
    pub(super) fn opens(&self) -> bool {
        self.key().is_some()
    }

    pub(super) fn destroy(&self) {
        *self.key() = None;
    }

    fn key(&self) -> MutexGuard<'_, Option<BlockKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealer(&self, lease: LeaseId, number: u64) -> Result<Sealer, FsError> {
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(|_| FsError::Lost)?;
        let key = self.key();
        let key = key.as_ref().ok_or(FsError::Lost)?;
        Ok(Sealer::new(key, &Context::result(lease, &self.id, number), salt))
    }

    fn opener(
        &self,
        lease: LeaseId,
        number: u64,
        header: &[u8; HEADER_LEN],
        len: usize,
    ) -> Result<Opener, FsError> {
        let key = self.key();
        let key = key.as_ref().ok_or(FsError::Lost)?;
        Opener::new(key, &Context::result(lease, &self.id, number), header, len as u64)
            .map_err(|_| FsError::Lost)
    }
}

/// Where a byte of plaintext lies in the buffer.
fn place(at: usize) -> usize {
    HEADER_LEN + at / CHUNK_LEN * SEALED_CHUNK_LEN + at % CHUNK_LEN
}

/// The pieces of a range of plaintext, each within one chunk: offset, place in the buffer, length.
fn pieces(at: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let from = at + done;
            let many = (len - done).min(CHUNK_LEN - from % CHUNK_LEN);
            let piece = (done, place(from), many);
            done += many;
            piece
        })
    })
}

/// A block's plaintext, wiped when dropped.
pub(super) struct Plain {
    buffer: Buffer,
    len: usize,
}

impl Plain {
    /// Empty, in a buffer of [`buffer_len`].
    pub(super) fn new(buffer: Buffer) -> Self {
        Self { buffer, len: 0 }
    }

    /// Of a buffer that begins with so many bytes of plaintext, one behind the other.
    pub(super) fn filled(mut buffer: Buffer, len: usize) -> Self {
        for chunk in (0..len.div_ceil(CHUNK_LEN)).rev() {
            let start = chunk * CHUNK_LEN;
            buffer.copy_within(start..len.min(start + CHUNK_LEN), place(start));
        }
        Self { buffer, len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the block can be so long in its buffer.
    pub(super) fn holds(&self, len: usize) -> bool {
        sealed(len) <= self.buffer.len()
    }

    /// Goes on in a larger buffer.
    pub(super) fn moved_to(self, buffer: Buffer) -> Self {
        let mut moved = Self { buffer, len: self.len };
        let used = sealed(self.len);
        moved.buffer[..used].copy_from_slice(&self.buffer[..used]);
        moved
    }

    /// The caller has seen that it holds that. What lies between the end and `at` is zero.
    pub(super) fn write(&mut self, at: usize, data: &[u8]) {
        self.extend(at);
        for (from, place, many) in pieces(at, data.len()) {
            self.buffer[place..place + many].copy_from_slice(&data[from..from + many]);
        }
        self.len = self.len.max(at + data.len());
    }

    /// Zeros up to `len`, if it is shorter.
    pub(super) fn extend(&mut self, len: usize) {
        for (_, place, many) in pieces(self.len, len.saturating_sub(self.len)) {
            self.buffer[place..place + many].fill(0);
        }
        self.len = self.len.max(len);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Zeros past the end.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) {
        let there = self.len.saturating_sub(at).min(out.len());
        for (from, place, many) in pieces(at, there) {
            out[from..from + many].copy_from_slice(&self.buffer[place..place + many]);
        }
        out[there..].fill(0);
    }

    /// Seals it where it lies. The bytes are the sealed form now.
    pub(super) fn seal(
        mut self,
        content: &Arc<Content>,
        lease: LeaseId,
        number: u64,
    ) -> Result<Sealed, FsError> {
        let mut sealer = content.sealer(lease, number)?;
        self.buffer[..HEADER_LEN].copy_from_slice(&sealer.header());
        for chunk in 0..=self.len / CHUNK_LEN {
            let start = place(chunk * CHUNK_LEN);
            let end = start + CHUNK_LEN.min(self.len - chunk * CHUNK_LEN);
            let tag = sealer.seal_chunk(&mut self.buffer[start..end]).map_err(|_| FsError::Lost)?;
            self.buffer[end..end + TAG_LEN].copy_from_slice(&tag);
        }
        let (len, end) = (self.len, sealed(self.len));
        // The spool takes whole pages: what was plaintext there is not to come to lie on the disk.
        let whole = end.next_multiple_of(PAGE).min(self.buffer.len());
        self.buffer[end..whole].fill(0);
        let bytes = Bytes::from_owner(Owned { buffer: Some(self.buffer), end: whole });
        Ok(Sealed {
            content: Arc::clone(content),
            number,
            len,
            ram: Mutex::new(Some(bytes)),
            slot: OnceLock::new(),
        })
    }

    /// Opens a whole sealed block of `len` plaintext bytes, of which the first `valid` are wanted,
    /// into a buffer that holds them.
    pub(super) fn open(
        from: &Sealed,
        valid: usize,
        mut buffer: Buffer,
        lease: LeaseId,
    ) -> Result<Self, FsError> {
        let end = sealed(from.len);
        from.sealed_bytes(0, &mut buffer[..end])?;
        let header = *buffer.first_chunk().ok_or(FsError::Lost)?;
        let opener = from.content.opener(lease, from.number, &header, from.len)?;
        for chunk in 0..=from.len / CHUNK_LEN {
            let start = place(chunk * CHUNK_LEN);
            let many = CHUNK_LEN.min(from.len - chunk * CHUNK_LEN) + TAG_LEN;
            opener
                .open_chunk(chunk as u64, &mut buffer[start..start + many])
                .map_err(|_| FsError::Lost)?;
        }
        Ok(Self { buffer, len: valid.min(from.len) })
    }
}

/// A sealed block's bytes, and zeros to the end of their last page.
struct Owned {
    /// There until it is dropped.
    buffer: Option<Buffer>,
    end: usize,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            buffer.spare(self.end);
        }
    }
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.end])
    }
}

/// A sealed block: in RAM, in the spool, or both.
pub(super) struct Sealed {
    pub(super) content: Arc<Content>,
    pub(super) number: u64,
    /// Plaintext, bytes.
    pub(super) len: usize,
    ram: Mutex<Option<Bytes>>,
    slot: OnceLock<Slot>,
}

impl Sealed {
    /// What another worker left in the spool.
    pub(super) fn adopted(content: Arc<Content>, number: u64, len: usize, slot: Slot) -> Self {
        Self { content, number, len, ram: Mutex::default(), slot: slot.into() }
    }

    pub(super) fn sealed_len(&self) -> usize {
        sealed(self.len)
    }

    /// Writes it to its place in the spool, with one call.
    pub(super) fn spool(&self, slot: Slot) -> std::io::Result<()> {
        let whole = lock(&self.ram).clone();
        if let Some(whole) = whole {
            slot.write(&whole)?;
            // Another may have found a place for it meanwhile, which the journal may name by now.
            let _there = self.slot.set(slot);
        }
        Ok(())
    }

    /// First page and bytes in the spool.
    pub(super) fn spooled(&self) -> Option<(u32, u32)> {
        self.slot.get().map(Slot::place)
    }

    pub(super) fn in_ram(&self) -> Option<Bytes> {
        lock(&self.ram).as_ref().map(|whole| whole.slice(..self.sealed_len()))
    }

    /// Gives the RAM back if the bytes are in the spool. False: nothing was given back.
    pub(super) fn leave_ram(&self) -> bool {
        self.slot.get().is_some() && lock(&self.ram).take().is_some()
    }

    /// The sealed bytes from RAM, or read from the spool. Blocking.
    pub(super) fn bytes(&self) -> Result<Bytes, FsError> {
        if let Some(bytes) = self.in_ram() {
            return Ok(bytes);
        }
        let end = self.sealed_len();
        let mut buffer = Buffer::unbudgeted(end.next_multiple_of(PAGE));
        self.in_spool(|slot| slot.read_whole(&mut buffer))?;
        Ok(Bytes::from_owner(Owned { buffer: Some(buffer), end }))
    }

    fn sealed_bytes(&self, at: usize, out: &mut [u8]) -> Result<(), FsError> {
        if let Some(bytes) = self.in_ram() {
            out.copy_from_slice(&bytes[at..at + out.len()]);
            return Ok(());
        }
        self.in_spool(|slot| slot.read(at as u64, out))
    }

    fn in_spool(&self, read: impl FnOnce(&Slot) -> std::io::Result<()>) -> Result<(), FsError> {
        let slot = self.slot.get().ok_or(FsError::Lost)?;
        read(slot).map_err(|error| {
            tracing::error!(%error, "the spool cannot be read");
            FsError::Lost
        })
    }

    /// Opens the chunks that hold a range of the plaintext, which lies within it. Blocking.
    pub(super) fn read(&self, at: usize, out: &mut [u8], lease: LeaseId) -> Result<(), FsError> {
        let mut header = [0; HEADER_LEN];
        self.sealed_bytes(0, &mut header)?;
        let opener = self.content.opener(lease, self.number, &header, self.len)?;
        let mut scratch = Buffer::unbudgeted(SEALED_CHUNK_LEN);
        for (from, _, many) in pieces(at, out.len()) {
            let (chunk, within) = ((at + from) / CHUNK_LEN, (at + from) % CHUNK_LEN);
            let len = CHUNK_LEN.min(self.len - chunk * CHUNK_LEN) + TAG_LEN;
            let scratch = &mut scratch[..len];
            self.sealed_bytes(place(chunk * CHUNK_LEN), scratch)?;
            let plain = opener.open_chunk(chunk as u64, scratch).map_err(|_| FsError::Lost)?;
            out[from..from + many].copy_from_slice(&plain[within..within + many]);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
