//! What a writing job said it did (`write_results.py`): before each step what it wants, after it that it
//! was acknowledged. From that follows what may be at home, and what must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::home::Look;

/// SHA-256 of a whole content, or that there is no such file.
type State = Option<String>;

/// The job's log, read to its end.
#[derive(Debug, Default)]
pub struct Log {
    /// What each name may stand for at home now.
    may: BTreeMap<String, BTreeSet<State>>,
    /// Every content that was ever to be complete.
    pub ever: BTreeSet<String>,
    /// Steps that were acknowledged, and those that failed with their errno.
    pub done: usize,
    pub failed: Vec<(String, i64)>,
}

/// How a home compares.
#[derive(Debug)]
pub struct Verdict {
    pub files: usize,
    pub bytes: u64,
}

impl Log {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).context("the job wrote no log")?;
        let mut log = Self::default();
        let mut before = None;
        for line in text.lines() {
            let step: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            log.follow(&step, &mut before)?;
        }
        Ok(log)
    }

    /// `before` is what was known when the step began; one step is under way at a time.
    fn follow(
        &mut self,
        step: &Value,
        before: &mut Option<BTreeMap<String, BTreeSet<State>>>,
    ) -> Result<()> {
        let word =
            |name: &str| step[name].as_str().map(str::to_owned).with_context(|| name.to_owned());
        let (phase, act, path) = (word("phase")?, word("do")?, word("path")?);
        if phase == "fail" {
            if let Some(left) = step["left"].as_str() {
                self.ever.insert(left.to_owned());
                self.may.entry(path.clone()).or_default().insert(Some(left.to_owned()));
            }
            self.failed.push((path, step["errno"].as_i64().unwrap_or(0)));
            return Ok(());
        }
        let begins = phase == "begin";
        if begins {
            *before = Some(self.may.clone());
        } else {
            self.done += 1;
        }
        let known = before.as_ref().context("an end without a beginning")?;
        let was = |path: &str| known.get(path).cloned().unwrap_or_else(nothing);
        let mut becomes: Vec<(String, BTreeSet<State>)> = Vec::new();
        match act.as_str() {
            "put" => {
                let sha = word("sha")?;
                self.ever.insert(sha.clone());
                becomes.push((path, BTreeSet::from([Some(sha)])));
            }
            "rename" => {
                becomes.push((word("to")?, was(&path)));
                becomes.push((path, nothing()));
            }
            "unlink" => becomes.push((path, nothing())),
            other => anyhow::bail!("no such step: {other}"),
        }
        for (path, mut states) in becomes {
            if begins {
                states.extend(was(&path));
            }
            self.may.insert(path, states);
        }
        Ok(())
    }

    /// Every name is at home as it was last acknowledged, or as a later step that failed would have it;
    /// and nothing else is there. `story` says more of a name that is not.
    pub fn judge(&self, look: &Look, story: impl Fn(&str) -> String) -> Result<Verdict> {
        let found = look.list()?;
        for path in found.keys() {
            ensure!(self.may.contains_key(path), "nobody wrote {path}, which is at home");
        }
        let mut wrong = Vec::new();
        for (path, states) in &self.may {
            let is = look.sha256(path)?;
            if !states.contains(&is) {
                let story = story(path);
                wrong.push(format!("{path} is {is:?}, and may be {states:?}\n{story}"));
            }
        }
        ensure!(wrong.is_empty(), "not as acknowledged: {}", wrong.join("\n"));
        Ok(Verdict { files: found.len(), bytes: found.values().map(|seen| seen.len).sum() })
    }
}

fn nothing() -> BTreeSet<State> {
    BTreeSet::from([None])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> Log {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines.join("\n")).unwrap();
        Log::read(file.path()).unwrap()
    }

    fn may(log: &Log, path: &str) -> Vec<State> {
        log.may[path].iter().cloned().collect()
    }

    const PUT: &str = r#"{"phase":"begin","do":"put","path":"a","sha":"1"}"#;
    const PUT_DONE: &str = r#"{"phase":"done","do":"put","path":"a","sha":"1"}"#;
    const AGAIN: &str = r#"{"phase":"begin","do":"put","path":"a","sha":"2"}"#;
    const AGAIN_FAILS: &str = r#"{"phase":"fail","do":"put","path":"a","sha":"2","errno":5}"#;
    const MOVE: &str = r#"{"phase":"begin","do":"rename","path":"a","to":"b"}"#;
    const MOVE_DONE: &str = r#"{"phase":"done","do":"rename","path":"a","to":"b"}"#;

    #[test]
    fn what_was_acknowledged_must_be_and_what_was_begun_may_be() {
        let one = || Some("1".to_owned());
        assert_eq!(may(&log(&[PUT]), "a"), [None, one()]);
        assert_eq!(may(&log(&[PUT, PUT_DONE]), "a"), [one()]);
        let failed = log(&[PUT, PUT_DONE, AGAIN, AGAIN_FAILS]);
        assert_eq!(may(&failed, "a"), [one(), Some("2".to_owned())]);
        assert_eq!(failed.failed, [("a".to_owned(), 5)]);
        assert_eq!(may(&log(&[PUT, PUT_DONE, MOVE]), "a"), [None, one()]);
        assert_eq!(may(&log(&[PUT, PUT_DONE, MOVE]), "b"), [None, one()]);
        let moved = log(&[PUT, PUT_DONE, MOVE, MOVE_DONE]);
        assert_eq!((may(&moved, "a"), may(&moved, "b")), (vec![None], vec![one()]));
    }
}
