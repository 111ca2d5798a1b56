//! What a worker carries between its requests: the name of an upload, and receipts for its parts. Each
//! proves by the lease's key that one of the replicas said it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tidegate_plan::{LeaseId, PartHash};
use tidegate_seal::{ResultsKey, results_proof, verify_results_proof};
use tidegate_wire::PartReceipt;

/// Stands in the tag of a part that was copied from the file whose place it is to take, and so was not paid for:
/// between the store's word and the version that it was copied from. No header holds it.
const COPIED: char = '\n';

/// The tag of a part that was copied for nothing.
pub(crate) fn copied_tag(tag: &str, version: &str) -> String {
    format!("{tag}{COPIED}{version}")
}

/// The store's word for a part.
pub(crate) fn word(receipt: &PartReceipt) -> &str {
    receipt.tag.split_once(COPIED).map_or(&receipt.tag, |(word, _)| word)
}

/// Which version a part was copied from for nothing.
pub(crate) fn copied_from(receipt: &PartReceipt) -> Option<&str> {
    receipt.tag.split_once(COPIED).map(|(_, version)| version)
}

/// An upload: which, of which file, and what the store calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// Random, hex. It lies with the file when that is whole.
    pub(crate) id: String,
    pub(crate) path: String,
    /// The store's word; empty in a directory.
    pub(crate) store: String,
}

fn message(label: &str, lease: &LeaseId, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = label.as_bytes().to_vec();
    message.push(0);
    message.extend_from_slice(lease.as_bytes());
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

impl Ticket {
    /// The text that the worker shows again.
    pub(crate) fn seal(
        &self,
        key: &ResultsKey,
        lease: &LeaseId,
    ) -> Result<String, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let proof = results_proof(key, &message(UPLOAD, lease, &[&body]));
        Ok(URL_SAFE_NO_PAD.encode([proof.as_slice(), &body].concat()))
    }

    /// Reads what [`Self::seal`] wrote for the same lease.
    pub(crate) fn open(text: &str, key: &ResultsKey, lease: &LeaseId) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (proof, body) = bytes.split_first_chunk::<32>()?;
        if !verify_results_proof(key, &message(UPLOAD, lease, &[body]), proof) {
            return None;
        }
        serde_json::from_slice(body).ok()
    }
}

const UPLOAD: &str = "tidegate/v1 upload";
const PART: &str = "tidegate/v1 part";

fn of_part(lease: &LeaseId, upload: &str, part: u32, len: u32, hash: &[u8], tag: &str) -> Vec<u8> {
    let (part, len) = (part.to_be_bytes(), len.to_be_bytes());
    message(PART, lease, &[upload.as_bytes(), &part, &len, hash, tag.as_bytes()])
}

/// The receipt for a part of the upload of this id.
pub(crate) fn receipt(
    key: &ResultsKey,
    lease: &LeaseId,
    upload: &str,
    (part, len): (u32, u32),
    hash: PartHash,
    tag: String,
) -> PartReceipt {
    let proof = results_proof(key, &of_part(lease, upload, part, len, &hash.0, &tag));
    PartReceipt { part, len, hash: hash.0.as_slice().into(), tag, proof: proof.as_slice().into() }
}

/// The hash of a part by its receipt, if that is one of the upload of this id.
pub(crate) fn receipt_holds(
    key: &ResultsKey,
    lease: &LeaseId,
    upload: &str,
    receipt: &PartReceipt,
) -> Option<PartHash> {
    let PartReceipt { part, len, hash, tag, proof } = receipt;
    let message = of_part(lease, upload, *part, *len, &hash.0, tag);
    if !verify_results_proof(key, &message, &proof.0) {
        return None;
    }
    hash.0.as_slice().try_into().ok().map(PartHash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_seal::LeaseKey;

    #[test]
    fn tickets_and_receipts_hold_for_their_own_lease_and_upload() {
        let key = LeaseKey::from_bytes([7; 32]).results_key();
        let (lease, other) = (LeaseId::from_bytes([1; 16]), LeaseId::from_bytes([2; 16]));
        let ticket = Ticket { id: "id".into(), path: "a/ü".into(), store: "u".into() };
        let text = ticket.seal(&key, &lease).unwrap();
        assert_eq!(Ticket::open(&text, &key, &lease), Some(ticket));
        assert_eq!(Ticket::open(&text, &key, &other), None);
        let stranger = LeaseKey::from_bytes([8; 32]).results_key();
        assert_eq!(Ticket::open(&text, &stranger, &lease), None);
        assert_eq!(Ticket::open("x", &key, &lease), None);

        let hash = PartHash([9; 32]);
        let made = receipt(&key, &lease, "id", (3, 16), hash, "tag".into());
        assert_eq!(receipt_holds(&key, &lease, "id", &made), Some(hash));
        assert_eq!((word(&made), copied_from(&made)), ("tag", None));
        let copy = PartReceipt { tag: copied_tag("tag", "v"), ..made.clone() };
        assert_eq!((word(&copy), copied_from(&copy)), ("tag", Some("v")));
        assert_eq!(receipt_holds(&key, &lease, "other", &made), None);
        assert_eq!(receipt_holds(&key, &other, "id", &made), None);
        for changed in [
            PartReceipt { part: 4, ..made.clone() },
            PartReceipt { len: 17, ..made.clone() },
            PartReceipt { tag: "tagg".into(), ..made.clone() },
            PartReceipt { hash: vec![8; 32].into(), ..made },
        ] {
            assert_eq!(receipt_holds(&key, &lease, "id", &changed), None);
        }
    }
}
