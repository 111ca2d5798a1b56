//! `docs/semantics.md`, line by line: the test of line Sn is called `sNN_…`.

mod failing;
mod reading;
mod refusing;
mod tree;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use tidegate_tests::dataset;
use tidegate_tests::held::Held;
use tidegate_tests::part;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

/// Over the size up to which files are kept in the kernel's page cache.
const LARGE: usize = (9 << 20) + 4321;
const SMALL: usize = 50_000;

/// A tree that has what the lines speak of, staged and held.
struct Staged {
    home: Scratch,
    held: Held,
}

impl Staged {
    fn odd() -> Result<Self> {
        let home = Scratch::new()?;
        dataset::odd_tree(home.path())?;
        Self::of(home, &[])
    }

    /// One large file, one small.
    fn pair() -> Result<Self> {
        let home = Scratch::new()?;
        dataset::write(home.path(), "large", &dataset::bytes(1, LARGE))?;
        dataset::write(home.path(), "small", &dataset::bytes(2, SMALL))?;
        Self::of(home, &[])
    }

    fn of(home: Scratch, args: &[&str]) -> Result<Self> {
        let held = Held::start(Run::from_dir(home.path())?.args(args))?;
        Ok(Self { home, held })
    }

    fn data(&self, name: &str) -> std::path::PathBuf {
        self.held.data().join(name)
    }

    fn home(&self, name: &str) -> std::path::PathBuf {
        self.home.join(name)
    }
}

/// Every numbered line has its test, and every numbered test its line.
#[test]
fn every_line_of_the_page_has_its_test() -> Result<()> {
    let page = fs::read_to_string(part::repository().join("docs/semantics.md"))?;
    let lines: BTreeSet<u32> = page
        .lines()
        .filter_map(|line| line.strip_prefix("- **S")?.split_once("**")?.0.parse().ok())
        .collect();
    assert!(lines.len() > 20, "the page has its lines");
    let mut tests = BTreeSet::new();
    let mut open = vec![part::repository().join("tests/tests/scenarios")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            tests.extend(text.lines().filter_map(|line| -> Option<u32> {
                line.strip_prefix("fn s")?.split_once('_')?.0.parse().ok()
            }));
        }
    }
    assert_eq!(lines, tests, "lines of docs/semantics.md, and tests named after them");
    Ok(())
}
