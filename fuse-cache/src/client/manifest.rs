//! The manifest in plaintext: names are secret, so it lives in anonymous memory only.

use std::fmt;

use rustix::mm::{
    Advice, MapFlags, MlockFlags, ProtFlags, madvise, mlock_with, mmap_anonymous, munmap,
};
use tidegate_plan::{BLOCK_MAX, sealed_len};
use tidegate_seal::{BlockKey, Context, Kind, open_message};
use tidegate_wire::LeaseTerms;
use zeroize::Zeroize as _;

use super::{BlockBody, ClientError};

/// Plaintext of every piece but the last, bytes.
const PIECE: u64 = BLOCK_MAX as u64;
/// A manifest over this is refused before memory is taken for it: 500 M files or so.
const MOST: u64 = 64 << 30;

/// Sealed length of all pieces of a manifest that long.
pub(super) fn sealed_length(plain_len: u64) -> u64 {
    (0..pieces(plain_len)).map(|piece| sealed_len(piece_len(plain_len, piece))).sum()
}

fn pieces(plain_len: u64) -> u64 {
    plain_len.min(MOST).div_ceil(PIECE).max(1)
}

fn piece_len(plain_len: u64, piece: u64) -> u64 {
    PIECE.min(plain_len.saturating_sub(piece * PIECE))
}

pub(super) async fn read(
    terms: &LeaseTerms,
    key: &BlockKey,
    mut body: BlockBody,
) -> Result<ManifestBytes, ClientError> {
    let len = usize::try_from(terms.manifest_len.min(MOST + 1)).unwrap_or(usize::MAX);
    if terms.manifest_len > MOST {
        return Err(ClientError::Nonsense(format!("a manifest of {len} bytes")));
    }
    let mut memory = ManifestBytes::empty(len)?;
    let mut sealed = Vec::new();
    let count = pieces(terms.manifest_len);
    let mut piece = 0;
    while let Some(bytes) = body.next().await? {
        sealed.extend_from_slice(&bytes);
        while piece < count {
            let plain_len = piece_len(terms.manifest_len, piece);
            let due = usize::try_from(sealed_len(plain_len)).unwrap_or(usize::MAX);
            if sealed.len() < due {
                break;
            }
            let context = Context {
                kind: Kind::Manifest,
                lease: terms.lease,
                layout: terms.layout,
                number: piece,
                count,
            };
            let plain = open_message(key, &context, &sealed[..due])
                .map_err(|_| ClientError::Nonsense("the manifest cannot be opened".into()))?;
            if !memory.append(&plain) {
                return Err(ClientError::Nonsense("the manifest is longer than announced".into()));
            }
            sealed.drain(..due);
            piece += 1;
        }
    }
    if piece < count || !sealed.is_empty() {
        return Err(ClientError::Nonsense("the manifest is not as long as announced".into()));
    }
    Ok(memory)
}

/// Anonymous memory, kept out of core images, locked where the limits allow, wiped when dropped.
///
/// As long as was announced from the start, but no page of it is taken before authentic bytes lie there:
/// a gateway that announces much gets nothing by it.
pub struct ManifestBytes {
    at: *mut u8,
    len: usize,
    filled: usize,
}

#[allow(unsafe_code, reason = "the mapping belongs to one value, like a Vec's memory")]
// SAFETY: the mapping is private and owned; shared access is read-only through `&self`.
unsafe impl Send for ManifestBytes {}
#[allow(unsafe_code, reason = "the mapping belongs to one value, like a Vec's memory")]
// SAFETY: as above.
unsafe impl Sync for ManifestBytes {}

impl ManifestBytes {
    fn empty(len: usize) -> Result<Self, ClientError> {
        let no_memory = |why| ClientError::Nonsense(format!("no memory for the manifest: {why}"));
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        #[allow(unsafe_code, reason = "anonymous memory outside the heap is only had this way")]
        // SAFETY: a fresh private mapping at an address of the kernel's choice aliases nothing;
        // it is at least one byte long, and its advice and lock concern this mapping only.
        let at = unsafe {
            let at =
                mmap_anonymous(std::ptr::null_mut(), len.max(1), prot, flags).map_err(no_memory)?;
            if madvise(at, len.max(1), Advice::LinuxDontDump).is_err()
                || mlock_with(at, len.max(1), MlockFlags::ONFAULT).is_err()
            {
                tracing::debug!("the manifest's memory is not locked; swap must be off");
            }
            at.cast()
        };
        Ok(Self { at, len, filled: 0 })
    }

    /// Puts bytes behind those that are there; false when they do not fit.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(end) = self.filled.checked_add(bytes.len()).filter(|end| *end <= self.len) else {
            return false;
        };
        let from = std::mem::replace(&mut self.filled, end);
        self.filled_mut()[from..].copy_from_slice(bytes);
        true
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        #[allow(unsafe_code, reason = "the mapping is only reachable by its address")]
        // SAFETY: as in `as_ref`; the borrow of `self` is unique.
        unsafe {
            std::slice::from_raw_parts_mut(self.at, self.filled)
        }
    }
}

impl AsRef<[u8]> for ManifestBytes {
    fn as_ref(&self) -> &[u8] {
        #[allow(unsafe_code, reason = "the mapping is only reachable by its address")]
        // SAFETY: `at` is a live mapping of at least `filled` initialised bytes.
        unsafe {
            std::slice::from_raw_parts(self.at, self.filled)
        }
    }
}

impl Drop for ManifestBytes {
    fn drop(&mut self) {
        self.filled_mut().zeroize();
        #[allow(unsafe_code, reason = "counterpart of the mapping in `empty`")]
        // SAFETY: the mapping was made with this address and length and is used no more.
        let unmapped = unsafe { munmap(self.at.cast(), self.len.max(1)) };
        debug_assert!(unmapped.is_ok(), "our own mapping can be unmapped");
    }
}

impl fmt::Debug for ManifestBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManifestBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_pieces() {
        assert_eq!(sealed_length(10), sealed_len(10));
        assert_eq!(sealed_length(PIECE), sealed_len(PIECE));
        assert_eq!(sealed_length(PIECE + 1), sealed_len(PIECE) + sealed_len(1));
    }

    #[test]
    fn memory_holds_what_is_put_there_and_no_more() {
        let mut memory = ManifestBytes::empty(10_000).unwrap();
        assert!(memory.append(&[7; 9_999]) && !memory.append(&[8; 2]) && memory.append(&[9]));
        assert_eq!((memory.as_ref()[9_998], memory.as_ref()[9_999]), (7, 9));
        assert_eq!(memory.as_ref().len(), 10_000);
        assert!(ManifestBytes::empty(0).unwrap().as_ref().is_empty());
    }

    #[test]
    fn what_is_only_announced_takes_no_memory() {
        let mut memory = ManifestBytes::empty(1 << 30).unwrap();
        assert!(memory.append(&[1; 100_000]));
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let within = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).ok());
            Some((start?..end?).contains(&memory.at.addr()))
        };
        let mut lines = maps.lines().skip_while(|line| within(line) != Some(true));
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!((98..32_768).contains(&kib), "{kib} KiB for 100,000 bytes");
    }
}
