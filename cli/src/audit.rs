//! `tidegate audit`: reads a ledger directory, or a copy of one, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tidegate_kit::ledger_log::{read_batches, read_certificate, read_document};
use tidegate_ledger::{Batch, Digest, Entry, Event, LeaseId, Report, VerifierKey, tiles, verify};

use crate::args::AuditCommand;
use crate::certified::{Certificates, certificate_of};
use crate::story::{lease_of, sentence, when};
use crate::{Usage, exit, paths};

/// A ledger as it lies on disk.
#[derive(Debug)]
struct Stored {
    dir: PathBuf,
    batches: Vec<(String, Vec<u8>)>,
}

pub(crate) fn main(command: AuditCommand, json: bool) -> Result<u8> {
    match command {
        AuditCommand::List(ledger) => list(&Stored::read(paths::state(ledger.ledger)?)?, json),
        AuditCommand::Show { ledger, what } => {
            show(&Stored::read(paths::state(ledger.ledger)?)?, &what, json)
        }
        AuditCommand::Verify { ledger, checkpoint, key } => {
            judge(&Stored::read(paths::state(ledger.ledger)?)?, &checkpoint, key, json)
        }
        AuditCommand::Export { ledger, to } => {
            export(&Stored::read(paths::state(ledger.ledger)?)?, &to)
        }
    }
}

impl Stored {
    /// `dir` is a state directory or its `ledger` part.
    fn read(dir: PathBuf) -> Result<Self> {
        let dir = if dir.join("ledger").is_dir() { dir.join("ledger") } else { dir };
        let found = read_batches(&dir.join("batches"))
            .with_context(|| format!("no ledger in {}", dir.display()))?;
        if found.is_empty() {
            bail!("the ledger in {} is empty", dir.display());
        }
        Ok(Self { dir, batches: found })
    }

    /// Entries that can be read, in order; judging them is `verify`'s work.
    fn entries(&self) -> Result<Vec<(String, Entry)>> {
        let mut entries = Vec::new();
        for (name, bytes) in &self.batches {
            let batch = Batch::parse(bytes).with_context(|| {
                format!("batch {name} cannot be read; run `tidegate audit verify`")
            })?;
            for text in batch.entries {
                let entry = Entry::parse(&text)
                    .with_context(|| format!("batch {name}; run `tidegate audit verify`"))?;
                entries.push((text, entry));
            }
        }
        Ok(entries)
    }

    /// The verifier key: as given, or the one that was written beside the ledger.
    fn key(&self, given: Option<PathBuf>) -> Result<VerifierKey> {
        let file = given.unwrap_or_else(|| self.dir.join("ledger.pub"));
        let text = fs::read_to_string(&file).with_context(|| {
            format!("cannot read the verifier key {}; name it with --key", file.display())
        })?;
        Ok(VerifierKey::parse(text.trim())
            .map_err(|error| Usage(format!("{}: {error}", file.display())))?)
    }

    /// What the document behind a commitment says, or what became of it.
    fn document(&self, commitment: &tidegate_ledger::Commitment) -> String {
        or_what_became_of_it(read_document(&self.dir.join("documents"), commitment))
    }

    fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }

    /// The certificate of a digest, or what became of it.
    fn certificate(&self, digest: &Digest) -> String {
        or_what_became_of_it(read_certificate(&self.certificates(), digest))
    }
}

fn or_what_became_of_it(read: std::io::Result<Option<String>>) -> String {
    match read {
        Ok(Some(text)) => text,
        Ok(None) => "(erased)".into(),
        Err(error) => format!("(not what was committed to: {error})"),
    }
}

#[allow(clippy::print_stdout, reason = "the list is this command's output")]
fn list(stored: &Stored, json: bool) -> Result<u8> {
    for (text, entry) in stored.entries()? {
        if json {
            println!("{text}");
        } else {
            println!("{:>6}  {}  {}", entry.index, when(entry.time), sentence(&entry.event));
        }
    }
    Ok(0)
}

#[allow(clippy::print_stdout, reason = "the story is this command's output")]
fn show(stored: &Stored, what: &str, json: bool) -> Result<u8> {
    let entries = stored.entries()?;
    let wanted: Vec<&(String, Entry)> = if let Ok(index) = what.parse::<u64>() {
        entries.iter().filter(|(_, entry)| entry.index == index).collect()
    } else {
        let lease: LeaseId = what
            .parse()
            .map_err(|_| Usage(format!("`{what}` is neither a lease id nor an index")))?;
        entries.iter().filter(|(_, entry)| lease_of(&entry.event) == Some(lease)).collect()
    };
    if wanted.is_empty() {
        bail!("the ledger says nothing about {what}");
    }
    for (text, entry) in wanted {
        if json {
            println!("{text}");
            continue;
        }
        println!("{:>6}  {}  {}", entry.index, when(entry.time), sentence(&entry.event));
        for (name, commitment) in commitments(&entry.event) {
            println!("        {name}: {}", stored.document(&commitment));
        }
        if let Some(digest) = certificate_of(&entry.event) {
            println!("        certificate: {}", stored.certificate(&digest));
        }
    }
    Ok(0)
}

fn commitments(event: &Event) -> Vec<(&'static str, tidegate_ledger::Commitment)> {
    match event {
        Event::SnapshotTaken { source, .. } => vec![("source", *source)],
        Event::LeaseGranted { subject, .. } => vec![("subject", *subject)],
        Event::Attached { facts, .. } => vec![("node", *facts)],
        _ => Vec::new(),
    }
}

#[allow(clippy::print_stdout, reason = "the verdict is this command's output")]
fn judge(stored: &Stored, known: &[PathBuf], key: Option<PathBuf>, json: bool) -> Result<u8> {
    let key = stored.key(key)?;
    let mut notes = Vec::new();
    for file in known {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        notes.push(note_in(&text));
    }
    // The copy that the gateway keeps apart counts too when it lies where it was put.
    if let Ok(copy) = fs::read_to_string(stored.dir.join("../checkpoint")) {
        notes.push(copy);
    }
    let report = verify(&stored.batches, &key, &notes);
    let certificates = Certificates::read(&stored.certificates(), &stored.batches, report.size);
    let holds = report.holds() && certificates.faults.is_empty();
    if json {
        let faults = report.faults.iter().map(ToString::to_string);
        let faults = faults.chain(certificates.faults.iter().map(ToString::to_string));
        let bad = report.faults.iter().map(|fault| fault.first);
        let bad = bad.chain(certificates.faults.iter().map(|fault| fault.entry));
        let verdict = serde_json::json!({
            "holds": holds, "entries": report.size, "root": report.root, "agreed": report.agreed,
            "certificates": { "held": certificates.held, "erased": certificates.erased },
            "first_bad": bad.min(), "faults": faults.collect::<Vec<_>>(),
        });
        println!("{verdict}");
    } else {
        print_verdict(&report, notes.len(), &certificates);
    }
    Ok(if holds { 0 } else { exit::FAULT_FOUND })
}

#[allow(clippy::print_stdout, reason = "the verdict is this command's output")]
fn print_verdict(report: &Report, known: usize, certificates: &Certificates) {
    if report.holds() {
        println!(
            "the ledger holds: {} entries, head {}, {} of {known} known checkpoints agree",
            report.size, report.root, report.agreed
        );
    }
    for fault in &report.faults {
        println!("does not hold: {fault}");
    }
    println!("certificates: {} hold, {} are erased", certificates.held, certificates.erased);
    for fault in &certificates.faults {
        println!("does not hold: {fault}");
    }
}

/// A checkpoint file is a signed note, or a receipt that holds one.
fn note_in(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|receipt| receipt.get("checkpoint")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| text.to_owned())
}

fn export(stored: &Stored, to: &Path) -> Result<u8> {
    let entries: Vec<String> = stored.entries()?.into_iter().map(|(text, _)| text).collect();
    let last = stored.batches.last().context("the ledger is empty")?;
    let checkpoint = Batch::parse(&last.1)?.checkpoint;
    if to.exists() && fs::read_dir(to)?.next().is_some() {
        return Err(Usage(format!("{} is not empty; name a new directory", to.display())).into());
    }
    for (path, bytes) in tiles::export(&entries, &checkpoint)? {
        let file = to.join(path);
        fs::create_dir_all(file.parent().unwrap_or(to))?;
        fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    eprintln!("tidegate: {} entries written to {} as tlog-tiles", entries.len(), to.display());
    Ok(0)
}
