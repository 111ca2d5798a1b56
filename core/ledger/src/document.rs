use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::canonical::{CanonicalError, from_canonical, to_canonical};

/// What an entry holds in place of a name: keyed BLAKE3 of a document under a key of its own.
///
/// The key is random for each document and lies with it, so once the document is erased nobody
/// can test a guess of its content against the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commitment(pub Digest);

impl std::fmt::Display for Commitment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Commits to a document; `key` must be random and used for nothing else.
pub fn commit(key: &[u8; 32], document: &[u8]) -> Commitment {
    Commitment(Digest::from_bytes(*blake3::keyed_hash(key, document).as_bytes()))
}

/// Names and details beside the log: the commitment's key and the text it covers.
///
/// Stored as canonical JSON under `documents/<commitment>`; deleting it erases what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub body: String,
    pub key: Digest,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    #[error("not a document of this ledger")]
    Syntax(#[from] CanonicalError),
    #[error("the document is not the one that was committed to")]
    NotCommitted,
}

impl Document {
    pub fn new(key: [u8; 32], body: impl Into<String>) -> Self {
        Self { body: body.into(), key: Digest::from_bytes(key) }
    }

    pub fn commitment(&self) -> Commitment {
        commit(self.key.as_bytes(), self.body.as_bytes())
    }

    pub fn to_json(&self) -> Result<String, CanonicalError> {
        to_canonical(self)
    }

    /// Reads a stored document and checks it against the commitment in the log.
    pub fn parse(text: &str, expected: &Commitment) -> Result<Self, DocumentError> {
        let document: Self = from_canonical(text)?;
        if document.commitment() != *expected {
            return Err(DocumentError::NotCommitted);
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_fits_its_commitment_only() {
        let document = Document::new([7; 32], "s3://räum/häuser");
        let commitment = document.commitment();
        let text = document.to_json().unwrap();
        assert_eq!(Document::parse(&text, &commitment).unwrap(), document);
        let other = text.replace("häuser", "hauser");
        assert!(matches!(Document::parse(&other, &commitment), Err(DocumentError::NotCommitted)));
        assert_ne!(Document::new([8; 32], "s3://räum/häuser").commitment(), commitment);
        assert!(matches!(Document::parse("{}", &commitment), Err(DocumentError::Syntax(_))));
    }
}
