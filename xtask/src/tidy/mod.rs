//! Rules of the house that neither the compiler nor clippy holds. Each is a list of findings.

mod arrows;
mod modules;
mod purity;
mod text;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{output, root};

/// A text file of the repository, by its path from the root.
struct Source {
    path: String,
    text: String,
}

/// Prints every finding; an error if there is one.
pub(crate) fn check() -> Result<()> {
    let sources = sources()?;
    let mut findings = arrows::check()?;
    findings.extend(purity::check(&sources));
    findings.extend(text::check(&sources));
    findings.extend(modules::check(&sources));
    for warning in text::warnings(&sources) {
        eprintln!("tidy: warning: {warning}");
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} rules are broken", findings.len());
    }
    eprintln!("tidy: {} files hold the rules", sources.len());
    Ok(())
}

/// All text files that git knows or would take.
fn sources() -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = output(&mut git)?;
    let mut sources = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let file: PathBuf = root().join(path);
        if !file.is_file() {
            continue; // deleted, not yet committed
        }
        let bytes = fs::read(&file).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}

/// The lines that ship: those before the first `#[cfg(test)]` module.
fn production(source: &Source) -> &str {
    source.text.split_once("\n#[cfg(test)]\nmod ").map_or(source.text.as_str(), |(head, _)| head)
}

fn is_rust(source: &Source) -> bool {
    source.path.ends_with(".rs")
}
