//! What goes into requests to a store, and what its refusals mean.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Config};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::super::error::HomeError;
use crate::source::{NO_CODE, code, status};

/// Until a store has put the parts of an object together, or copied one: some copy every byte.
const PATIENCE: Duration = Duration::from_secs(900);

/// Requests that were not understood and will be: what went wrong lies on the way, in a clock, in credentials or
/// in settings that somebody can mend.
const PASSING: [&str; 13] = [
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "RequestExpired",
    "OperationAborted",
    "SlowDown",
    "ThrottlingException",
    NO_CODE,
];

/// For requests that a store answers when it has moved many bytes.
pub(super) fn patient() -> Builder {
    Config::builder().timeout_config(TimeoutConfig::builder().read_timeout(PATIENCE).build())
}

/// For a `PUT` without a body: Ceph RGW wants to be told its length of a part that is copied.
pub(super) fn without_body(request: &mut HttpRequest) {
    request.headers_mut().insert("content-length", "0");
}

pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// A range as its header wants it; it has a byte at least.
pub(super) fn range_of(offset: u64, len: u32) -> Result<String, HomeError> {
    let last = offset.checked_add(u64::from(len).max(1) - 1);
    let last = last.ok_or(HomeError::Unfit("the range is not in the file"))?;
    Ok(format!("bytes={offset}-{last}"))
}

/// Bucket and key as `x-amz-copy-source` wants them: each byte that a URL's path does not take as it is, by
/// its number.
pub(super) fn source_of(bucket: &str, key: &str) -> String {
    let mut text = format!("{bucket}/");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// What a refusal means for whoever brings a file.
pub(super) fn failed<E>(error: SdkError<E>) -> HomeError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match (status(&error), code(&error).as_str()) {
        // The answer to a HEAD has no body, and so no code.
        (Some(404), "NoSuchKey" | "NoSuchUpload" | "NotFound" | NO_CODE) => {
            return HomeError::Absent;
        }
        (Some(412), _) => return HomeError::Changed,
        (Some(416), _) => return HomeError::Unfit("the range is not in the file"),
        (Some(507), _)
        | (
            _,
            "QuotaExceeded"
            | "QuotaExceededException"
            | "XMinioStorageFull"
            | "EntityTooLarge"
            | "XMinioAdminBucketQuotaExceeded"
            | "InsufficientStorage"
            | "StorageFull",
        ) => return HomeError::Full,
        (_, "NoSuchUpload") => return HomeError::Absent,
        (_, "InvalidPart" | "InvalidPartOrder") => return HomeError::Torn,
        (_, "KeyTooLongError" | "XMinioInvalidObjectName") => {
            return HomeError::Unfit("the store does not take such a key");
        }
        (
            _,
            "XMinioParentIsObject"
            | "XMinioObjectExistsAsDirectory"
            | "ObjectParentIsFile"
            | "ExistingObjectIsDirectory",
        ) => return HomeError::Occupied,
        (Some(400), code) if !PASSING.contains(&code) => {
            tracing::warn!(code, "a store does not take what it was asked");
            return HomeError::Unfit("the store does not take it");
        }
        _ => {}
    }
    HomeError::Unavailable(DisplayErrorContext(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_with_its_last_byte() {
        assert_eq!(range_of(0, 1).unwrap(), "bytes=0-0");
        assert_eq!(range_of(16, 16).unwrap(), "bytes=16-31");
        assert_eq!(range_of(u64::MAX, 1).unwrap(), format!("bytes={0}-{0}", u64::MAX));
        assert!(matches!(range_of(u64::MAX, 2), Err(HomeError::Unfit(_))));
    }

    #[test]
    fn a_source_of_a_copy_is_a_path_of_a_url() {
        assert_eq!(source_of("b", "p/a b+c%ü~"), "b/p/a%20b%2Bc%25%C3%BC~");
    }
}
