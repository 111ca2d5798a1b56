//! Puts objects into a store, in plain blocking calls.

mod objects;

use std::future::Future;
use std::path::Path;

use anyhow::{Context as _, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials as AwsCredentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, DefaultRetention, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, ObjectLockConfiguration,
    ObjectLockEnabled, ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use tokio::runtime::Runtime;

use crate::scratch::Scratch;

pub use objects::Object;

/// What a store was told to accept. Not secrets: the stores live as long as one test.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    pub key: &'static str,
    pub secret: &'static str,
}

impl Credentials {
    pub const TEST: Self = Self { key: "testkey", secret: "testsecret" };
}

#[derive(Debug)]
pub struct S3 {
    endpoint: String,
    client: Client,
    runtime: Runtime,
    credentials: Credentials,
}

impl S3 {
    pub fn new(endpoint: &str, credentials: Credentials) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .credentials_provider(AwsCredentials::new(
                credentials.key,
                credentials.secret,
                None,
                None,
                "harness",
            ))
            .retry_config(RetryConfig::standard())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let client = Client::from_conf(config);
        Ok(Self { endpoint: endpoint.to_owned(), client, runtime, credentials })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Writes an AWS credentials file for this store.
    pub fn credentials_file(&self, scratch: &Scratch) -> Result<std::path::PathBuf> {
        let path = scratch.join("credentials");
        let Credentials { key, secret } = self.credentials;
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        std::fs::write(&path, text).context("cannot write the credentials file")?;
        Ok(path)
    }

    /// An entry of `sources.allow` for a place in this store.
    pub fn allowed(&self, source: &str, credentials: &Path) -> String {
        format!(
            "{{ source = \"{source}\", endpoint = \"{}\", region = \"us-east-1\", credentials_file = \"{}\" }}",
            self.endpoint,
            credentials.display()
        )
    }

    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.wait(self.client.create_bucket().bucket(bucket).send())
            .with_context(|| format!("cannot create bucket {bucket}"))?;
        Ok(())
    }

    pub fn enable_versions(&self, bucket: &str) -> Result<()> {
        let enabled =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let request =
            self.client.put_bucket_versioning().bucket(bucket).versioning_configuration(enabled);
        self.wait(request.send()).context("cannot enable versions")?;
        Ok(())
    }

    /// Has what lies under a prefix expire after a day.
    pub fn expire(&self, bucket: &str, prefix: &str) -> Result<()> {
        let rule = LifecycleRule::builder()
            .id("forget")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .expiration(LifecycleExpiration::builder().days(1).build())
            .build()?;
        let rules = BucketLifecycleConfiguration::builder().rules(rule).build()?;
        let request = self.client.put_bucket_lifecycle_configuration().bucket(bucket);
        self.wait(request.lifecycle_configuration(rules).send()).context("cannot set a rule")?;
        Ok(())
    }

    /// A bucket that keeps what is written for a day.
    pub fn create_keeping_bucket(&self, bucket: &str) -> Result<()> {
        let request = self.client.create_bucket().bucket(bucket);
        self.wait(request.object_lock_enabled_for_bucket(true).send())
            .with_context(|| format!("cannot create bucket {bucket}"))?;
        let keep = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(1);
        let rule = ObjectLockRule::builder().default_retention(keep.build()).build();
        let lock = ObjectLockConfiguration::builder()
            .object_lock_enabled(ObjectLockEnabled::Enabled)
            .rule(rule)
            .build();
        let request = self.client.put_object_lock_configuration().bucket(bucket);
        self.wait(request.object_lock_configuration(lock).send()).context("cannot lock it")?;
        Ok(())
    }

    pub fn put(&self, bucket: &str, key: &str, body: &[u8]) -> Result<()> {
        let body = ByteStream::from(body.to_vec());
        self.wait(self.client.put_object().bucket(bucket).key(key).body(body).send())
            .with_context(|| format!("cannot put {bucket}/{key}"))?;
        Ok(())
    }

    pub fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.wait(self.client.delete_object().bucket(bucket).key(key).send())
            .with_context(|| format!("cannot delete {bucket}/{key}"))?;
        Ok(())
    }

    /// Keys of a bucket, the first thousand.
    pub fn list(&self, bucket: &str) -> Result<Vec<String>> {
        let listed = self
            .wait(self.client.list_objects_v2().bucket(bucket).send())
            .with_context(|| format!("cannot list {bucket}"))?;
        Ok(listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect())
    }

    fn wait<T, E: std::error::Error + Send + Sync + 'static>(
        &self,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        Ok(self.runtime.block_on(request)?)
    }
}
