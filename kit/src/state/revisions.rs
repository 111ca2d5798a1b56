use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::store::{Creation, StateError, StateStore};
use crate::keyfile;

/// The numbered revisions of documents: `<document>/<8 digits>`, from 1.
///
/// A stored revision is one line of JSON (MAC, number, random writer id) and the body. The MAC is
/// keyed BLAKE3 over document, number, writer and body, so that a revision from elsewhere, or
/// moved to another number, is not believed. The writer id makes every write unlike every other.
#[derive(Clone)]
pub struct Revisions {
    store: StateStore,
    key: Arc<Zeroizing<[u8; 32]>>,
}

/// One revision of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub number: u64,
    pub body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    mac: String,
    revision: u64,
    writer: String,
}

impl Revisions {
    /// Opens the revisions in `store`; the MAC key lies in `key_file` and is made when missing.
    pub fn open(store: StateStore, key_file: &Path) -> Result<Self, StateError> {
        let bytes =
            keyfile::load_or_create(key_file, || Zeroizing::new(keyfile::random::<32>().to_vec()))?;
        let key = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| StateError::Foreign(key_file.display().to_string()))?;
        Ok(Self { store, key: Arc::new(Zeroizing::new(key)) })
    }

    /// The store underneath.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// A key for another purpose, the same for all who share the MAC key; the label is BLAKE3's context.
    pub fn derive(&self, label: &'static str) -> [u8; 32] {
        blake3::derive_key(label, self.key.as_slice())
    }

    /// What all who write this state hold to: the first to ask writes `terms` down, under
    /// `document`, and the others read them. `None` when it is written under another key than ours.
    pub async fn claim(&self, document: &str, terms: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        loop {
            let next = match self.latest(document).await {
                Ok(Some(found)) if !found.body.is_empty() => return Ok(Some(found.body)),
                // Claimed without terms.
                Ok(Some(found)) => found.number + 1,
                Ok(None) => 1,
                Err(StateError::Foreign(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            // Whoever was faster is then read.
            let _ = self.create_next(document, next, terms).await?;
        }
    }

    /// The newest revision of a document; `None` when it was never written.
    pub async fn latest(&self, document: &str) -> Result<Option<Revision>, StateError> {
        let names = self.store.list(document).await?;
        let Some(last) = names.last() else { return Ok(None) };
        let number = last.parse().ok().filter(|number| *number == names.len() as u64);
        let number = number.ok_or_else(|| StateError::Gap(document.to_owned()))?;
        self.read(document, number).await
    }

    /// One revision of a document; `None` when it does not exist.
    pub async fn read(&self, document: &str, number: u64) -> Result<Option<Revision>, StateError> {
        let path = name(document, number);
        let Some(bytes) = self.store.read(&path).await? else { return Ok(None) };
        let body = self.open_envelope(document, number, &bytes);
        let body = body.ok_or(StateError::Foreign(path))?;
        Ok(Some(Revision { number, body }))
    }

    /// The newest revision after `known`, or `None` when `known` is the newest: one read in the
    /// common case, where [`latest`](Self::latest) lists.
    pub async fn newer(&self, document: &str, known: u64) -> Result<Option<Revision>, StateError> {
        let mut newest = None;
        let mut number = known.saturating_add(1);
        while let Some(revision) = self.read(document, number).await? {
            newest = Some(revision);
            number = number.saturating_add(1);
        }
        Ok(newest)
    }

    /// Creates revision `number`, which must be one more than the newest (1 for a new document).
    /// [`Creation::Exists`] means that another writer was first.
    pub async fn create_next(
        &self,
        document: &str,
        number: u64,
        body: &[u8],
    ) -> Result<Creation, StateError> {
        let before = number.checked_sub(1);
        let follows = match before {
            None => false,
            Some(0) => true,
            Some(before) => self.store.read(&name(document, before)).await?.is_some(),
        };
        if !follows {
            return Err(StateError::Gap(document.to_owned()));
        }
        self.store.create(&name(document, number), self.envelope(document, number, body)).await
    }

    fn envelope(&self, document: &str, number: u64, body: &[u8]) -> Vec<u8> {
        let writer = keyfile::random_hex::<16>();
        let mac = self.mac(document, number, &writer, body).to_hex().to_string();
        let mut bytes = serde_json::to_vec(&Header { mac, revision: number, writer })
            .expect("two strings and a number are always JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        bytes
    }

    fn open_envelope(&self, document: &str, number: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let header: Header = serde_json::from_slice(&bytes[..end]).ok()?;
        let body = &bytes[end + 1..];
        let mac = blake3::Hash::from_hex(&header.mac).ok()?;
        // `blake3::Hash` compares in constant time.
        let ours = mac == self.mac(document, number, &header.writer, body);
        (ours && header.revision == number).then(|| body.to_vec())
    }

    fn mac(&self, document: &str, number: u64, writer: &str, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"tidegate/v1 revision\0");
        for field in [document.as_bytes(), &number.to_be_bytes(), writer.as_bytes(), body] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hasher.finalize()
    }
}

impl std::fmt::Debug for Revisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revisions").field("store", &self.store).finish_non_exhaustive()
    }
}

fn name(document: &str, number: u64) -> String {
    format!("{document}/{number:08}")
}

#[cfg(test)]
mod tests;
