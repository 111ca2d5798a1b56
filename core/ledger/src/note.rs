//! C2SP signed notes with Ed25519 keys, and the key texts around them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Signature type byte of Ed25519 notes (C2SP signed-note, "Signature types").
const ED25519: u8 = 1;
/// Longest note read, in bytes.
const MAX_NOTE: usize = 64 * 1024;
/// Most signature lines read; the specification asks for at least 16.
const MAX_SIGNATURES: usize = 64;
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("a key name is not empty and holds no white space, control character or `+`")]
    Name,
    #[error("not a signed-note key of the Ed25519 type")]
    Syntax,
    #[error("the key's id does not belong to the key")]
    WrongId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    #[error("not a signed note")]
    Malformed,
    #[error("the note is signed by no key known here")]
    UnknownKey,
    #[error("the note's signature does not verify")]
    BadSignature,
}

/// The public half of a ledger's key: name, key id and Ed25519 point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    /// Reads a verifier key (`<name>+<hex id>+<base64 of type and key>`).
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, material) = split_key(text)?;
        let key = VerifyingKey::from_bytes(&material).map_err(|_| KeyError::Syntax)?;
        let parsed = Self::new(name, key)?;
        if parsed.id != id {
            return Err(KeyError::WrongId);
        }
        Ok(parsed)
    }

    fn new(name: &str, key: VerifyingKey) -> Result<Self, KeyError> {
        check_name(name)?;
        let id = key_id(name, key.as_bytes());
        Ok(Self { name: name.to_owned(), id, key })
    }

    /// The key's name, which is the ledger's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the two would check the same signature line.
    fn signs(&self, name: &str, id: [u8; 4]) -> bool {
        self.name == name && self.id == id
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let material = [&[ED25519][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), STANDARD.encode(material))
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

/// A ledger's signing key. Wiped on drop, prints only its public half.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    public: VerifierKey,
}

impl SigningKey {
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        let seed = Zeroizing::new(seed);
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let public = VerifierKey::new(name, key.verifying_key())?;
        Ok(Self { key, public })
    }

    /// Reads the text that [`to_text`](Self::to_text) writes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim_end_matches('\n').strip_prefix(PRIVATE_PREFIX);
        let (name, id, seed) = split_key(rest.ok_or(KeyError::Syntax)?)?;
        let key = Self::from_seed(name, *seed)?;
        if key.public.id != id {
            return Err(KeyError::WrongId);
        }
        Ok(key)
    }

    /// `PRIVATE+KEY+<name>+<hex id>+<base64 of type and seed>`, as Go's `sumdb/note` writes it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut material = Zeroizing::new(vec![ED25519]);
        material.extend_from_slice(self.key.as_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(&*material));
        Zeroizing::new(format!(
            "{PRIVATE_PREFIX}{}+{}+{}\n",
            self.public.name,
            hex::encode(self.public.id),
            *encoded
        ))
    }

    pub fn verifier(&self) -> &VerifierKey {
        &self.public
    }

    /// The verifier key as text.
    pub fn vkey(&self) -> String {
        self.public.to_string()
    }

    pub fn name(&self) -> &str {
        &self.public.name
    }

    /// Signs a text that ends in a newline.
    pub(crate) fn sign_note(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let line = STANDARD.encode([&self.public.id[..], &signature].concat());
        format!("{text}\n\u{2014} {} {line}\n", self.public.name)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.vkey()).finish()
    }
}

/// Opens a note: its text, once a signature by one of `keys` verified.
///
/// Signatures by unknown keys are passed over; one by a known key that does not verify refuses
/// the whole note.
pub fn open_note<'a>(note: &'a str, keys: &[&VerifierKey]) -> Result<&'a str, NoteError> {
    if note.len() > MAX_NOTE || note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Malformed);
    }
    let split = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, lines) = (&note[..=split], &note[split + 2..]);
    let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let mut verified = false;
    for (count, line) in lines.split('\n').enumerate() {
        let (name, id, signature) = split_signature(line).ok_or(NoteError::Malformed)?;
        if count >= MAX_SIGNATURES {
            return Err(NoteError::Malformed);
        }
        let Some(key) = keys.iter().find(|key| key.signs(name, id)) else { continue };
        let signature = ed25519_dalek::Signature::from_slice(&signature)
            .map_err(|_| NoteError::BadSignature)?;
        key.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::BadSignature)?;
        verified = true;
    }
    if verified { Ok(text) } else { Err(NoteError::UnknownKey) }
}

fn split_signature(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    check_name(name).ok()?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() { None } else { Some((name, *id, signature.to_vec())) }
}

/// Name, key id and 32 bytes of key material, public or private.
type KeyParts<'a> = (&'a str, [u8; 4], Zeroizing<[u8; 32]>);

fn split_key(text: &str) -> Result<KeyParts<'_>, KeyError> {
    let (name, rest) = text.split_once('+').ok_or(KeyError::Syntax)?;
    let (id, encoded) = rest.split_once('+').ok_or(KeyError::Syntax)?;
    if id.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(KeyError::Syntax);
    }
    let mut key_id = [0; 4];
    hex::decode_to_slice(id, &mut key_id).map_err(|_| KeyError::Syntax)?;
    let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| KeyError::Syntax)?);
    let (kind, material) = bytes.split_first().ok_or(KeyError::Syntax)?;
    let material = <[u8; 32]>::try_from(material).map_err(|_| KeyError::Syntax)?;
    if *kind != ED25519 {
        return Err(KeyError::Syntax);
    }
    Ok((name, key_id, Zeroizing::new(material)))
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(bad) { Err(KeyError::Name) } else { Ok(()) }
}

/// SHA-256(name ‖ newline ‖ type ‖ key), first four bytes.
fn key_id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ED25519])
        .chain_update(key)
        .finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the specification.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    #[test]
    fn the_published_example_verifies() {
        let key = VerifierKey::parse(VKEY).unwrap();
        assert_eq!(key.to_string(), VKEY);
        assert_eq!(open_note(NOTE, &[&key]), Ok("This is an example message.\n"));
    }

    #[test]
    fn keys_go_through_text() {
        let key = SigningKey::from_seed("tidegate/test", [5; 32]).unwrap();
        let again = SigningKey::parse(&key.to_text()).unwrap();
        assert_eq!(again.vkey(), key.vkey());
        assert!(!format!("{key:?}").contains("BQUF"));
        for bad in ["", "a", "a b", "a+b", "PRIVATE+KEY+x+00000000+AQ=="] {
            assert!(SigningKey::parse(bad).is_err() && VerifierKey::parse(bad).is_err(), "{bad}");
        }
        let wrong = VKEY.replace("530d903a", "530d903b");
        assert_eq!(VerifierKey::parse(&wrong), Err(KeyError::WrongId));
        assert_eq!(SigningKey::from_seed("a b", [0; 32]).unwrap_err(), KeyError::Name);
    }

    #[test]
    fn malformed_notes_are_refused() {
        let key = VerifierKey::parse(VKEY).unwrap();
        let table = [
            ("", NoteError::Malformed),
            ("text\n", NoteError::Malformed),
            (&NOTE[..NOTE.len() - 1], NoteError::Malformed),
            (&NOTE.replace("message", "massage"), NoteError::BadSignature),
            (&NOTE.replace("example.com/foo Uw2", "example.com/foo Uw3"), NoteError::UnknownKey),
            (&NOTE.replace("/foo U", "/bar U"), NoteError::UnknownKey),
            (&NOTE.replace("yaQM=", "yaQM"), NoteError::Malformed),
            (&NOTE.replace("yaQM=", "yaQN="), NoteError::Malformed),
            (&NOTE.replace("\u{2014} ", "- "), NoteError::Malformed),
            (&NOTE.replace("This is", "This\tis"), NoteError::Malformed),
            (&NOTE.replace('\n', "\r\n"), NoteError::Malformed),
            (&format!("{NOTE}\n"), NoteError::Malformed),
            (&format!("{NOTE}trailing\n"), NoteError::Malformed),
        ];
        for (note, error) in table {
            assert_eq!(open_note(note, &[&key]), Err(error), "{note:?}");
        }
    }

    #[test]
    fn foreign_signatures_are_passed_over_but_never_enough() {
        let ours = SigningKey::from_seed("tidegate/test", [5; 32]).unwrap();
        let theirs = SigningKey::from_seed("witness", [6; 32]).unwrap();
        let note = ours.sign_note("text\n");
        let foreign = theirs.sign_note("text\n");
        let both = format!("{note}{}", &foreign["text\n\n".len()..]);
        assert_eq!(open_note(&both, &[ours.verifier()]), Ok("text\n"));
        assert_eq!(open_note(&both, &[theirs.verifier()]), Ok("text\n"));
        assert_eq!(open_note(&foreign, &[ours.verifier()]), Err(NoteError::UnknownKey));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_panic(text in "(\\PC|\n|\u{2014} ){0,300}") {
            let key = VerifierKey::parse(VKEY).unwrap();
            prop_assert!(open_note(&text, &[&key]).is_err());
            let _ = VerifierKey::parse(&text);
            let _ = SigningKey::parse(&text);
        }

        #[test]
        fn any_changed_byte_is_refused(at in 0..NOTE.len(), flip in 1u8..=255) {
            let key = VerifierKey::parse(VKEY).unwrap();
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[at] ^= flip;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert!(open_note(text, &[&key]).is_err());
            }
        }
    }
}
