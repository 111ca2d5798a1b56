//! The account as a page of text.

use std::fmt::Write as _;

use serde_json::Value;

use super::account::Account;
use super::words::{blocks, list, plural, size};
use crate::stored::Told;

/// Columns of a page.
const WIDTH: usize = 100;

pub(super) fn of(account: &Account) -> String {
    let mut page = Page(String::new());
    let state = match account.state {
        "wiped" => "closed, wiped",
        "withdrawn" => "closed, withdrawn",
        _ => "open",
    };
    page.line(&format!("Lease {} ({state})", account.lease));
    page.line("");
    let told = |told: &Option<Told>| {
        told.as_ref().map_or_else(|| "(not recorded)".to_owned(), ToString::to_string)
    };
    page.row("Asked for by", &told(&account.asked_by));
    page.row("From", &told(&account.source));
    page.row("Which part", &which(account.selected.as_ref()));
    page.row(
        "How much",
        &format!(
            "{}, {}, in {} and {}",
            plural(account.files, "file"),
            size(account.bytes),
            plural(u64::from(account.blocks), "block"),
            plural(u64::from(account.ranks), "share")
        ),
    );
    page.row("Until", account.deadline.as_deref().unwrap_or("(not recorded)"));

    page.heading("What happened (times are UTC, numbers are the ledger's entries)");
    for step in &account.steps {
        let place = if account.several {
            format!("{}:{}", step.ledger, step.entry)
        } else {
            step.entry.to_string()
        };
        page.hang(&format!("  {}  {place:>5}  ", step.time), &step.what);
    }

    page.heading("What left the house");
    for line in left(account) {
        page.hang("  ", &line);
    }

    if account.home.is_told() {
        page.heading("What came home");
        for line in account.home.lines() {
            page.hang("  ", &line);
        }
    }

    page.heading("Is it gone?");
    let ending = &account.ending;
    for (title, lines) in [
        ("Seen by the gateway:", &ending.observed),
        ("Stated by the workers, not checked by anybody:", &ending.stated),
        ("Not confirmed:", &ending.unconfirmed),
    ] {
        page.line(&format!("  {title}"));
        if lines.is_empty() {
            page.line("  - nothing");
        }
        for line in lines {
            page.hang("  - ", line);
        }
    }
    page.0
}

fn left(account: &Account) -> Vec<String> {
    let left = &account.left;
    if left.releases == 0 {
        return vec!["No key was released, so nothing that left can be read.".to_owned()];
    }
    let mut lines = vec![format!(
        "Keys that open at most {} were released, {}{}.",
        size(left.at_most_bytes),
        plural(u64::from(left.releases), "time"),
        left.last_release.as_ref().map_or_else(String::new, |at| format!(", the last at {at}"))
    )];
    for (rank, ranges) in &left.released {
        lines.push(format!("Share {rank}: {} of {}.", blocks(ranges), account.blocks));
    }
    lines.push(match (left.sent_bytes, account.state) {
        (Some(bytes), _) => format!("{} crossed the line, sealed.", size(bytes)),
        (None, "open") => "How much crossed the line is recorded when the lease is closed.".into(),
        (None, _) => "How much crossed the line was not counted by one gateway alone.".into(),
    });
    lines
}

/// The selection's document in words.
pub(super) fn which(selected: Option<&Told>) -> String {
    let text = match selected {
        None => return "(not recorded)".into(),
        Some(Told::Text(text)) => text,
        Some(other) => return other.to_string(),
    };
    let Ok(said) = serde_json::from_str::<Value>(text) else { return text.clone() };
    let words = |key: &str| {
        let items = said[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        list(items.map(str::to_owned))
    };
    let mut parts = Vec::new();
    if let Some(name) = said["dataset"].as_str().filter(|name| !name.is_empty()) {
        parts.push(format!("dataset `{name}`"));
    }
    match (words("include"), said["listed"].as_u64()) {
        (include, _) if !include.is_empty() => parts.push(format!("what matches {include}")),
        (_, Some(listed)) => parts.push(plural(listed, "listed path")),
        _ => parts.push("all of it".into()),
    }
    let exclude = words("exclude");
    if !exclude.is_empty() {
        parts.push(format!("without {exclude}"));
    }
    let ranks: Vec<_> =
        said["ranks"].as_array().into_iter().flatten().map(Value::to_string).collect();
    if !ranks.is_empty() {
        parts.push(format!("share {}", ranks.join(", ")));
    }
    parts.join("; ")
}

struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn row(&mut self, name: &str, text: &str) {
        self.hang(&format!("  {name:<14}"), text);
    }

    fn heading(&mut self, text: &str) {
        self.line("");
        self.line(text);
        self.line("");
    }

    /// Text behind `lead`, broken between words, further lines under its beginning.
    fn hang(&mut self, lead: &str, text: &str) {
        let indent = lead.chars().count();
        let mut line = lead.to_owned();
        let mut empty = true;
        for word in text.split_whitespace() {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = " ".repeat(indent);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(line.trim_end());
    }
}
