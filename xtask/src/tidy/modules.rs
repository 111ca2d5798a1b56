//! No two modules of a crate import each other, at any level, over any number of steps.
//!
//! A scan of `crate::`, `super::` and `self::` paths, not a compiler: it also follows names that
//! `lib.rs` re-exports. A module and its own parent are one house and may know each other; modules
//! called `tests` or `testing` may know everybody.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, is_rust, production};

/// Segments below the crate's root: empty is `lib.rs` or `main.rs`.
type ModulePath = Vec<String>;
/// `from -> to` between siblings below a common parent.
type Edges = BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>>;

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<(ModulePath, &Source)>> = BTreeMap::new();
    for source in sources.iter().filter(|source| is_rust(source)) {
        if let Some((name, inner)) = source.path.split_once("/src/")
            && !inner.starts_with("bin/")
        {
            let path = module_path(inner);
            if !path.iter().any(|name| name == "tests" || name == "testing") {
                crates.entry(name).or_default().push((path, source));
            }
        }
    }
    crates.iter().flat_map(|(name, modules)| check_crate(name, modules)).collect()
}

fn module_path(inner: &str) -> ModulePath {
    let stem = inner.trim_end_matches(".rs");
    let mut path: ModulePath = stem.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        path.pop();
    }
    path
}

fn check_crate(name: &str, modules: &[(ModulePath, &Source)]) -> Vec<String> {
    let known: BTreeSet<&ModulePath> = modules.iter().map(|(path, _)| path).collect();
    let mut exports = BTreeMap::new();
    for (path, source) in modules.iter().filter(|(path, _)| path.is_empty()) {
        for target in imports(path, production(source)) {
            if let Some(exported) = target.last() {
                exports.insert(exported.clone(), target.clone());
            }
        }
    }
    let mut edges = Edges::new();
    for (from, source) in modules.iter().filter(|(path, _)| !path.is_empty()) {
        for import in imports(from, production(source)) {
            let import = match import.as_slice() {
                [only] if !known.contains(&import) => exports.get(only).unwrap_or(&import),
                _ => &import,
            };
            let to = (0..=import.len())
                .rev()
                .map(|n| &import[..n])
                .find(|p| known.contains(&p.to_vec()));
            if let Some(to) = to {
                add_edge(&mut edges, from, to);
            }
        }
    }
    let cycles = edges.iter().filter_map(|(parent, graph)| Some((parent, cycle(graph)?)));
    cycles
        .map(|(parent, cycle)| {
            let place = [&[name.to_owned()], parent.as_slice()].concat().join("::");
            format!("{place}: modules import each other: {}", cycle.join(" -> "))
        })
        .collect()
}

/// Edge between the first segments in which the two differ; none between a module and its parent.
fn add_edge(edges: &mut Edges, from: &[String], to: &[String]) {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
        let graph = edges.entry(from[..common].to_vec()).or_default();
        graph.entry(a.clone()).or_default().insert(b.clone());
    }
}

/// Every path that starts at `crate`, `super` or `self`, as absolute segments; braces are expanded.
fn imports(from: &[String], code: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    let code: String =
        code.lines().filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join(" ");
    for (start, base) in starts(from, &code) {
        expand(&code[start..], base, &mut found);
    }
    if from.is_empty() {
        // `pub use module::Name` in the root names its own children without `crate::`.
        for (at, _) in code.match_indices("pub use ") {
            expand(&code[at + "pub use ".len()..], Vec::new(), &mut found);
        }
    }
    found
}

/// Places just after `crate::`, `super::`…, each with the module that it stands for.
fn starts(from: &[String], code: &str) -> Vec<(usize, ModulePath)> {
    let word =
        |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let mut found = Vec::new();
    for (at, root) in code.match_indices("crate::").filter(|(at, _)| word(*at)) {
        found.push((at + root.len(), Vec::new()));
    }
    for (at, _) in code.match_indices("super::").filter(|(at, _)| word(*at)) {
        let mut end = at;
        let mut base = from.to_vec();
        while code[end..].starts_with("super::") {
            end += "super::".len();
            base.pop();
        }
        found.push((end, base));
    }
    found
}

/// Reads `a::{b, c::d}` from the start of `code`.
fn expand(code: &str, base: ModulePath, found: &mut Vec<ModulePath>) {
    let code = code.trim_start();
    if let Some(group) = code.strip_prefix('{') {
        for part in split_group(group) {
            expand(part, base.clone(), found);
        }
        return;
    }
    let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len());
    if end == 0 || &code[..end] == "self" {
        found.push(base);
        return;
    }
    let mut path = base;
    path.push(code[..end].to_owned());
    match code[end..].strip_prefix("::") {
        Some(rest) => expand(rest, path, found),
        None => found.push(path),
    }
}

/// The comma-separated parts of a brace group, up to its closing brace.
fn split_group(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Some cycle of the graph, first module repeated at the end.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        graph: &BTreeMap<String, BTreeSet<String>>,
        trail: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        let Some(here) = trail.last().cloned() else { return false };
        for next in graph.get(&here).into_iter().flatten() {
            if let Some(at) = trail.iter().position(|seen| seen == next) {
                trail.drain(..at);
                trail.push(next.clone());
                return true;
            }
            if done.contains(next) {
                continue;
            }
            trail.push(next.clone());
            if walk(graph, trail, done) {
                return true;
            }
            trail.pop();
        }
        done.insert(here);
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| {
        let mut trail = vec![start.clone()];
        walk(graph, &mut trail, &mut done).then_some(trail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("x/src/{path}"),
            text: (*text).into(),
        };
        check(&files.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn two_modules_that_import_each_other_are_found() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::{a::A, b};"),
        ];
        assert_eq!(findings(&files).len(), 1);
    }

    #[test]
    fn a_cycle_over_three_and_through_a_re_export_is_found() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;\npub use a::{A, Other};"),
            ("a.rs", "use super::b::B;"),
            ("b.rs", "use crate::c;"),
            ("c/mod.rs", "mod d;"),
            ("c/d.rs", "fn f() -> crate::Other {}"),
        ];
        assert_eq!(findings(&files).len(), 1);
    }

    #[test]
    fn what_only_tests_use_may_look_at_everything() {
        let files = [
            ("lib.rs", ""),
            ("a.rs", "use crate::testing::t;"),
            ("testing.rs", "use crate::a::A;"),
        ];
        assert!(findings(&files).is_empty());
    }

    #[test]
    fn a_line_of_modules_and_a_parent_with_its_children_are_fine() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::{B, Deep};"),
            ("b/mod.rs", "mod inner; use self::inner::I;"),
            ("b/inner.rs", "use super::B; // crate::a is only spoken of"),
        ];
        assert!(findings(&files).is_empty());
    }
}
