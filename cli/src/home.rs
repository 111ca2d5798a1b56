//! Where results go: from `--results` and the rest to what is asked of a gateway.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tidegate_gateway::ResultsRequest;
use tidegate_gateway::source::SourceSpec;

use crate::args::{ResultsArgs, S3Args};
use crate::{Usage, source};

/// The home that was asked for, if any. A directory is whole, and not looked at.
fn home(args: &ResultsArgs, s3: &S3Args) -> Result<Option<SourceSpec>> {
    let Some(text) = &args.results else { return Ok(None) };
    source::place("--results", text, s3).map(Some)
}

/// What is asked of an embedded gateway. A directory is made where only its last part is missing, and is
/// named by its real path, as the gateway compares it.
pub(crate) fn request(
    args: &ResultsArgs,
    s3: &S3Args,
    data: &SourceSpec,
) -> Result<Option<ResultsRequest>> {
    let Some(home) = home(args, s3)? else { return Ok(None) };
    let home = match home {
        SourceSpec::Directory(path) => {
            // Nothing is made where it may not be.
            apart(&SourceSpec::Directory(real(&path)), data)?;
            SourceSpec::Directory(make(&path)?)
        }
        bucket @ SourceSpec::S3 { .. } => bucket,
    };
    apart(&home, data)?;
    Ok(Some(ResultsRequest {
        home,
        resume: args.resume,
        bytes: args.results_bytes.map(|size| size.0),
        files: args.results_files,
        image: args.image.clone(),
    }))
}

/// What is asked of a gateway elsewhere, which knows its own directories: fields of its request for a lease.
pub(crate) fn fields(args: &ResultsArgs, s3: &S3Args) -> Result<Map<String, Value>> {
    let Some(home) = home(args, s3)? else { return Ok(Map::new()) };
    let fields = [
        ("results", json!(home.to_string())),
        ("resume", json!(args.resume)),
        ("results_bytes", json!(args.results_bytes.map(|size| size.0))),
        ("results_files", json!(args.results_files)),
        ("image", json!(args.image)),
    ];
    Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The directory's real path; made if its parent is there. Whoever grants the lease flushes its name.
fn make(path: &Path) -> Result<PathBuf> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let made = Usage(format!("--results: cannot make {}: {error}", path.display()));
            return Err(made.into());
        }
        Ok(()) | Err(_) => {}
    }
    let real = fs::canonicalize(path)
        .with_context(|| format!("--results: cannot open {}", path.display()))?;
    if !real.is_dir() {
        return Err(Usage(format!("--results: {} is not a directory", path.display())).into());
    }
    Ok(real)
}

/// The real path of a directory that may not be there yet.
fn real(path: &Path) -> PathBuf {
    let whole = fs::canonicalize(path).ok();
    let above = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    whole.or_else(above).unwrap_or_else(|| path.to_owned())
}

fn apart(home: &SourceSpec, data: &SourceSpec) -> Result<()> {
    if overlap(home, data) {
        let why = format!("--results {home}: lies in --from {data}, or the other way round");
        return Err(Usage(why).into());
    }
    Ok(())
}

/// Whether one lies in the other.
fn overlap(home: &SourceSpec, data: &SourceSpec) -> bool {
    match (home, data) {
        (SourceSpec::Directory(home), SourceSpec::Directory(data)) => {
            let data = fs::canonicalize(data).unwrap_or_else(|_| data.clone());
            home.starts_with(&data) || data.starts_with(home)
        }
        (
            SourceSpec::S3 { bucket, prefix, .. },
            SourceSpec::S3 { bucket: other, prefix: of, .. },
        ) => bucket == other && (prefix.starts_with(of.as_str()) || of.starts_with(prefix)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn args(results: &str) -> (ResultsArgs, S3Args) {
        let line = ["tidegate", "run", "--from", "/data", "--results", results, "--", "true"];
        let cli = crate::args::Cli::parse_from(line);
        match cli.command {
            crate::args::Command::Run(args) => (args.results, args.source.s3),
            other => panic!("{other:?}"),
        }
    }

    fn ask(results: &str, data: &str) -> Result<Option<ResultsRequest>> {
        let (args, s3) = args(results);
        request(&args, &s3, &SourceSpec::parse(data, source::s3(&s3)).unwrap())
    }

    #[test]
    fn a_home_is_made_only_below_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("out");
        let asked = ask(home.to_str().unwrap(), "/data").unwrap().unwrap();
        assert_eq!(asked.home, SourceSpec::Directory(home.canonicalize().unwrap()));
        assert!(ask(home.to_str().unwrap(), "/data").is_ok(), "it may be there already");
        let deeper = dir.path().join("a/b");
        assert!(ask(deeper.to_str().unwrap(), "/data").is_err());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(ask(file.to_str().unwrap(), "/data").is_err());
    }

    #[test]
    fn data_and_results_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("data")).unwrap();
        std::os::unix::fs::symlink(path("data"), path("link")).unwrap();
        assert!(ask(&path("data"), &path("data")).is_err());
        assert!(ask(&path("data/out"), &path("data")).is_err());
        assert!(ask(&path("data/out"), &path("link")).is_err(), "through a link");
        assert!(ask(&path(""), &path("data")).is_err(), "the other way round");
        assert!(ask(&path("data2"), &path("data")).is_ok(), "a name alone does not count");
        assert!(ask("s3://bucket/out", "s3://bucket/data").is_ok());
        assert!(ask("s3://bucket/data/out", "s3://bucket/data").is_err());
        assert!(ask("s3://bucket", "s3://bucket/data").is_err());
        assert!(ask("s3://bucket/data2", "s3://bucket/data").is_ok());
        assert!(ask("s3://other/data", "s3://bucket/data").is_ok());
    }
}
