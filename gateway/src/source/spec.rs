//! What names a source: a directory, or a bucket with a prefix.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a store is reached. What a gateway's configuration leaves out comes from the standard AWS chain:
/// environment, profile files, web identity, container and instance credentials. A request for a lease
/// may leave all of it out, and names nothing that the configuration does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct S3Options {
    /// URL of the store, such as `https://rgw.example:8443`.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Profile in the credentials file; taken before credentials in the environment.
    pub profile: Option<String>,
    /// A credentials file in AWS's format; taken before credentials in the environment.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub credentials_file: Option<PathBuf>,
}

/// Where data lies at home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceSpec {
    Directory(PathBuf),
    S3 {
        bucket: String,
        /// Empty, or ends with `/`: a prefix is a directory, so `data` never takes in `database`. No name in it
        /// is empty, `.` or `..`, which some stores resolve as file systems do.
        prefix: String,
        #[serde(default)]
        options: S3Options,
    },
}

/// The text names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    #[error("no source given: name a directory or s3://bucket/prefix")]
    Empty,
    #[error("`{0}` has a scheme that is not known: name a directory or s3://bucket/prefix")]
    Scheme(String),
    #[error(
        "`{0}` is not a bucket name: 3 to 255 letters, digits, dots, dashes or underscores are expected"
    )]
    Bucket(String),
    #[error(
        "`{0}` has an empty name, `.` or `..` in its prefix, which some stores take for another place"
    )]
    Prefix(String),
}

const S3: &str = "s3://";

impl SourceSpec {
    /// Reads `s3://bucket/prefix` or the path of a directory. A directory whose name begins with
    /// a scheme is written with `./` before it.
    pub fn parse(text: &str, options: S3Options) -> Result<Self, SpecError> {
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        let Some(place) = text.strip_prefix(S3) else {
            return match text.split_once("://") {
                Some((scheme, _)) if is_scheme(scheme) => Err(SpecError::Scheme(text.to_owned())),
                _ => Ok(Self::Directory(PathBuf::from(text))),
            };
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if !is_bucket(bucket) {
            return Err(SpecError::Bucket(bucket.to_owned()));
        }
        if !is_plain_prefix(prefix) {
            return Err(SpecError::Prefix(text.to_owned()));
        }
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix, options })
    }
}

/// Whether a prefix, with or without the `/` at its end, is one place in every store.
pub(crate) fn is_plain_prefix(prefix: &str) -> bool {
    let names = prefix.strip_suffix('/').unwrap_or(prefix);
    prefix.is_empty() || names.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_bucket(text: &str) -> bool {
    (3..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b))
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::S3 { bucket, prefix, .. } => write!(f, "{S3}{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SourceSpec, SpecError> {
        SourceSpec::parse(text, S3Options::default())
    }

    #[test]
    fn directories_and_buckets_are_told_apart() {
        for (text, shown) in [
            ("/data/train", "/data/train"),
            ("data", "data"),
            ("./s3://x", "./s3://x"),
            ("odd name://x", "odd name://x"),
            ("s3://bucket", "s3://bucket/"),
            ("s3://bucket/", "s3://bucket/"),
            ("s3://bucket/a/b", "s3://bucket/a/b/"),
            ("s3://bucket/a b/ü/", "s3://bucket/a b/ü/"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for text in
            ["", "gs://bucket/a", "file:///data", "s3://", "s3://ab", "s3:///a", "s3://a b/c"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_one_place_in_every_store() {
        for text in ["s3://bucket/a/..b", "s3://bucket/.a/b./", "s3://bucket/...", "/a//b/../c"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in [
            "s3://bucket/..",
            "s3://bucket/a/../b",
            "s3://bucket/a/..",
            "s3://bucket/a/../",
            "s3://bucket/./a",
            "s3://bucket/a/.",
            "s3://bucket//",
            "s3://bucket//a",
            "s3://bucket/a//b",
            "s3://bucket/a//",
        ] {
            assert_eq!(parse(text), Err(SpecError::Prefix(text.to_owned())));
        }
    }

    #[test]
    fn what_is_shown_parses_to_the_same() {
        for text in ["/data", "s3://bucket/a/b", "s3://bucket"] {
            let spec = parse(text).unwrap();
            assert_eq!(parse(&spec.to_string()), Ok(spec));
        }
    }
}
