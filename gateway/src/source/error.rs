//! What can go wrong at a source, sorted by who can mend it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

type Cause = Box<dyn Error + Send + Sync>;

/// A source cannot be opened or listed. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    #[error("there is no {}: check the spelling, or mount it first", .path.display())]
    NoSuchPath { path: PathBuf },
    #[error("{} is not a directory: name the directory that holds the data", .path.display())]
    NotADirectory { path: PathBuf },
    #[error("no permission to read {}: run as a user who may, or have read access granted", .path.display())]
    PathDenied { path: PathBuf },
    #[error("the kernel or a sandbox refuses the openat2 call: Linux 5.6 or newer is needed")]
    NoOpenat2,
    #[error("cannot read {}", .path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("there is no bucket `{bucket}` at {endpoint}: check its name and the endpoint")]
    NoSuchBucket { bucket: String, endpoint: String },
    #[error("nothing lies under `{prefix}` in bucket `{bucket}`: check the prefix")]
    NoSuchPrefix { bucket: String, prefix: String },
    #[error(
        "no credentials for {endpoint}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile or a credentials file"
    )]
    NoCredentials { endpoint: String, source: Cause },
    #[error(
        "the credentials for {endpoint} are not accepted ({code}): check key, secret and clock"
    )]
    CredentialsRefused { endpoint: String, code: String },
    #[error(
        "the credentials may not list bucket `{bucket}` ({code}): have s3:ListBucket and s3:GetObject granted"
    )]
    BucketDenied { bucket: String, code: String },
    #[error("{endpoint} cannot be reached: check the endpoint, its certificate and the network")]
    Unreachable { endpoint: String, source: Cause },
    #[error("{endpoint} cannot list bucket `{bucket}`")]
    Store { bucket: String, endpoint: String, source: Cause },
    #[error("{endpoint} lists bucket `{bucket}` in a way that cannot be used: {why}")]
    Listing { bucket: String, endpoint: String, why: &'static str },
}

/// One object cannot be read as it was when the snapshot was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Gone, replaced or edited since the snapshot; it stays so.
    #[error("changed at home since the snapshot")]
    Changed,
    /// Read access was taken away.
    #[error("the source no longer lets it be read")]
    Denied,
    /// The source did not answer; it may later.
    #[error("the source cannot be read now: {0}")]
    Unavailable(String),
}
