use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{Digest, NoteError, SigningKey, VerifierKey, open_note};

/// A tree head (C2SP tlog-checkpoint): origin, size and RFC 6962 root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    #[error("the note is not a checkpoint")]
    Malformed,
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("the checkpoint names another origin than its key")]
    Origin,
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The signed note; the origin is the key's name.
    pub fn sign(size: u64, root: Digest, key: &SigningKey) -> String {
        key.sign_note(&Self { origin: key.name().to_owned(), size, root }.text())
    }

    /// Opens a signed checkpoint and checks that its origin is the key's name.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse_text(open_note(note, &[key])?)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin);
        }
        Ok(checkpoint)
    }

    /// What a note says whose key is lost: nobody vouches for it.
    pub fn unverified(note: &str) -> Result<Self, CheckpointError> {
        let end = note.find("\n\n").ok_or(CheckpointError::Malformed)?;
        Self::parse_text(&note[..=end])
    }

    /// Extension lines are allowed, must not be empty, and are passed over.
    fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let mut lines = text.strip_suffix('\n').ok_or(malformed)?.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(malformed)?;
        let size = lines.next().ok_or(malformed)?;
        if !size.bytes().all(|b| b.is_ascii_digit()) || (size.len() > 1 && size.starts_with('0')) {
            return Err(malformed);
        }
        let size = size.parse().map_err(|_| malformed)?;
        let root = STANDARD.decode(lines.next().ok_or(malformed)?).map_err(|_| malformed)?;
        let root = <[u8; 32]>::try_from(root).map_err(|_| malformed)?;
        if lines.any(str::is_empty) {
            return Err(malformed);
        }
        Ok(Self { origin: origin.to_owned(), size, root: Digest::from_bytes(root) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_seed("tidegate/test", [5; 32]).unwrap()
    }

    #[test]
    fn sign_and_open() {
        let root = Digest::from_bytes([9; 32]);
        let note = Checkpoint::sign(12, root, &key());
        let opened = Checkpoint::open(&note, key().verifier()).unwrap();
        assert_eq!(opened, Checkpoint { origin: "tidegate/test".into(), size: 12, root });
        assert_eq!(Checkpoint::unverified(&note).unwrap(), opened);
        assert!(Checkpoint::unverified("nonsense").is_err());
    }

    #[test]
    fn the_example_of_the_specification_parses() {
        let text =
            "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::parse_text(text).unwrap();
        assert_eq!((checkpoint.size, checkpoint.text().as_str()), (20_852_163, text));
    }

    #[test]
    fn strictness() {
        let root = STANDARD.encode([9; 32]);
        let table = [
            format!("\n12\n{root}\n"),
            format!("o\n012\n{root}\n"),
            format!("o\n+12\n{root}\n"),
            format!("o\n\n{root}\n"),
            format!("o\n 12\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("o\n12\n{}\n", &root[..root.len() - 1]),
            format!("o\n12\n{}\n", STANDARD.encode([9; 31])),
            format!("o\n12\n{root}\n\n"),
            format!("o\n12\n{root}"),
            "o\n12\n".to_owned(),
            String::new(),
        ];
        for text in &table {
            assert_eq!(Checkpoint::parse_text(text), Err(CheckpointError::Malformed), "{text:?}");
        }
        assert!(Checkpoint::parse_text(&format!("o\n0\n{root}\nextension\n")).is_ok());
        let foreign = key().sign_note(&format!("other\n1\n{root}\n"));
        assert_eq!(Checkpoint::open(&foreign, key().verifier()), Err(CheckpointError::Origin));
    }

    proptest! {
        #[test]
        fn any_signed_text_opens_or_is_refused(text in "(\\PC|\n|[0-9]){0,120}\n") {
            let note = key().sign_note(&text);
            let _ = Checkpoint::open(&note, key().verifier());
        }
    }
}
