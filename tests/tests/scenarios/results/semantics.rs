//! The results' part of `docs/semantics.md`, line by line: the test of line Rn is called `rNN_…`. Those about
//! names and bytes share one mount a home, each in a directory of its own.

mod changing;
mod naming;
mod refusing;
mod roads;
mod writing;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use tidegate_tests::dataset;
use tidegate_tests::part;
use tidegate_tests::programs::MountProgram;
use tidegate_tests::results::{Desk, Home, Look};

/// One line of the page.
type Check = fn(&Shown) -> Result<()>;

/// A check under its own name.
macro_rules! checks {
    ($($module:ident::$check:ident),* $(,)?) => {
        [$((stringify!($check), $module::$check as Check)),*]
    };
}

fn lines() -> Vec<(&'static str, Check)> {
    checks![
        writing::r02_a_file_is_at_home_from_its_first_close,
        writing::r02_a_synced_file_is_at_home_as_it_is_then,
        writing::r29_what_is_half_written_comes_home_by_its_writers_closes_only,
        writing::r11_fsync_of_a_directory,
        writing::r12_appending,
        writing::r12_writing_anywhere,
        writing::r12_truncating,
        changing::r04_renaming_a_file,
        changing::r06_unlinking,
        changing::r07_directories,
        naming::r03_names,
        refusing::r02_exclusive_creation,
        writing::r13_a_shared_mapping,
        naming::r10_many_small_files,
        changing::r05_renaming_a_directory,
        refusing::r08_links_and_special_files,
        refusing::r09_owners_modes_and_times,
        refusing::r21_too_large,
        writing::r12_two_descriptors,
        roads::r14_direct_sendfile_splice_and_copy,
        roads::r15_space_ahead_and_holes,
        refusing::r16_no_extended_attributes,
        refusing::r16_locks,
        changing::r04_renames_that_cannot_be,
        writing::r12_a_file_of_several_parts,
        refusing::no_set_user_ids_and_no_devices,
    ]
    .into()
}

/// A mount whose results go to a home, and somebody who looks there.
pub(crate) struct Shown {
    mount: MountProgram,
    look: Look,
    desk: Desk,
}

/// A directory in the mount, and what it is called at home.
struct Room<'a> {
    at: PathBuf,
    inside: &'static str,
    look: &'a Look,
}

impl Shown {
    fn start(home: Home, lease: &[&str]) -> Result<Self> {
        let desk = Desk::start(home, "")?;
        let mount = desk.mount("one.join", lease, &[])?;
        Ok(Self { mount, look: desk.home.look()?, desk })
    }

    fn directory(&self) -> bool {
        self.desk.home.is_directory()
    }

    fn root(&self) -> &Path {
        self.mount.results()
    }

    fn room(&self, name: &'static str) -> Result<Room<'_>> {
        let at = self.root().join(name);
        fs::create_dir(&at).with_context(|| format!("mkdir {name}"))?;
        Ok(Room { at, inside: name, look: &self.look })
    }
}

impl Room<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// Bytes at home.
    fn home(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.look.read(&format!("{}/{name}", self.inside))
    }

    /// Fails unless the file has these bytes, at home and here.
    fn holds(&self, name: &str, want: &[u8]) -> Result<()> {
        let home = self.home(name)?.with_context(|| format!("{name} is not at home"))?;
        ensure!(home == want, "{name} at home: {}", differ(&home, want));
        let here = fs::read(self.path(name)).with_context(|| format!("read {name}"))?;
        ensure!(here == want, "{name} here: {}", differ(&here, want));
        Ok(())
    }

    /// Fails if there is such a file, at home or here.
    fn lacks(&self, name: &str) -> Result<()> {
        ensure!(self.home(name)?.is_none(), "{name} is at home");
        ensure!(!self.path(name).exists(), "{name} is here");
        Ok(())
    }

    fn open(&self, name: &str) -> Result<File> {
        let mut how = File::options();
        how.read(true).write(true).create(true).truncate(false);
        how.open(self.path(name)).with_context(|| format!("open {name}"))
    }
}

fn differ(got: &[u8], want: &[u8]) -> String {
    let at =
        got.iter().zip(want).position(|(a, b)| a != b).unwrap_or_else(|| got.len().min(want.len()));
    format!("{} bytes for {}, others from byte {at} on", got.len(), want.len())
}

/// The error of a call that should fail.
fn errno<T>(outcome: std::io::Result<T>) -> Option<Errno> {
    outcome.err().and_then(|error| Errno::from_io_error(&error))
}

/// Runs every line, and says of all that fail what was wrong.
pub(crate) fn every_line(home: Home) -> Result<()> {
    let shown = Shown::start(home, &[])?;
    r01_empty_at_first(&shown)?;
    let mut wrong = Vec::new();
    for (name, check) in lines() {
        match catch_unwind(AssertUnwindSafe(|| check(&shown))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{name}: {error:#}")),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                wrong.push(format!("{name} panicked: {said}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), shown.mount.log());
    let Shown { mount, look, desk } = shown;
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["results"]["lost"].as_array().map(Vec::len), Some(0), "{receipt:#}");
    look.wait_until_tidy(0)?;
    drop(desk);
    Ok(())
}

fn r01_empty_at_first(shown: &Shown) -> Result<()> {
    let there: Vec<_> = fs::read_dir(shown.root())?.flatten().map(|it| it.file_name()).collect();
    ensure!(there.is_empty(), "{there:?}");
    Ok(())
}

#[test]
fn every_line_on_a_directory() -> Result<()> {
    every_line(Home::directory()?)
}

#[test]
fn every_line_on_versitygw() -> Result<()> {
    every_line(Home::versitygw()?)
}

/// What an earlier attempt brought home is there with `--resume`, and not without.
#[test]
fn a_second_attempt_sees_the_first_one_s_files_if_it_resumes() -> Result<()> {
    for home in [Home::directory()?, Home::versitygw()?] {
        let desk = Desk::start(home, "")?;
        let large = dataset::bytes(1, (17 << 20) + 5);
        let first = desk.mount("first.join", &[], &[])?;
        fs::create_dir_all(first.results().join("epoch/größe"))?;
        fs::write(first.results().join("epoch/größe/small"), b"small")?;
        fs::write(first.results().join("large"), &large)?;
        first.finish()?;

        let without = desk.mount("without.join", &[], &[])?;
        assert_eq!(fs::read_dir(without.results())?.count(), 0, "empty unless it resumes");
        without.finish()?;

        let again = desk.mount("again.join", &["--resume"], &[])?;
        let at = again.results();
        assert!(fs::read(at.join("epoch/größe/small"))? == b"small");
        assert_eq!(fs::metadata(at.join("large"))?.len(), large.len() as u64);
        assert!(fs::read(at.join("large"))? == large);
        // It goes on where the first one was.
        let mut file = File::options().append(true).open(at.join("large"))?;
        std::io::Write::write_all(&mut file, b"and more")?;
        drop(file);
        fs::rename(at.join("epoch/größe/small"), at.join("renamed"))?;
        let want = [large.as_slice(), b"and more"].concat();
        let look = desk.home.look()?;
        assert!(look.read("large")?.as_deref() == Some(&want), "appended to what was there");
        assert!(fs::read(at.join("large"))? == want);
        assert_eq!(look.read("epoch/größe/small")?, None);
        assert_eq!(look.read("renamed")?.as_deref(), Some(&b"small"[..]));
        again.finish()?;
    }
    Ok(())
}

/// What was changed at home by somebody else is `ESTALE` alone; what is there as it was reads well.
#[test]
fn r17_a_version_that_is_gone_at_home_is_estale() -> Result<()> {
    for home in [Home::directory()?, Home::versitygw()?] {
        let desk = Desk::start(home, "")?;
        let first = desk.mount("first.join", &[], &[])?;
        for name in ["changed", "removed", "kept"] {
            fs::write(first.results().join(name), dataset::bytes(17, 300_000))?;
        }
        first.finish()?;
        let again = desk.mount("again.join", &["--resume"], &[])?;
        let look = desk.home.look()?;
        look.overwrite("changed", &dataset::bytes(18, 300_000))?;
        look.remove("removed")?;
        let stale = Some(Errno::STALE);
        assert_eq!(errno(fs::read(again.results().join("changed"))), stale);
        assert_eq!(errno(fs::read(again.results().join("removed"))), stale);
        ensure!(fs::read(again.results().join("kept"))? == dataset::bytes(17, 300_000), "kept");
        // Written anew it is the job's again.
        fs::write(again.results().join("changed"), b"anew")?;
        assert_eq!(look.read("changed")?.as_deref(), Some(&b"anew"[..]));
        again.finish()?;
    }
    Ok(())
}

/// Every numbered line has its test, and every numbered test its line.
#[test]
fn every_line_of_the_page_has_its_test() -> Result<()> {
    let page = fs::read_to_string(part::repository().join("docs/semantics.md"))?;
    let on_page: BTreeSet<u32> = page
        .lines()
        .filter_map(|line| line.strip_prefix("- **R")?.split_once("**")?.0.parse().ok())
        .collect();
    ensure!(on_page.len() > 20, "the page has its lines");
    let mut tests = BTreeSet::new();
    let mut open = vec![part::repository().join("tests/tests/scenarios/results")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            tests.extend(fs::read_to_string(&path)?.lines().filter_map(|line| -> Option<u32> {
                let line = line.trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
                line.strip_prefix("fn r")?.split_once('_')?.0.parse().ok()
            }));
        }
    }
    assert_eq!(on_page, tests, "lines of docs/semantics.md, and tests named after them");
    Ok(())
}
