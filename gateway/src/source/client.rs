//! The S3 client: the standard AWS chain, with what was named explicitly before it.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::error::SourceError;
use super::spec::S3Options;

const CONNECT: Duration = Duration::from_secs(5);
/// Until the first byte of an answer: a store that lists a large level takes its time.
const ANSWER: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
/// Stores of one's own have no regions; requests are signed with some name all the same.
const ANY_REGION: &str = "us-east-1";
/// More certificates to trust, as in other AWS tools.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";
/// Endpoint of one service before that of all.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// How a store is reached: where, and as whom.
#[derive(Debug)]
pub(crate) struct S3Access {
    shared: SdkConfig,
    endpoint: Option<String>,
}

/// A client, and the words for where it leads.
pub(crate) async fn connect(options: &S3Options) -> Result<(Client, String), SourceError> {
    let access = S3Access::load(options).await?;
    let place = access
        .endpoint()
        .map_or_else(|| format!("Amazon S3 in {}", access.region()), str::to_owned);
    Ok((access.client(), place))
}

impl S3Access {
    /// The URL of the store; `None` is Amazon's own.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    pub(crate) fn region(&self) -> &str {
        self.shared.region().map_or(ANY_REGION, AsRef::as_ref)
    }

    pub(crate) fn credentials(&self) -> Option<SharedCredentialsProvider> {
        self.shared.credentials_provider()
    }

    pub(crate) fn client(&self) -> Client {
        let config = aws_sdk_s3::config::Builder::from(&self.shared)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .region(Region::new(self.region().to_owned()));
        Client::from_conf(config.build())
    }

    /// More certificates to trust, PEM.
    pub(crate) fn ca_bundle() -> Result<Option<Vec<u8>>, SourceError> {
        let Some(path) = std::env::var_os(CA_BUNDLE).map(PathBuf::from) else { return Ok(None) };
        std::fs::read(&path).map(Some).map_err(|source| SourceError::Io { path, source })
    }

    /// Reads the options, the environment and the profile files; asks nobody yet.
    pub(crate) async fn load(options: &S3Options) -> Result<Self, SourceError> {
        let shared = load(options).await?;
        let of_environment = || ENDPOINTS.iter().find_map(|name| std::env::var(name).ok());
        let endpoint = options
            .endpoint
            .clone()
            .or_else(of_environment)
            .or_else(|| shared.endpoint_url().map(str::to_owned));
        Ok(Self { shared, endpoint })
    }
}

async fn load(options: &S3Options) -> Result<SdkConfig, SourceError> {
    let http = http_client()?;
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(ANSWER).build(),
        )
        // A reader that is slow to take what was asked for is no fault of the store.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let explicit = options.profile.is_some() || options.credentials_file.is_some();
    if explicit {
        let mut files = EnvConfigFiles::builder().include_default_config_file(true);
        files = match &options.credentials_file {
            Some(path) => {
                let file = std::fs::File::open(path);
                file.map_err(|source| SourceError::Io { path: path.clone(), source })?;
                files.with_file(EnvConfigFileKind::Credentials, path)
            }
            None => files.include_default_credentials_file(true),
        };
        let files = files.build();
        let region = options.region.clone().unwrap_or_else(|| ANY_REGION.to_owned());
        let chain =
            ProviderConfig::default().with_http_client(http).with_region(Some(Region::new(region)));
        let mut provider = ProfileFileCredentialsProvider::builder()
            .configure(&chain)
            .profile_files(files.clone());
        loader = loader.profile_files(files);
        if let Some(profile) = &options.profile {
            provider = provider.profile_name(profile);
            loader = loader.profile_name(profile);
        }
        loader = loader.credentials_provider(provider.build());
    }
    Ok(loader.load().await)
}

fn http_client() -> Result<SharedHttpClient, SourceError> {
    let mut trust = TrustStore::default();
    if let Some(pem) = S3Access::ca_bundle()? {
        trust = trust.with_pem_certificate(pem);
    }
    let unusable = |source| SourceError::Unreachable {
        endpoint: "the store".to_owned(),
        source: Box::new(source),
    };
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(unusable)?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https())
}
