//! What pure crates may not name, and the AEAD that only `seal` may name.

use super::{Source, is_rust, production};

const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::os::unix::net",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant",
    "tokio::",
];

/// Folders where the AEAD of ring may be named: the one user, its measure, and its second opinion.
const AEAD_USERS: [&str; 3] = ["core/seal/", "bench/", "tests/"];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_rust(source)) {
        let code = production(source);
        if source.path.starts_with("core/") && source.path.contains("/src/") {
            for word in IMPURE.iter().filter(|word| names(code, word)) {
                findings.push(format!("{}: a pure crate may not name {word}", source.path));
            }
        }
        let may_seal = AEAD_USERS.iter().any(|folder| source.path.starts_with(folder));
        if !may_seal && names(code, concat!("ring::", "aead")) {
            findings.push(format!("{}: only core/seal may use an AEAD", source.path));
        }
    }
    findings
}

/// Whether a line of code, not of comment, holds the word.
fn names(code: &str, word: &str) -> bool {
    code.lines().any(|line| line.split("//").next().is_some_and(|code| has_word(code, word)))
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside(before) && (word.ends_with(':') || !inside(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_file_in_core_is_found_and_a_comment_is_not() {
        let bad = source("core/plan/src/a.rs", "use std::fs::File;\n");
        let good = source("core/plan/src/a.rs", "// std::fs is for others\nstruct Instantly;\n");
        assert_eq!(check(&[bad]).len(), 1);
        assert!(check(&[good]).is_empty());
    }

    #[test]
    fn sealing_elsewhere_is_found() {
        let text = concat!("use ring::", "aead::LessSafeKey;\n");
        assert_eq!(check(&[source("kit/src/tls.rs", text)]).len(), 1);
        assert!(check(&[source("core/seal/src/block.rs", text)]).is_empty());
    }
}
