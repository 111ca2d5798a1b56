//! What the job wrote: where it went, what came home, and what was lost.

use serde::Serialize;
use serde_json::Value;
use tidegate_ledger::{Event, ResultsAct, ResultsListing, StatedResults};
use tidegate_plan::Shown;

use super::words::{list, plural, results, size, when};
use crate::stored::{Stored, Told};

/// Names of lost results that are told one by one.
const NAMED: usize = 20;

/// Sums over the entries of a lease. A file that came home twice counts twice.
#[derive(Debug, Default, Serialize)]
pub(super) struct Homecoming {
    /// Where results may go and how many, as it was granted.
    pub(super) granted: Option<Told>,
    pub(super) stored_files: u64,
    pub(super) stored_bytes: u64,
    /// Of what lay at home, given to workers.
    pub(super) read_files: u64,
    pub(super) read_bytes: u64,
    pub(super) lost_files: u64,
    /// As far as their names were written down and not erased.
    pub(super) lost: Vec<String>,
}

/// Entries about results of one kind, one after the other, are one step.
#[derive(Debug)]
pub(super) struct Run {
    rank: u16,
    act: ResultsAct,
    files: u64,
    bytes: u64,
    entries: u64,
}

impl Homecoming {
    /// Notes an entry about results; what it makes of the step before it, or by itself.
    pub(super) fn take(
        &mut self,
        stored: &Stored,
        event: &Event,
        before: Option<&Run>,
    ) -> Option<Run> {
        let Event::Results { rank, act, files, bytes, listing, .. } = event else { return None };
        match act {
            ResultsAct::Stored => {
                self.stored_files = self.stored_files.saturating_add(*files);
                self.stored_bytes = self.stored_bytes.saturating_add(*bytes);
            }
            ResultsAct::Read => {
                self.read_files = self.read_files.saturating_add(*files);
                self.read_bytes = self.read_bytes.saturating_add(*bytes);
            }
            ResultsAct::Lost => {
                self.lost_files = self.lost_files.saturating_add(*files);
                if let Told::Text(text) = stored.document(listing)
                    && let Some(listing) = ResultsListing::parse(&text)
                {
                    self.lost.extend(listing.files.into_iter().map(|file| file.path));
                }
            }
            _ => {}
        }
        let same = before.filter(|before| (before.rank, before.act) == (*rank, *act));
        let (had, had_bytes, entries) =
            same.map_or((0, 0, 0), |run| (run.files, run.bytes, run.entries));
        Some(Run {
            rank: *rank,
            act: *act,
            files: had.saturating_add(*files),
            bytes: had_bytes.saturating_add(*bytes),
            entries: entries + 1,
        })
    }

    pub(super) fn is_told(&self) -> bool {
        self.granted.is_some() || [self.stored_files, self.read_files, self.lost_files] != [0; 3]
    }

    /// In words.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.granted.as_ref().map(granted));
        lines.push(match self.stored_files {
            0 => "Nothing came home.".into(),
            n => format!("{} with {} came home.", plural(n, "result"), size(self.stored_bytes)),
        });
        if self.read_files > 0 {
            lines.push(format!(
                "{} that lay there, {}, given back to the job to read.",
                plural(self.read_files, "result"),
                size(self.read_bytes)
            ));
        }
        match self.lost_files {
            0 => lines.push("The ledger knows of none that was lost.".into()),
            n => lines.push(format!(
                "{} LOST, written and not brought home{}.",
                plural(n, "result"),
                named(&self.lost, n)
            )),
        }
        lines
    }
}

impl Run {
    /// Goes on with the step before it.
    pub(super) fn goes_on(&self) -> bool {
        self.entries > 1
    }

    pub(super) fn sentence(&self, time: u64) -> String {
        let what = results(self.act, self.files, self.bytes);
        let span = match self.entries {
            1 => String::new(),
            n => format!(" ({n} entries, the last at {})", when(time)),
        };
        format!("Share {}: {what}{span}.", self.rank)
    }
}

/// What a worker says of the results, signed with its wipe.
pub(super) fn stated(rank: &str, results: &StatedResults) -> String {
    let lost = match results.lost_files {
        0 => "nothing was lost".to_owned(),
        n => format!("{} lost{}", plural(n, "file"), named(&results.lost, n)),
    };
    format!(
        "Share {rank}, of its results: {} with {} brought home; {lost}.",
        plural(results.stored_files, "file"),
        size(results.stored_bytes)
    )
}

/// The grant's document in words.
fn granted(told: &Told) -> String {
    let Told::Text(text) = told else { return format!("Where it could go: {told}.") };
    let Ok(said) = serde_json::from_str::<Value>(text) else {
        return format!("Where it could go: {text}.");
    };
    let mut words = format!("It could go to {}", said["home"].as_str().unwrap_or("(not recorded)"));
    if let (Some(bytes), Some(files)) = (said["bytes"].as_u64(), said["files"].as_u64()) {
        words += &format!(", at most {} in {}", size(bytes), plural(files, "file"));
    }
    if said["resume"] == Value::Bool(true) {
        words += "; what lay there was shown to the job";
    }
    if let Some(image) = said["image"].as_str() {
        words += &format!("; image {image}");
    }
    words + "."
}

fn named(names: &[String], all: u64) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown = names.iter().take(NAMED).map(|name| Shown(name.as_bytes()).to_string());
    let more = match all.saturating_sub(names.len().min(NAMED) as u64) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!(": {}{more}", list(shown))
}
