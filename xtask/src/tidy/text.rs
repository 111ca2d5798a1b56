//! Rules over text: how long a file may be, what may not be left in it, and paths of one machine.

use super::{Source, is_rust, production};

/// Lines of production code: refused above the first, named above the second.
const REFUSED_ABOVE: usize = 500;
const NAMED_ABOVE: usize = 400;

/// Written in halves, so that this file does not find itself.
const MARKERS: [&str; 8] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[ig", "nore"),
    concat!("#![al", "low("),
    concat!("HA", "CK:"),
];

/// Folders that exist on a builder's machine and nowhere else.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let ours = [".rs", ".toml", ".md", ".yaml", ".yml", ".json", ".py", ".sh", "run"];
        if !ours.iter().any(|end| source.path.ends_with(end)) {
            continue;
        }
        for (number, line) in (1..).zip(source.text.lines()) {
            for word in MACHINE_PATHS.iter().filter(|word| line.contains(*word)) {
                findings
                    .push(format!("{}:{number}: names {word}, a path of one machine", source.path));
            }
            if is_rust(source) {
                for marker in MARKERS.iter().filter(|marker| line.contains(*marker)) {
                    findings
                        .push(format!("{}:{number}: {marker} is not left in code", source.path));
                }
            }
        }
        if length(source) > REFUSED_ABOVE {
            findings.push(format!("{}: {} lines; split it", source.path, length(source)));
        }
    }
    findings
}

pub(super) fn warnings(sources: &[Source]) -> Vec<String> {
    let long = |source: &&Source| (NAMED_ABOVE + 1..=REFUSED_ABOVE).contains(&length(source));
    sources
        .iter()
        .filter(long)
        .map(|source| format!("{}: {} lines", source.path, length(source)))
        .collect()
}

/// Lines of production code; nothing for what is not Rust.
fn length(source: &Source) -> usize {
    if is_rust(source) { production(source).lines().count() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&[Source { path: path.into(), text: text.into() }]).len()
    }

    #[test]
    fn markers_and_machine_paths_are_found() {
        assert_eq!(findings("a/src/a.rs", concat!("// TO", "DO later\n")), 1);
        assert_eq!(findings("a.md", concat!("see /wo", "rk/x\n")), 1);
        assert_eq!(findings("a.md", "see docs/x\n"), 0);
    }

    #[test]
    fn tests_at_the_end_of_a_file_do_not_count() {
        let code = "fn a() {}\n".repeat(300);
        let tests = "fn t() {}\n".repeat(300);
        assert_eq!(
            findings("a/src/a.rs", &format!("{code}\n#[cfg(test)]\nmod tests {{\n{tests}}}\n")),
            0
        );
        assert_eq!(findings("a/src/a.rs", &format!("{code}{tests}")), 1);
    }
}
