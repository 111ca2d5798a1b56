//! From `--from`, `--select` and the rest to a source and a selection.

use anyhow::{Context as _, Result};
use tidegate_gateway::source::{S3Options, SourceSpec};
use tidegate_plan::SelectionSpec;

use crate::Usage;
use crate::args::{S3Args, SourceArgs};

pub(crate) fn source(args: &SourceArgs) -> Result<SourceSpec> {
    let from = args.from.as_ref().ok_or_else(|| Usage("name the data with --from".into()))?;
    place("--from", from, &args.s3)
}

/// A directory or a bucket with a prefix, as `flag` names it.
pub(crate) fn place(flag: &str, text: &str, args: &S3Args) -> Result<SourceSpec> {
    // A directory may be named relative to where the user stands; the gateway wants it whole.
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        let path = std::path::absolute(text).context("the working directory is gone")?;
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Usage(format!("{}: the path itself must be UTF-8", path.display())))?
    };
    SourceSpec::parse(&text, s3(args)).map_err(|error| Usage(format!("{flag}: {error}")).into())
}

pub(crate) fn s3(args: &S3Args) -> S3Options {
    S3Options {
        endpoint: args.s3_endpoint.clone(),
        region: args.s3_region.clone(),
        profile: args.s3_profile.clone(),
        credentials_file: args.s3_credentials.clone(),
    }
}

pub(crate) fn selection(args: &SourceArgs) -> Result<SelectionSpec> {
    let list = match &args.list {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Usage(format!("--list {}: {error}", file.display())))?;
            Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
        }
    };
    Ok(SelectionSpec { include: args.select.clone(), exclude: args.exclude.clone(), list })
}

/// (rank, ranks) of `--rank`; one share of everything when it was not given.
pub(crate) fn rank(args: &SourceArgs) -> (u16, u16) {
    args.rank.map_or((0, 1), |rank| (rank.rank, rank.ranks))
}
