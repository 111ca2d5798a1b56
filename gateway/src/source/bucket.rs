//! A bucket with a prefix as a source.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::BucketVersioningStatus;
use bytes::Bytes;
use tidegate_plan::{Entry, Version};
use tokio::time::timeout;

use super::client::connect;
use super::error::{ReadError, SourceError};
use super::found::Found;
use super::keys::{Versions, bare, place};
use super::listing::{self, Refused};
use super::partition::list;
use super::refusal;
use super::spec::S3Options;

/// A body that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// How often the rest of a range is asked for again after its body broke off.
const RESUMES: u32 = 3;

#[derive(Debug)]
pub(crate) struct Bucket {
    client: Client,
    name: String,
    prefix: String,
    endpoint: String,
}

impl Bucket {
    /// Finds out whether the bucket can be listed and holds anything under the prefix.
    pub(super) async fn open(
        name: &str,
        prefix: &str,
        options: &S3Options,
    ) -> Result<Self, SourceError> {
        let (client, endpoint) = connect(options).await?;
        let first = client.list_objects_v2().bucket(name).prefix(prefix).max_keys(1).send().await;
        let first = first.map_err(|error| refusal::listing(&endpoint, name, error))?;
        if !prefix.is_empty() && first.contents().is_empty() {
            return Err(SourceError::NoSuchPrefix {
                bucket: name.to_owned(),
                prefix: prefix.to_owned(),
            });
        }
        Ok(Self { client, name: name.to_owned(), prefix: prefix.to_owned(), endpoint })
    }

    /// Lists everything under the prefix, with version ids where the bucket keeps versions.
    pub(super) async fn list(&self) -> Result<Found, SourceError> {
        let (client, name) = (self.client.clone(), self.name.clone());
        let fetch = move |ask| listing::objects(client.clone(), name.clone(), ask);
        let listed = list(&self.prefix, fetch).await.map_err(|refused| match refused {
            Refused::Store(error) => refusal::listing(&self.endpoint, &self.name, *error),
            Refused::Nonsense(why) => SourceError::Listing {
                bucket: self.name.clone(),
                endpoint: self.endpoint.clone(),
                why,
            },
        })?;
        let versions = self.versions().await;
        Ok(place(&self.prefix, listed, &versions))
    }

    /// Version ids are a plus: an object pinned by one can be read after it was replaced. Where
    /// they cannot be had, its ETag pins it alone.
    async fn versions(&self) -> Versions {
        let asked = self.client.get_bucket_versioning().bucket(&self.name).send().await;
        let versioned = matches!(
            asked.as_ref().map(|answer| answer.status()),
            Ok(Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended))
        );
        if !versioned {
            return Versions::new();
        }
        let (client, name) = (self.client.clone(), self.name.clone());
        let fetch = move |ask| listing::versions(client.clone(), name.clone(), ask);
        match list(&self.prefix, fetch).await {
            Ok(all) => all.into_iter().map(|v| (v.key, (v.version_id, v.etag))).collect(),
            Err(refused) => {
                tracing::warn!(
                    bucket = self.name,
                    ?refused,
                    "versions cannot be listed; objects are pinned by their ETags alone"
                );
                Versions::new()
            }
        }
    }

    /// Asks for `len` bytes of an object from `offset` on; returns when the store has begun to
    /// answer.
    pub(crate) async fn read(
        self: &Arc<Self>,
        entry: &Entry,
        offset: u64,
        len: u64,
    ) -> Result<RangeReader, ReadError> {
        let Version::Object { etag, version_id } = &entry.version else {
            return Err(ReadError::Changed);
        };
        let path = std::str::from_utf8(entry.path.as_bytes()).map_err(|_| ReadError::Changed)?;
        let mut reader = RangeReader {
            bucket: Arc::clone(self),
            key: format!("{}{path}", self.prefix),
            etag: etag.clone(),
            version_id: version_id.clone(),
            size: entry.size,
            next: offset,
            end: offset + len,
            resumes: RESUMES,
            body: ByteStream::default(),
        };
        if len > 0 {
            reader.ask().await?;
        }
        Ok(reader)
    }
}

/// A range of one pinned object, in order.
#[derive(Debug)]
pub(crate) struct RangeReader {
    bucket: Arc<Bucket>,
    key: String,
    etag: String,
    version_id: Option<String>,
    size: u64,
    next: u64,
    end: u64,
    resumes: u32,
    body: ByteStream,
}

impl RangeReader {
    /// Asks for what is left, of the pinned version and no other.
    async fn ask(&mut self) -> Result<(), ReadError> {
        let (first, last) = (self.next, self.end - 1);
        let answer = self
            .bucket
            .client
            .get_object()
            .bucket(&self.bucket.name)
            .key(&self.key)
            .set_version_id(self.version_id.clone())
            .if_match(format!("\"{}\"", self.etag))
            .range(format!("bytes={first}-{last}"))
            .send()
            .await
            .map_err(|error| refusal::reading(&error))?;
        // Not every store heeds the condition, so what it says it sends is compared too.
        let same = answer.e_tag().is_some_and(|etag| bare(etag) == self.etag);
        if !same {
            return Err(ReadError::Changed);
        }
        let range = format!("bytes {first}-{last}/{}", self.size);
        match answer.content_range() {
            Some(sent) if sent == range => {}
            Some(_) => return Err(ReadError::Changed),
            None if (first, self.end) == (0, self.size) => {}
            None => {
                return Err(ReadError::Unavailable("the store ignores ranges".to_owned()));
            }
        }
        self.body = answer.body;
        Ok(())
    }

    /// The next bytes; `None` after the last. A body that breaks off is taken up where it ended.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        while self.next < self.end {
            let broken = match timeout(SILENCE, self.body.next()).await {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => continue,
                Ok(Some(Ok(bytes))) => {
                    self.next += bytes.len() as u64;
                    if self.next > self.end {
                        let why = "the store sent more than was asked for";
                        return Err(ReadError::Unavailable(why.to_owned()));
                    }
                    return Ok(Some(bytes));
                }
                Ok(Some(Err(error))) => error.to_string(),
                Ok(None) => "the store's answer ended early".to_owned(),
                Err(_) => "the store fell silent".to_owned(),
            };
            self.resumes = self.resumes.checked_sub(1).ok_or(ReadError::Unavailable(broken))?;
            self.ask().await?;
        }
        Ok(None)
    }
}
