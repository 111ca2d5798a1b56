//! What `run` and `mount` say at the end: what was selected, what left, what was read, what is gone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytesize::ByteSize;
use serde::Serialize;
use tidegate_fuse_cache::ResultsProgress;
use tidegate_ledger::{Outcome, StatedResults, WipeCertificate};
use tidegate_plan::{LeaseId, Shown};

use crate::Usage;

/// Names of lost results that are shown to people; the certificate has more.
const LOST_SHOWN: usize = 20;

/// Printed to people as text and to machines as this document.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    pub(crate) lease: LeaseId,
    /// As given; absent when the gateway stands elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    pub(crate) selected_files: u64,
    pub(crate) selected_bytes: u64,
    pub(crate) blocks: u32,
    /// Names that POSIX cannot show, and why.
    pub(crate) unshown: Vec<(String, String)>,
    /// Sealed bytes that left; a block that was sent twice counts twice.
    pub(crate) left_bytes: u64,
    /// Plaintext bytes answered to readers.
    pub(crate) read_bytes: u64,
    pub(crate) read_errors: u64,
    /// From the grant, or the start of what joins a lease granted before, to the first byte that could be
    /// read; `None` when none came.
    pub(crate) first_byte_ms: Option<u64>,
    /// Absent for a lease that brings nothing home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) results: Option<ReceiptResults>,
    /// How often a dead worker was replaced.
    pub(crate) workers_replaced: u32,
    pub(crate) outcome: Outcome,
    pub(crate) certificate: Option<WipeCertificate>,
    /// The ledger's head (signed note); keep it: the ledger must agree with it for ever.
    pub(crate) checkpoint: String,
}

/// What became of the results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ReceiptResults {
    /// At home; what was stored again counts again.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Names of files that are not at home as they were last written, the first 65,536.
    pub(crate) lost: Vec<String>,
    pub(crate) lost_files: u64,
    /// Not at home when the worker, which stated nothing, was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unsent_bytes: Option<u64>,
}

impl ReceiptResults {
    pub(crate) fn stated(stated: &StatedResults) -> Self {
        Self {
            files: stated.stored_files,
            bytes: stated.stored_bytes,
            lost: stated.lost.clone(),
            lost_files: stated.lost_files,
            unsent_bytes: None,
        }
    }

    /// Of a worker that stated nothing.
    pub(crate) fn last_seen(seen: &ResultsProgress) -> Self {
        Self {
            files: seen.home_files,
            bytes: seen.home_bytes,
            lost: Vec::new(),
            lost_files: seen.unsent_files,
            unsent_bytes: Some(seen.unsent_bytes),
        }
    }

    /// What is lost, for people, all of it: there is no receipt that says it.
    pub(crate) fn say_lost(&self) {
        for name in &self.lost {
            eprintln!("tidegate: not home: {}", Shown(name.as_bytes()));
        }
        let shown = self.lost.len() as u64;
        let more = self.lost_files.saturating_sub(shown);
        if more > 0 {
            eprintln!("tidegate: not home: {more} files{}", if shown > 0 { " more" } else { "" });
        }
    }

    /// All that was written is at home.
    pub(crate) fn complete(&self) -> bool {
        self.lost_files == 0 && self.unsent_bytes.is_none_or(|bytes| bytes == 0)
    }
}

/// The file for a receipt, opened before anything leaves: what cannot be written is said while it
/// costs nothing.
#[derive(Debug)]
pub(crate) struct ReceiptFile {
    file: File,
    path: PathBuf,
    /// Made by us, and nothing is in it yet.
    is_new: bool,
}

impl ReceiptFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let opened = match options.write(true).create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                options.create_new(false).open(path).map(|file| (file, false))
            }
            made => made.map(|file| (file, true)),
        };
        let (file, is_new) =
            opened.map_err(|error| Usage(format!("--receipt {}: {error}", path.display())))?;
        Ok(Self { file, path: path.to_owned(), is_new })
    }

    /// Failing is no reason to end otherwise than the command did.
    pub(crate) fn write(mut self, receipt: &Receipt) -> Result<()> {
        let text = serde_json::to_string_pretty(receipt)? + "\n";
        let cut = self.file.metadata().and_then(|meta| match meta.is_file() {
            true => self.file.set_len(0),
            false => Ok(()),
        });
        let written = cut.and_then(|()| self.file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write the receipt to {}", self.path.display()))?;
        self.is_new = false;
        Ok(())
    }
}

impl Drop for ReceiptFile {
    fn drop(&mut self) {
        if self.is_new {
            // Only tidiness: an empty file says nothing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Receipt {
    /// Wiped, and nothing missing in the worker's statement.
    pub(crate) fn certified(&self) -> bool {
        self.outcome == Outcome::Wiped
            && self
                .certificate
                .as_ref()
                .and_then(|c| c.stated.as_ref())
                .is_some_and(|stated| stated.shortfall().is_none())
    }

    /// Not everything that the command wrote came home.
    pub(crate) fn lost_results(&self) -> bool {
        self.results.as_ref().is_some_and(|results| !results.complete())
    }

    pub(crate) fn say(&self, json: bool) -> Result<()> {
        if json {
            eprintln!("{}", serde_json::to_string(self)?);
        } else {
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        let row = |name: &str, text: String| eprintln!("  {name:<12}{text}");
        eprintln!("tidegate: lease {}", self.lease);
        if let Some(source) = &self.source {
            row("source", source.clone());
        }
        let (selected, left) = (ByteSize(self.selected_bytes), ByteSize(self.left_bytes));
        row(
            "selected",
            format!("{} files, {selected}, {} blocks", self.selected_files, self.blocks),
        );
        row("left", format!("{left} sealed"));
        let first = match self.first_byte_ms {
            Some(ms) => format!(", first byte after {ms} ms"),
            None => String::new(),
        };
        let errors = match self.read_errors {
            0 => String::new(),
            n => format!(", {n} failed reads"),
        };
        row("read", format!("{}{first}{errors}", ByteSize(self.read_bytes)));
        if let Some(results) = &self.results {
            row("home", format!("{} files, {}", results.files, ByteSize(results.bytes)));
            for name in results.lost.iter().take(LOST_SHOWN) {
                row("LOST", Shown(name.as_bytes()).to_string());
            }
            let shown = results.lost.len().min(LOST_SHOWN) as u64;
            match results.lost_files.saturating_sub(shown) {
                0 => {}
                files if shown == 0 => row("LOST", format!("{files} files")),
                more => row("LOST", format!("and {more} files more")),
            }
            if let Some(unsent) = results.unsent_bytes.filter(|bytes| *bytes > 0) {
                let unsent = ByteSize(unsent);
                row("LOST", format!("{unsent} that were not home when the worker was last heard"));
            }
        }
        if self.workers_replaced > 0 {
            row("worker", format!("replaced {} times", self.workers_replaced));
        }
        for (name, reason) in &self.unshown {
            row("not shown", format!("{}: {reason}", Shown(name.as_bytes())));
        }
        row("gone", self.end());
        let mut head = self.checkpoint.lines();
        let (origin, size, root) =
            (head.next().unwrap_or(""), head.next().unwrap_or(""), head.next().unwrap_or(""));
        row("ledger", format!("{origin}, {size} entries, head {root}"));
    }

    /// One sentence about the end; claims no more than was seen.
    fn end(&self) -> String {
        let stated = self.certificate.as_ref().and_then(|c| c.stated.as_ref());
        match (self.outcome, stated) {
            (Outcome::Wiped, Some(stated)) => match stated.shortfall() {
                None => format!(
                    "wiped: keys destroyed, {} overwritten and read back, cache unlinked; certificate in the ledger",
                    ByteSize(stated.overwritten_bytes)
                ),
                Some(shortfall) => format!("wiped, but {shortfall}"),
            },
            _ => "withdrawn: the gateway's key is destroyed; the worker's wipe was not seen".into(),
        }
    }
}
