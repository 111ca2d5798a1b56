//! P8: a ledger that was rewritten, cut or forked does not verify; a copy verifies offline.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tidegate_tests::dataset;
use tidegate_tests::process::check;
use tidegate_tests::programs::succeed;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, tidegate};

/// Two runs into one ledger; the ledger's state folder and the receipt of each.
struct Ledger {
    scratch: Scratch,
    receipts: Vec<PathBuf>,
    leases: Vec<String>,
}

impl Ledger {
    fn new() -> Result<Self> {
        let (home, scratch) = (Scratch::new()?, Scratch::new()?);
        dataset::write(home.path(), "secret-name", &dataset::bytes(5, 10_000))?;
        let (mut receipts, mut leases) = (Vec::new(), Vec::new());
        for n in 0..2 {
            let run = Run::from_dir(home.path())?.arg("--ledger").arg(scratch.join("state"));
            // The last of two equal options would be refused: replace the default one.
            let outcome = run
                .keep_last("--ledger")
                .shell("cat \"$TIDEGATE_DATA/secret-name\" > /dev/null")
                .succeed()?;
            let receipt = scratch.join(&format!("receipt-{n}.json"));
            leases.push(outcome.receipt()?["lease"].as_str().context("no lease")?.to_owned());
            fs::copy(outcome.scratch.join("receipt.json"), &receipt)?;
            receipts.push(receipt);
        }
        Ok(Self { scratch, receipts, leases })
    }

    fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// A copy of what a verifier needs: the log and its key. No gateway runs, nothing else is there.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let to = self.scratch.dir(name)?;
        for part in ["ledger", "ledger.pub"] {
            let from = self.state().join(part);
            if from.exists() {
                check(std::process::Command::new("cp").arg("-a").arg(from).arg(&to))?;
            }
        }
        Ok(to)
    }

    fn verify(&self, copy: &Path) -> Result<(Option<i32>, Value)> {
        let mut words: Vec<std::ffi::OsString> =
            ["--json", "audit", "verify", "--ledger"].map(Into::into).into();
        words.push(copy.into());
        for receipt in &self.receipts {
            words.extend(["--checkpoint".into(), receipt.into()]);
        }
        let output = tidegate(words)?;
        let verdict = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.code(), verdict))
    }

    fn batches(copy: &Path) -> Result<Vec<PathBuf>> {
        let mut files: Vec<_> = fs::read_dir(copy.join("ledger/batches"))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
            })
            .collect();
        files.sort();
        Ok(files)
    }
}

#[test]
fn an_untouched_copy_verifies_and_tells_its_story() -> Result<()> {
    let ledger = Ledger::new()?;
    let copy = ledger.copy("copy")?;
    let (code, verdict) = ledger.verify(&copy)?;
    assert_eq!(code, Some(0), "{verdict}");
    assert_eq!(verdict["agreed"], 2, "both receipts' checkpoints agree: {verdict}");

    let list = succeed(tidegate([
        "audit".as_ref(),
        "list".as_ref(),
        "--ledger".as_ref(),
        copy.as_os_str(),
    ])?)?;
    for word in ["opened", "snapshot", "granted", "attached", "released", "wipe", "closed as wiped"]
    {
        assert!(list.contains(word), "{word} is not in the list:\n{list}");
    }
    let all = fs::read_dir(copy.join("ledger/batches"))?.flatten().map(|e| fs::read(e.path()));
    for batch in all {
        let text = String::from_utf8_lossy(&batch?).into_owned();
        assert!(!text.contains("secret-name"), "a name stands in the log itself");
    }
    let show = ["audit", "show", "--ledger"].map(std::ffi::OsString::from);
    let words =
        show.into_iter().chain([copy.clone().into_os_string(), ledger.leases[0].clone().into()]);
    let story = succeed(tidegate(words)?)?;
    assert!(story.contains("Asked for by") && story.contains("uid 0"), "{story}");

    let tiles = ledger.scratch.join("tiles");
    let words = [
        "audit".as_ref(),
        "export".as_ref(),
        "--ledger".as_ref(),
        copy.as_os_str(),
        "--to".as_ref(),
        tiles.as_os_str(),
    ];
    succeed(tidegate(words)?)?;
    assert!(
        tiles.join("checkpoint").is_file()
            && tiles.join("tile/0").is_dir()
            && tiles.join("tile/entries").is_dir()
    );
    Ok(())
}

/// What each tampering does to the copy's batches, in order of name.
type Tamper = fn(&[PathBuf]) -> Result<()>;

#[test]
fn every_tampering_is_found_and_placed() -> Result<()> {
    let ledger = Ledger::new()?;
    let table: [(&str, Tamper); 7] = [
        ("a changed byte", |batches| {
            let file = &batches[batches.len() / 2];
            let mut bytes = fs::read(file)?;
            let at = bytes.windows(6).position(|part| part == b"\\\"time").context("no time")? + 12;
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            Ok(fs::write(file, bytes)?)
        }),
        ("a dropped entry", |batches| Ok(fs::remove_file(&batches[1])?)),
        ("two swapped entries", |batches| {
            let (one, two) = (fs::read(&batches[1])?, fs::read(&batches[2])?);
            fs::write(&batches[1], two)?;
            Ok(fs::write(&batches[2], one)?)
        }),
        ("a cut tail", |batches| Ok(fs::remove_file(&batches[batches.len() - 1])?)),
        ("a cut half", |batches| {
            for batch in &batches[batches.len() / 2..] {
                fs::remove_file(batch)?;
            }
            Ok(())
        }),
        ("a truncated batch", |batches| {
            let file = &batches[2];
            let bytes = fs::read(file)?;
            Ok(fs::write(file, &bytes[..bytes.len() / 2])?)
        }),
        ("a batch twice", |batches| {
            let last = &batches[batches.len() - 1];
            Ok(fs::copy(last, last.with_file_name("00000000000000009999")).map(drop)?)
        }),
    ];
    for (n, (name, tamper)) in table.iter().enumerate() {
        let copy = ledger.copy(&format!("tampered-{n}"))?;
        tamper(&Ledger::batches(&copy)?)?;
        let (code, verdict) = ledger.verify(&copy)?;
        assert_eq!(code, Some(1), "{name}: {verdict}");
        assert_eq!(verdict["holds"], false, "{name}: {verdict}");
        assert!(verdict["first_bad"].is_u64(), "{name}: the first bad entry is named: {verdict}");
    }
    Ok(())
}

/// What the operator's guide says of erasure: afterwards no name is left, the log verifies, and the
/// gateway goes on.
#[test]
fn an_erasure_leaves_no_name_and_the_log_still_verifies() -> Result<()> {
    let ledger = Ledger::new()?;
    let (state, home) = (ledger.state(), Scratch::new()?);
    let named = |word: &str| {
        let mut grep = std::process::Command::new("grep");
        anyhow::Ok(grep.args(["-rqaF", word]).arg(&state).status()?.success())
    };
    let (name, subject) = ("secret-name", "uid 0 on ");
    assert!(named(name)? && named(subject)?, "the search finds what is there");
    let lease = |lease: &String| state.join("leases").join(lease);
    let details = [state.join("ledger/documents"), state.join("snapshots")];
    for detail in details.iter().cloned().chain(ledger.leases.iter().map(lease)) {
        fs::remove_dir_all(&detail).with_context(|| detail.display().to_string())?;
    }
    assert!(!named(name)? && !named(subject)?, "a name is left");
    let (code, verdict) = ledger.verify(&state)?;
    assert_eq!(code, Some(0), "{verdict}");

    dataset::write(home.path(), "another", b"content")?;
    let next = Run::from_dir(home.path())?.arg("--ledger").arg(&state).keep_last("--ledger");
    next.job(["true"]).succeed()?;
    let words = ["audit", "show", &ledger.leases[0], "--ledger"].map(std::ffi::OsString::from);
    let story = succeed(tidegate(words.into_iter().chain([state.into_os_string()]))?)?;
    assert!(story.contains("Asked for by  (erased)"), "{story}");
    Ok(())
}

/// A certificate is no part of the log; the digest in its entry holds it fast.
#[test]
fn an_edited_certificate_is_found_and_an_erased_one_is_said_to_be() -> Result<()> {
    let ledger = Ledger::new()?;
    let copy = ledger.copy("copy")?;
    let certificates = copy.join("ledger/certificates");
    let mut files = fs::read_dir(&certificates)?.flatten().map(|entry| entry.path());
    let (edited, erased) = (files.next().context("none")?, files.next().context("only one")?);
    let verify = || ledger.verify(&copy);
    assert_eq!(verify()?.1["certificates"]["held"], 2);

    fs::remove_file(&erased)?;
    let (code, verdict) = verify()?;
    assert_eq!(code, Some(0), "{verdict}");
    assert_eq!(verdict["certificates"], serde_json::json!({ "held": 1, "erased": 1 }));

    let text = fs::read_to_string(&edited)?;
    let bytes = serde_json::from_str::<Value>(&text)?["observed"]["released_bytes"].to_string();
    let field = |bytes: &str| format!("\"released_bytes\":{bytes}");
    assert!(text.contains(&field(&bytes)), "{text}");
    fs::write(&edited, text.replace(&field(&bytes), &field("1")))?;
    let (code, verdict) = verify()?;
    assert_eq!(code, Some(1), "{verdict}");
    let digest = edited.file_name().context("no name")?.to_string_lossy().into_owned();
    assert!(verdict["faults"].to_string().contains(&digest), "it is named: {verdict}");
    assert!(verdict["first_bad"].is_u64(), "{verdict}");

    let show = |lease: &str| {
        let words = ["audit", "show", lease, "--ledger"].map(std::ffi::OsString::from);
        succeed(tidegate(words.into_iter().chain([copy.clone().into_os_string()]))?)
    };
    let stories = [show(&ledger.leases[0])?, show(&ledger.leases[1])?].concat();
    let stories = stories.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(stories.contains("of share 0 cannot be read: (erased)"), "{stories}");
    assert!(
        stories.contains("of share 0 cannot be read: (not what was committed to)"),
        "{stories}"
    );
    assert!(!stories.contains("at most 1 byte"), "a forgery is not shown: {stories}");
    Ok(())
}

/// A fork: the same key signs another continuation. Only a checkpoint that left shows it.
#[test]
fn a_fork_is_found_by_a_checkpoint_that_left() -> Result<()> {
    let ledger = Ledger::new()?;
    let home = Scratch::new()?;
    dataset::write(home.path(), "file", b"x")?;
    let fork = ledger.scratch.join("fork");
    check(std::process::Command::new("cp").arg("-a").arg(ledger.state()).arg(&fork))?;
    // Set the fork back to before the second run, with every trace of it gone, and go on from there.
    let batches = Ledger::batches(&fork)?;
    let receipt: Value = serde_json::from_slice(&fs::read(&ledger.receipts[0])?)?;
    let size: u64 = receipt["checkpoint"]
        .as_str()
        .and_then(|note| note.lines().nth(1))
        .context("no size")?
        .parse()?;
    for batch in batches {
        let first: u64 = batch.file_name().context("no name")?.to_string_lossy().parse()?;
        if first >= size {
            fs::remove_file(batch)?;
        }
    }
    for trace in [fork.join("checkpoint"), fork.join("leases").join(&ledger.leases[1])] {
        let _ = fs::remove_file(&trace);
        let _ = fs::remove_dir_all(&trace);
    }
    let run = Run::from_dir(home.path())?.arg("--ledger").arg(&fork).keep_last("--ledger");
    run.job(["true"]).succeed()?;
    let (code, verdict) = ledger.verify(&fork)?;
    assert_eq!(code, Some(1), "{verdict}");
    assert!(verdict["faults"].to_string().contains("another"), "{verdict}");
    Ok(())
}
