//! Where a gateway keeps its state: a directory of its own, or a bucket that replicas share.

mod rules;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, CredentialProvider, RetryConfig};
use serde::Deserialize;
use tidegate_kit::state::{StateError, StateStore};

use crate::source::{S3Access, S3Options, SourceError, SourceSpec};

/// Requests of state are small; one that takes longer is asked anew.
const ANSWER: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
const RETRIES: usize = 3;

/// A bucket for state. It must never have had versioning on, and belongs to this alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateBucket {
    /// `s3://bucket/prefix`.
    pub url: String,
    /// URL of the store, such as `https://rgw.example:8443`.
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub region: Option<String>,
    #[serde(default)]
    pub profile: Option<String>,
    /// A credentials file in AWS's format; otherwise the standard chain.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

/// The bucket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    #[error("{0}")]
    Url(String),
    #[error("the state's store cannot be used")]
    Access(#[from] SourceError),
    #[error("the state's store cannot be used")]
    Client(#[source] object_store::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

impl StateBucket {
    /// Bucket and prefix.
    pub(crate) fn place(&self) -> Result<(String, String), BucketError> {
        let options = S3Options::default();
        match SourceSpec::parse(&self.url, options) {
            Ok(SourceSpec::S3 { bucket, prefix, .. }) => Ok((bucket, prefix)),
            Ok(SourceSpec::Directory(_)) => {
                Err(BucketError::Url("must be s3://bucket/prefix".into()))
            }
            Err(why) => Err(BucketError::Url(why.to_string())),
        }
    }

    /// Connects, and tries whether the bucket is fit.
    pub(crate) async fn open(&self) -> Result<StateStore, BucketError> {
        let (bucket, prefix) = self.place()?;
        let access = S3Access::load(&S3Options {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            profile: self.profile.clone(),
            credentials_file: self.credentials_file.clone(),
        })
        .await?;
        let mut client = ClientOptions::new().with_timeout(ANSWER).with_connect_timeout(CONNECT);
        if let Some(pem) = S3Access::ca_bundle()? {
            for certificate in Certificate::from_pem_bundle(&pem).map_err(BucketError::Client)? {
                client = client.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: ANSWER,
            backoff: BackoffConfig::default(),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&bucket)
            .with_region(access.region())
            .with_virtual_hosted_style_request(false)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = access.endpoint() {
            let plain = endpoint.starts_with("http://");
            builder = builder.with_endpoint(endpoint).with_allow_http(plain);
        }
        if let Some(credentials) = access.credentials() {
            builder = builder.with_credentials(Arc::new(Chain(credentials)));
        }
        let store = builder.build().map_err(BucketError::Client)?;
        let name = format!("s3://{bucket}/{prefix}");
        // Before anything is written: what a rule keeps could not be taken away again.
        if let Some(why) = rules::objection(&access.client(), &bucket, &prefix).await {
            return Err(StateError::Unfit { place: name, why }.into());
        }
        Ok(StateStore::in_bucket(Arc::new(PrefixStore::new(store, prefix)), name).await?)
    }
}

/// The standard chain, as the state's client asks for credentials.
#[derive(Debug)]
struct Chain(SharedCredentialsProvider);

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.0.provide_credentials().await.map_err(|source| {
            object_store::Error::Generic { store: "S3", source: Box::new(source) }
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        }))
    }
}
