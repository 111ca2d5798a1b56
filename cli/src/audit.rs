//! `tidegate audit`: reads a ledger directory, or a copy of one, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tidegate_ledger::{Batch, Commitment, Event, LeaseId, tiles};

use crate::args::AuditCommand;
use crate::certified::certificate_of;
use crate::stored::{Line, Stored};
use crate::story::{self, sentence, when};
use crate::{Usage, paths};

mod object;
mod verdict;
mod versions;

pub(crate) fn main(command: AuditCommand, json: bool) -> Result<u8> {
    match command {
        AuditCommand::List(ledger) => list(&Stored::read(paths::state(ledger.ledger)?)?, json),
        AuditCommand::Show { ledger, what } => {
            show(&Stored::read(paths::state(ledger.ledger)?)?, &what, json)
        }
        AuditCommand::Verify { ledger, checkpoint, key } => {
            let stored = Stored::read(paths::state(ledger.ledger)?)?;
            verdict::judge(&stored, &checkpoint, key.as_deref(), json)
        }
        AuditCommand::Export { ledger, to } => {
            export(&Stored::read(paths::state(ledger.ledger)?)?, &to)
        }
    }
}

#[allow(clippy::print_stdout, reason = "the list is this command's output")]
fn list(stored: &Stored, json: bool) -> Result<u8> {
    for Line { ledger, text, entry } in stored.lines()? {
        if json {
            println!("{text}");
        } else {
            // Only where there are several does it matter which.
            let which = if stored.volumes.len() > 1 { format!("{ledger}:") } else { String::new() };
            println!("{which}{:>6}  {}  {}", entry.index, when(entry.time), sentence(&entry.event));
        }
    }
    Ok(0)
}

fn show(stored: &Stored, what: &str, json: bool) -> Result<u8> {
    if let Ok(index) = what.parse::<u64>() {
        return show_entry(stored, index, json);
    }
    match what.parse::<LeaseId>() {
        Ok(lease) => {
            story::tell(stored, lease, json)?;
            Ok(0)
        }
        Err(_) => object::show(stored, what, json),
    }
}

#[allow(clippy::print_stdout, reason = "the entry is this command's output")]
fn show_entry(stored: &Stored, index: u64, json: bool) -> Result<u8> {
    let lines = stored.lines()?;
    let wanted: Vec<_> = lines.iter().filter(|line| line.entry.index == index).collect();
    if wanted.is_empty() {
        bail!("the ledger has no entry {index}");
    }
    for Line { text, entry, .. } in wanted {
        if json {
            println!("{text}");
            continue;
        }
        println!("{:>6}  {}  {}", entry.index, when(entry.time), sentence(&entry.event));
        for (name, commitment) in commitments(&entry.event) {
            println!("        {name}: {}", stored.document(&commitment));
        }
        if let Some(digest) = certificate_of(&entry.event) {
            let said = match stored.certificate(&digest) {
                Ok(certificate) => certificate.to_canonical()?,
                Err(told) => told.to_string(),
            };
            println!("        certificate: {said}");
        }
    }
    Ok(0)
}

fn commitments(event: &Event) -> Vec<(&'static str, Commitment)> {
    match event {
        Event::Admin { subject, .. } => vec![("subject", *subject)],
        Event::SnapshotTaken { source, .. } => vec![("source", *source)],
        Event::LeaseGranted { subject, selected, results, .. } => {
            let selected = selected.map(|selected| ("selected", selected));
            let results = results.map(|results| ("results", results));
            std::iter::once(("subject", *subject)).chain(selected).chain(results).collect()
        }
        Event::Results { listing, .. } => vec![("files", *listing)],
        Event::Attached { facts, .. } => vec![("node", *facts)],
        Event::TokenMade { subject, .. } => vec![("subject", *subject)],
        _ => Vec::new(),
    }
}

/// The newest ledger; those before it end where it says.
fn export(stored: &Stored, to: &Path) -> Result<u8> {
    let newest = stored.volumes.last().context("the ledger is empty")?;
    let lines = stored.lines()?;
    let own = lines.into_iter().filter(|line| line.ledger == newest.number);
    let entries: Vec<String> = own.map(|line| line.text).collect();
    let last = newest.batches.last().context("the ledger is empty")?;
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
