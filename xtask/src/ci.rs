//! The one command that CI runs, and what it says at its end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{parts, shell, tidy};

/// What a step found: how many tests passed and failed, and how many were left out by name.
#[derive(Clone, Copy, Default)]
struct Tests {
    passed: usize,
    failed: usize,
    left_out: usize,
}

#[derive(Default)]
struct Report {
    /// Name, seconds, tests, and what was wrong.
    steps: Vec<(&'static str, u64, Tests, Option<String>)>,
    /// What was left out, and why.
    not_run: Vec<String>,
}

/// Runs every step, the later ones too when an earlier one failed, and sums up.
pub(crate) fn run() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "run as root: scenarios make mounts, loop devices and namespaces of their own"
    );
    let started = Instant::now();
    let mut report = Report::default();
    report.step("parts", || parts::all().map(|()| Tests::default()));
    report.step("format", || plain(shell::cargo().args(["fmt", "--all", "--check"])));
    report.step("tidy", || tidy::check().map(|()| Tests::default()));
    report.step("clippy", || {
        plain(
            shell::cargo()
                .args(["clippy", "--release", "--workspace", "--all-targets", "--all-features"])
                .arg("--locked")
                .args(["--", "-D", "warnings"]),
        )
    });
    report.step("cargo-deny", || deny(&["bans", "licenses", "sources"]));
    if let Err(error) = deny(&["advisories"]) {
        report.not_run.push(format!("the advisory database was not consulted ({error:#})"));
    }
    let mut built = Vec::new();
    report.step("build", || {
        built = build()?;
        Ok(Tests::default())
    });
    let of = |kind: Kind| built.iter().filter(move |binary| binary.kind == kind);
    report.step("unit tests", || sum(of(Kind::Unit).map(|binary| tests(&mut binary.command()))));
    report.step("fuzz smoke", || sum(of(Kind::Fuzz).map(|binary| tests(&mut binary.command()))));
    report.step("scenarios", || {
        let ran =
            sum(of(Kind::Scenario).map(|binary| tests(binary.alone().args(["--skip", FULL]))))?;
        ensure!(ran.left_out > 0, "the full tier ran with it, whose parts are not here");
        Ok(ran)
    });
    report.not_run.push(
        "the full tier, `cargo xtask full`: MinIO, results at full length, a soak of 20 minutes (its sample was)".into(),
    );
    report.finish(started)
}

/// Runs what is too heavy for every run.
pub(crate) fn full() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "run as root, as the everyday tier");
    let started = Instant::now();
    let mut report = Report::default();
    report.step("parts", || parts::all().and_then(|()| parts::full()).map(|()| Tests::default()));
    let mut built = Vec::new();
    report.step("build", || {
        built = build()?;
        Ok(Tests::default())
    });
    let of = |words: &'static [&'static str]| {
        sum(built.iter().filter(|binary| binary.kind == Kind::Scenario).map(|binary| {
            let mut command = binary.alone();
            tests(command.args(words).env("TIDEGATE_SOAK_SECONDS", SOAK_S))
        }))
    };
    report.step("scenarios of the full tier", || of(&[FULL]));
    report.step("soak of 20 minutes", || of(&["soak::", "--nocapture"]));
    report.not_run.push("the everyday tier, `cargo xtask ci`".into());
    report.finish(started)
}

/// Scenarios of the full tier.
const FULL: &str = "full::";
const SOAK_S: &str = "1200";

/// Where a test binary belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unit,
    Fuzz,
    Scenario,
}

/// One test binary that Cargo built.
struct TestBinary {
    kind: Kind,
    executable: PathBuf,
    package: PathBuf,
}

/// Builds everything in one go, so that every crate is compiled with one set of features, and
/// returns the test binaries.
fn build() -> Result<Vec<TestBinary>> {
    let listing = shell::output(
        shell::cargo()
            .args(["build", "--release", "--workspace", "--all-targets", "--locked"])
            .arg("--message-format=json-render-diagnostics"),
    )?;
    let mut binaries = Vec::new();
    for line in listing.lines() {
        let message: Value = serde_json::from_str(line).context("Cargo's message")?;
        if message["profile"]["test"] != true {
            continue;
        }
        let (Some(executable), Some(manifest)) =
            (message["executable"].as_str(), message["manifest_path"].as_str())
        else {
            continue;
        };
        let package = Path::new(manifest).parent().context("a manifest has a folder")?;
        let kind = match package.strip_prefix(shell::root()).ok().and_then(Path::to_str) {
            Some("tests") => Kind::Scenario,
            Some("fuzz") => Kind::Fuzz,
            _ => Kind::Unit,
        };
        binaries.push(TestBinary {
            kind,
            executable: executable.into(),
            package: package.to_owned(),
        });
    }
    ensure!(!binaries.is_empty(), "Cargo built no test");
    binaries.sort_by(|a, b| (&a.package, &a.executable).cmp(&(&b.package, &b.executable)));
    Ok(binaries)
}

impl TestBinary {
    /// As `cargo test` would start it.
    fn command(&self) -> Command {
        self.environment(Command::new(&self.executable))
    }

    /// In mount and process namespaces of its own: whatever a test that failed leaves mounted or
    /// running is gone with them. Within, mounts are shared, as on a host: who makes a namespace of
    /// their own lets go of the others' mounts when these are taken away.
    fn alone(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
            .args([
                "--mount-proc",
                "--",
                "sh",
                "-euc",
                "mount --make-rshared /; exec \"$0\" \"$@\"",
            ])
            .arg(&self.executable);
        self.environment(command)
    }

    fn environment(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package)
            .env("TIDEGATE_PARTS", shell::parts_dir());
        command
    }
}

fn sum(parts: impl Iterator<Item = Result<Tests>>) -> Result<Tests> {
    let mut sum = Tests::default();
    for part in parts {
        let part = part?;
        sum.passed += part.passed;
        sum.failed += part.failed;
        sum.left_out += part.left_out;
    }
    ensure!(sum.passed + sum.failed > 0, "no test ran");
    Ok(sum)
}

impl Report {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<Tests>) {
        eprintln!("==> {name}");
        let started = Instant::now();
        let outcome = work();
        let seconds = started.elapsed().as_secs();
        let (tests, fault) = match outcome {
            Ok(tests) if tests.failed == 0 => (tests, None),
            Ok(tests) => (tests, Some(format!("{} tests failed", tests.failed))),
            Err(error) => (Tests::default(), Some(format!("{error:#}"))),
        };
        if let Some(fault) = &fault {
            eprintln!("==> {name} FAILED: {fault}");
        }
        self.steps.push((name, seconds, tests, fault));
    }

    /// The last lines: every step, the number of tests, and what did not run.
    fn finish(&self, started: Instant) -> Result<()> {
        eprintln!("\n==> summary, {} s in all", started.elapsed().as_secs());
        for (name, seconds, tests, fault) in &self.steps {
            let counted = if tests.passed + tests.failed > 0 {
                format!(", {} tests passed", tests.passed)
            } else {
                String::new()
            };
            let verdict = fault.as_deref().unwrap_or("ok");
            eprintln!("    {name}: {verdict} ({seconds} s{counted})");
        }
        let passed: usize = self.steps.iter().map(|(_, _, tests, _)| tests.passed).sum();
        eprintln!("tests passed: {passed}");
        for left_out in &self.not_run {
            eprintln!("not run: {left_out}");
        }
        let failed: Vec<_> = self
            .steps
            .iter()
            .filter(|(_, _, _, fault)| fault.is_some())
            .map(|(name, ..)| *name)
            .collect();
        if !failed.is_empty() {
            bail!("CI failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

fn plain(command: &mut Command) -> Result<Tests> {
    shell::run(command).map(|()| Tests::default())
}

fn deny(checks: &[&str]) -> Result<Tests> {
    let mut command = Command::new(parts::cargo_deny());
    command
        .args(["--all-features", "check", "--hide-inclusion-graph"])
        .args(checks)
        .current_dir(shell::root());
    plain(&mut command)
}

/// Runs a test binary, passing its output on and adding up its `test result` lines.
fn tests(command: &mut Command) -> Result<Tests> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start a test binary")?;
    let stdout = child.stdout.take().context("a test binary has no standard output")?;
    let mut sum = Tests::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        if let Some(tests) = parse_result(&line) {
            sum.passed += tests.passed;
            sum.failed += tests.failed;
            sum.left_out += tests.left_out;
        }
    }
    let status = child.wait()?;
    ensure!(status.success() || sum.failed > 0, "a test binary ended with {status} before it ran");
    Ok(sum)
}

/// `test result: ok. 12 passed; 0 failed; …`
fn parse_result(line: &str) -> Option<Tests> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut numbers = counts.split("; ").map(|part| part.split(' ').next()?.parse().ok());
    let (passed, failed) = (numbers.next()??, numbers.next()??);
    // Ignored and measured ones come between.
    Some(Tests { passed, failed, left_out: numbers.nth(2)?? })
}

#[cfg(test)]
mod tests {
    use super::parse_result;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1s";
        let tests = parse_result(line).unwrap();
        assert_eq!((tests.passed, tests.failed, tests.left_out), (12, 3, 2));
        assert!(parse_result("test a::b ... ok").is_none());
    }
}
