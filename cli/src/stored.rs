//! A ledger as it lies on disk, with all that followed it, and nothing else of a gateway.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tidegate_kit::ledger_log::{ledgers, read_batches, read_certificate, read_document};
use tidegate_ledger::{Batch, Commitment, Digest, Entry, VerifierKey, WipeCertificate};

use crate::Usage;

/// One ledger: the first, or one that was opened by a restore.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) dir: PathBuf,
    pub(crate) batches: Vec<(String, Vec<u8>)>,
}

/// An entry, its exact text, and which ledger it stands in.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) ledger: usize,
    pub(crate) text: String,
    pub(crate) entry: Entry,
}

#[derive(Debug)]
pub(crate) struct Stored {
    dir: PathBuf,
    /// Oldest first; never empty.
    pub(crate) volumes: Vec<Volume>,
}

/// What a document says, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Told {
    Text(String),
    Erased,
    /// It is there, and not what the entry commits to.
    Altered,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(text) => text,
            Self::Erased => "(erased)",
            Self::Altered => "(not what was committed to)",
        })
    }
}

impl Stored {
    /// `dir` is a state directory or its `ledger` part.
    pub(crate) fn read(dir: PathBuf) -> Result<Self> {
        let dir = if dir.join("ledger").is_dir() { dir.join("ledger") } else { dir };
        let none = || format!("no ledger in {}", dir.display());
        let mut volumes = Vec::new();
        for (number, folder) in (1..).zip(ledgers(&dir).with_context(none)?) {
            let batches = match read_batches(&folder.join("batches")) {
                Ok(batches) => batches,
                // All of the first may be lost: the second says so.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error).with_context(none),
            };
            volumes.push(Volume { number, dir: folder, batches });
        }
        if volumes.iter().all(|volume| volume.batches.is_empty()) {
            bail!("the ledger in {} is empty", dir.display());
        }
        Ok(Self { dir, volumes })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Entries that can be read, in order; judging them is `verify`'s work.
    pub(crate) fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for volume in &self.volumes {
            for (name, bytes) in &volume.batches {
                let broken = || format!("batch {name} cannot be read; run `tidegate audit verify`");
                for text in Batch::parse(bytes).with_context(broken)?.entries {
                    let entry = Entry::parse(&text).with_context(broken)?;
                    lines.push(Line { ledger: volume.number, text, entry });
                }
            }
        }
        Ok(lines)
    }

    pub(crate) fn document(&self, commitment: &Commitment) -> Told {
        match read_document(&self.dir.join("documents"), commitment) {
            Ok(Some(text)) => Told::Text(text),
            Ok(None) => Told::Erased,
            Err(_) => Told::Altered,
        }
    }

    /// The certificate of that digest, or what became of it.
    pub(crate) fn certificate(&self, digest: &Digest) -> Result<WipeCertificate, Told> {
        match read_certificate(&self.certificates(), digest) {
            Ok(Some(text)) => WipeCertificate::parse(&text).map_err(|_| Told::Altered),
            Ok(None) => Err(Told::Erased),
            Err(_) => Err(Told::Altered),
        }
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }
}

impl Volume {
    /// The verifier key: as given, or the one that was written beside the ledger.
    pub(crate) fn key(&self, given: Option<&Path>) -> Result<VerifierKey> {
        let file = given.map_or_else(|| self.dir.join("ledger.pub"), Path::to_owned);
        let text = fs::read_to_string(&file).with_context(|| {
            format!("cannot read the verifier key {}; name it with --key", file.display())
        })?;
        Ok(VerifierKey::parse(text.trim())
            .map_err(|error| Usage(format!("{}: {error}", file.display())))?)
    }
}
