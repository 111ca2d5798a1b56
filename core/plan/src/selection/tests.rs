use proptest::prelude::*;

use super::*;
use crate::testing::{dir, everything, file, link, listing, snapshot};

fn spec(include: &[&str], exclude: &[&str]) -> SelectionSpec {
    let texts = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
    SelectionSpec { include: texts(include), exclude: texts(exclude), list: None }
}

fn tree() -> Snapshot {
    let mut raw = file("x", 8);
    raw.path = RelPath::new(b"img/\xff.png".to_vec()).unwrap();
    snapshot(vec![
        file("top.bin", 1),
        file("a/one.bin", 2),
        file("a/b/two.bin", 4),
        file("a/b/two.txt", 16),
        link("a/b/link", "../one.bin"),
        dir("empty/inner"),
        raw,
    ])
}

fn chosen(snapshot: &Snapshot, indices: &[u32]) -> Vec<String> {
    indices.iter().map(|at| snapshot.get(*at).unwrap().path.to_string()).collect()
}

fn files(spec: &SelectionSpec) -> Vec<String> {
    let tree = tree();
    chosen(&tree, Selection::resolve(&tree, spec).unwrap().files())
}

#[test]
fn globs_match_the_whole_path() {
    assert_eq!(files(&spec(&["*.bin"], &[])), ["top.bin"]);
    assert_eq!(files(&spec(&["**/*.bin"], &[])), ["a/b/two.bin", "a/one.bin", "top.bin"]);
    assert_eq!(files(&spec(&["a/*"], &[])), ["a/one.bin"]);
    assert_eq!(files(&spec(&["a/**"], &["**/*.txt"])), ["a/b/link", "a/b/two.bin", "a/one.bin"]);
    assert_eq!(files(&spec(&["a/b/two.{txt,bin}"], &[])), ["a/b/two.bin", "a/b/two.txt"]);
    assert_eq!(files(&spec(&["img/?.png"], &[])), ["img/\\xff.png"]);
    assert_eq!(files(&spec(&[], &["a/**", "img/**"])), ["top.bin"]);
}

#[test]
fn directories_above_the_selected_are_shown_and_no_others() {
    let tree = tree();
    let dirs =
        |spec: &SelectionSpec| chosen(&tree, Selection::resolve(&tree, spec).unwrap().dirs());
    assert_eq!(dirs(&spec(&["a/b/*.txt"], &[])), ["a", "a/b"]);
    assert_eq!(dirs(&spec(&["top.bin"], &[])), [""; 0]);
    assert_eq!(dirs(&spec(&[], &[])), ["a", "a/b", "empty", "empty/inner", "img"]);
    assert_eq!(dirs(&spec(&[], &["empty/*"])), ["a", "a/b", "empty", "img"]);
    // An excluded directory stays visible where something below it is not excluded.
    assert_eq!(
        dirs(&spec(&[], &["empty", "a", "a/*", "img/**"])),
        ["a", "a/b", "empty", "empty/inner", "img"]
    );
}

#[test]
fn a_list_is_exact() {
    let mut spec = spec(&[], &[]);
    spec.list = Some(vec!["top.bin".into(), "a/one.bin".into(), "top.bin".into()]);
    assert_eq!(files(&spec), ["a/one.bin", "top.bin"]);
    spec.include.push("a/b/*.txt".into());
    assert_eq!(files(&spec), ["a/b/two.txt", "a/one.bin", "top.bin"]);
    spec.exclude.push("top*".into());
    assert_eq!(files(&spec), ["a/b/two.txt", "a/one.bin"]);
    for missing in ["a/three.bin", "a", "a/", "", "/top.bin", "a!", "zzz"] {
        spec.list = Some(vec!["a/one.bin".into(), missing.into(), "top.bin".into()]);
        let error = Selection::resolve(&tree(), &spec).unwrap_err();
        assert!(matches!(error, SelectionError::NotListed { path } if path == missing));
    }
}

#[test]
fn refusals() {
    let resolve = |spec: &SelectionSpec| Selection::resolve(&tree(), spec).unwrap_err();
    assert!(matches!(resolve(&spec(&["nothing/**"], &[])), SelectionError::Empty));
    assert!(matches!(resolve(&spec(&[], &["**"])), SelectionError::Empty));
    let error = resolve(&spec(&["ok", "a[", "ok"], &[]));
    assert!(matches!(error, SelectionError::BadGlob { glob, .. } if glob == "a["));
    let empty_list = SelectionSpec { list: Some(Vec::new()), ..SelectionSpec::default() };
    assert!(matches!(resolve(&empty_list), SelectionError::Empty));
}

#[test]
fn bytes_count_files_only() {
    let tree = tree();
    assert_eq!(everything(&tree).bytes(), 1 + 2 + 4 + 16 + 8);
    assert_eq!(everything(&tree).files().len(), 6);
}

#[test]
fn the_id_is_of_the_sets() {
    let id = |include: &[&str], exclude: &[&str]| spec(include, exclude).id();
    assert_eq!(id(&["a", "b"], &[]), id(&["b", "a", "b"], &[]));
    assert_ne!(id(&["a"], &[]), id(&[], &["a"]));
    assert_ne!(id(&["ab"], &[]), id(&["a", "b"], &[]));
    let listed =
        |list: Option<Vec<String>>| SelectionSpec { list, ..SelectionSpec::default() }.id();
    assert_ne!(listed(None), listed(Some(Vec::new())));
}

#[test]
fn a_spec_refuses_unknown_keys() {
    let parsed: SelectionSpec = serde_json::from_str(r#"{"include":["a"]}"#).unwrap();
    assert_eq!(parsed, spec(&["a"], &[]));
    assert!(serde_json::from_str::<SelectionSpec>(r#"{"includes":["a"]}"#).is_err());
}

proptest! {
    #[test]
    fn every_selected_file_has_its_directories(listed in listing(40), glob in "(\\*\\*/)?[a-c*]{1,2}(/\\*\\*)?") {
        let taken = snapshot(listed);
        if let Ok(selection) = Selection::resolve(&taken, &spec(&[&glob], &["**/b"])) {
            let dirs = chosen(&taken, selection.dirs());
            let mut needed: Vec<String> = Vec::new();
            for at in selection.files() {
                let mut path = taken.get(*at).unwrap().path;
                while let Some(above) = path.parent() {
                    needed.push(above.to_string());
                    path = above;
                }
            }
            needed.sort_unstable();
            needed.dedup();
            let mut dirs = dirs;
            dirs.sort_unstable();
            prop_assert_eq!(dirs, needed);
            prop_assert!(selection.files().is_sorted());
        }
    }
}
