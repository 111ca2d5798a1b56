//! The wipe certificates beside a ledger, held against the digests in its entries.

use std::path::Path;

use tidegate_kit::ledger_log::read_certificate;
use tidegate_ledger::{Batch, Digest, Entry, Event};

/// What lies beside a ledger for its entries about wipes.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    pub(crate) held: u64,
    pub(crate) erased: u64,
    pub(crate) faults: Vec<CertificateFault>,
}

/// A certificate that is not what its entry says.
#[derive(Debug, thiserror::Error)]
#[error("entry {entry}: certificate {digest}: {why}")]
pub(crate) struct CertificateFault {
    pub(crate) entry: u64,
    digest: Digest,
    why: String,
}

impl Certificates {
    /// Reads those of the first `size` entries from a directory of certificates.
    pub(crate) fn read(directory: &Path, batches: &[(String, Vec<u8>)], size: u64) -> Self {
        let parsed = batches.iter().filter_map(|(_, bytes)| Batch::parse(bytes).ok());
        let entries = parsed.flat_map(|batch| batch.entries);
        let entries = entries.filter_map(|text| Entry::parse(&text).ok());
        let mut found = Self::default();
        for entry in entries.filter(|entry| entry.index < size) {
            let Some(digest) = certificate_of(&entry.event) else { continue };
            match read_certificate(directory, &digest) {
                Ok(Some(_)) => found.held += 1,
                Ok(None) => found.erased += 1,
                Err(why) => found.faults.push(CertificateFault {
                    entry: entry.index,
                    digest,
                    why: why.to_string(),
                }),
            }
        }
        found
    }
}

/// The certificate that an event commits to.
pub(crate) fn certificate_of(event: &Event) -> Option<Digest> {
    match event {
        Event::Wiped { certificate, .. } | Event::Withdrawn { certificate, .. } => {
            Some(*certificate)
        }
        _ => None,
    }
}
