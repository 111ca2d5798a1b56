//! What a store's refusals mean for the one who asked.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::error::{ReadError, SourceError};

/// A bucket could not be opened or listed.
pub(crate) fn listing<E>(endpoint: &str, bucket: &str, error: SdkError<E>) -> SourceError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (endpoint, bucket) = (endpoint.to_owned(), bucket.to_owned());
    if of_credentials(&error) {
        return SourceError::NoCredentials { endpoint, source: error.into() };
    }
    let code = code(&error);
    match (&error, code.as_str(), status(&error)) {
        (SdkError::DispatchFailure(_) | SdkError::TimeoutError(_), ..) => {
            SourceError::Unreachable { endpoint, source: error.into() }
        }
        (_, "NoSuchBucket", _) => SourceError::NoSuchBucket { bucket, endpoint },
        (
            _,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed"
            | "XAdminUserNotFound",
            _,
        )
        | (_, _, Some(401)) => SourceError::CredentialsRefused { endpoint, code },
        (_, _, Some(403)) => SourceError::BucketDenied { bucket, code },
        _ => SourceError::Store { bucket, endpoint, source: error.into() },
    }
}

/// A range of one object could not be read.
pub(super) fn reading<E>(error: &SdkError<E>) -> ReadError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match (status(error), code(error).as_str()) {
        // Deleted, or a delete marker in its place. Other things that are not found, such as the
        // bucket or the user, say nothing about the object.
        (Some(404), "NoSuchKey" | "NoSuchVersion" | "NotFound" | NO_CODE)
        | (Some(405), "MethodNotAllowed")
        // Another ETag; shorter than the range.
        | (Some(412 | 416), _) => return ReadError::Changed,
        (Some(403), "AccessDenied" | "InvalidObjectState") => return ReadError::Denied,
        _ => {}
    }
    ReadError::Unavailable(DisplayErrorContext(error).to_string())
}

/// In place of a code when the store gives none.
pub(crate) const NO_CODE: &str = "no code";

pub(crate) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

pub(crate) fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> String {
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) => code.to_owned(),
        None => NO_CODE.to_owned(),
    }
}

fn of_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<CredentialsError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
