//! The results' part of `docs/semantics.md`, line by line: the check of line Rn is called `rNN_…`. All of
//! them share one mount a home, each in a directory of its own.

mod changing;
mod naming;
mod refusing;
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
        writing::r02_a_closed_file_is_at_home,
        writing::r03_a_synced_file_is_at_home_as_it_is_then,
        writing::r04_appending,
        writing::r05_writing_anywhere,
        writing::r06_truncating,
        changing::r07_renaming_a_file,
        changing::r08_unlinking,
        changing::r09_directories,
        naming::r10_names,
        refusing::r11_exclusive_creation,
        writing::r12_a_shared_mapping,
        naming::r13_many_small_files,
        changing::r14_renaming_a_directory,
        refusing::r15_links_and_special_files,
        refusing::r16_owners_modes_and_times,
        refusing::r17_too_large,
        writing::r18_two_descriptors,
        refusing::r19_no_extended_attributes,
        refusing::r20_locks,
        changing::r21_renames_that_cannot_be,
        writing::r22_a_file_of_several_parts,
        refusing::r23_set_user_ids_and_devices,
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
    let left = look.unfinished()?;
    ensure!(left.is_empty(), "not whole and still there: {left:?}");
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

/// Every numbered line has its check, and every numbered check its line.
#[test]
fn every_line_of_the_page_has_its_check() -> Result<()> {
    let page = fs::read_to_string(part::repository().join("docs/semantics.md"))?;
    let on_page: BTreeSet<String> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("- **R")?.split_once("**")?.0.to_owned()))
        .collect();
    let checked = lines().into_iter().map(|(name, _)| name).chain(["r01_empty_at_first"]);
    let checked: BTreeSet<String> = checked
        .map(|name| name[1..].split('_').next().unwrap_or_default().trim_start_matches('0').into())
        .collect();
    assert_eq!(on_page, checked, "lines of docs/semantics.md, and checks named after them");
    Ok(())
}
