//! A ledger's directory read without a gateway: what the offline verifier is given.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tidegate_ledger::{Commitment, Digest, Document, MAX_BATCH_BYTES, WipeCertificate};

use super::volume::Volume;

/// Longest document read, in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;

/// The folders of all ledgers in a ledger directory, oldest first: its own, then those that
/// followed after a restore. Each has `batches` and `ledger.pub`; one that a restore only began is left out.
pub fn ledgers(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut followed = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let volume = entry.file_name().to_str().and_then(Volume::named);
        if let Some(volume) = volume.filter(|_| entry.path().join("batches").is_dir()) {
            followed.push((volume, entry.path()));
        }
    }
    followed.sort_unstable();
    let first = std::iter::once(directory.to_owned());
    Ok(first.chain(followed.into_iter().map(|(_, path)| path)).collect())
}

/// All batches in a directory of batches as (name, bytes), in order of name. Unfinished writes
/// and whatever else does not have the name of a batch is passed over.
pub fn read_batches(directory: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut batches = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_batch_name(&name) {
            // One byte more than a batch may have, so that a longer one is refused, not cut.
            let bytes = read_limited(&entry.path(), MAX_BATCH_BYTES as u64 + 1)?;
            batches.push((name, bytes));
        }
    }
    batches.sort_unstable();
    Ok(batches)
}

/// The text of a document from a directory of documents; `None` when it was erased, an error when
/// it is not the one committed to.
pub fn read_document(directory: &Path, commitment: &Commitment) -> io::Result<Option<String>> {
    let Some(text) = read_named(directory, commitment)? else { return Ok(None) };
    let document = Document::parse(&text, commitment)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some(document.body))
}

/// The text of a wipe certificate from a directory of certificates; `None` when it was erased, an
/// error when it does not hold or is not the one whose digest an entry holds.
pub fn read_certificate(directory: &Path, digest: &Digest) -> io::Result<Option<String>> {
    let Some(text) = read_named(directory, digest)? else { return Ok(None) };
    WipeCertificate::stored(&text, digest)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some(text))
}

/// The file named after what the log says of it; `None` when there is none.
fn read_named(directory: &Path, name: &impl ToString) -> io::Result<Option<String>> {
    match read_limited(&directory.join(name.to_string()), MAX_DOCUMENT) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn is_batch_name(name: &str) -> bool {
    name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit())
}

fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
