//! A rename in a store that has none: a copy there, then a delete.

use std::collections::HashMap;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, MetadataDirective, Tagging, TaggingDirective,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tidegate_plan::LeaseId;

use super::super::error::HomeError;
use super::super::file::Kept;
use super::call::{failed, patient, quoted, source_of, without_body};
use super::{Bucket, PREFIX, hash, mark, number, tagged};
use crate::source::status;

/// Largest object that stores copy in one request.
const COPY_MAX: u64 = 5 << 30;
/// Bytes of one part of a larger one.
const COPY_PART: u64 = 1 << 30;
/// Parts copied at once.
const AT_ONCE: usize = 4;
/// Metadata of a copy: which version of what was renamed it is.
const RENAMED: &str = "renamed";

impl Bucket {
    /// What a rename that was done before has left under the new name: that version, if one is named.
    async fn renamed_before(
        &self,
        to: &str,
        version: Option<&str>,
        only: Option<LeaseId>,
    ) -> Result<Option<Kept>, HomeError> {
        let Some(there) = self.shown(to, only).await? else { return Ok(None) };
        let is_it = |version| mark(&there, RENAMED).as_deref() == Some(version);
        if !version.is_none_or(is_it) {
            return Ok(None);
        }
        self.kept_whole(&there, to).await.map(Some)
    }

    pub(in super::super) async fn rename(
        &self,
        from: &str,
        to: &str,
        version: Option<&str>,
        only: Option<LeaseId>,
    ) -> Result<Kept, HomeError> {
        let Some(head) = self.shown(from, only).await? else {
            // It has the name already, or never was.
            let before = self.renamed_before(to, version, only).await?;
            return before.ok_or(HomeError::Absent);
        };
        let kept = self.kept_whole(&head, from).await?;
        if version.is_some_and(|version| version != kept.version) {
            // Another came under the old name since, or in the place of what is meant.
            let before = self.renamed_before(to, version, only).await?;
            return before.ok_or(HomeError::Changed);
        }
        if from == to {
            return Ok(kept);
        }
        let version = if kept.len <= COPY_MAX {
            self.copy_whole(from, to, &head, &kept.version).await?
        } else {
            self.copy_in_parts(from, to, &head, &kept).await?
        };
        self.delete_version(from, &kept.version).await?;
        Ok(Kept { version, ..kept })
    }

    /// Deletes what was copied, and not what somebody else put there meanwhile, where the store can tell.
    async fn delete_version(&self, path: &str, version: &str) -> Result<(), HomeError> {
        let delete = || self.client.delete_object().bucket(&self.name).key(self.key(path));
        match delete().if_match(quoted(version)).send().await {
            Ok(_) => Ok(()),
            Err(error) if matches!(status(&error), Some(400 | 501)) => {
                delete().send().await.map_err(failed)?;
                Ok(())
            }
            Err(error) => match failed(error) {
                // It is gone already, or is another by now.
                HomeError::Absent | HomeError::Changed => Ok(()),
                error => Err(error),
            },
        }
    }

    /// What is known of an object; the hash of one that came in parts is a tag.
    async fn kept_whole(&self, head: &HeadObjectOutput, path: &str) -> Result<Kept, HomeError> {
        let mut kept = Self::kept(head)?;
        if kept.blake3.is_none() {
            let tag = self.hash_tag(&self.key(path)).await;
            kept.blake3 = tag.and_then(|hex| hash(&hex));
        }
        Ok(kept)
    }

    async fn copy_whole(
        &self,
        from: &str,
        to: &str,
        head: &HeadObjectOutput,
        version: &str,
    ) -> Result<String, HomeError> {
        let copied = self
            .client
            .copy_object()
            .bucket(&self.name)
            .key(self.key(to))
            .copy_source(source_of(&self.name, &self.key(from)))
            .copy_source_if_match(quoted(version))
            .metadata_directive(MetadataDirective::Replace)
            .set_metadata(Some(renamed(head, version)))
            .set_content_type(head.content_type().map(str::to_owned))
            .set_content_encoding(head.content_encoding().map(str::to_owned))
            .set_content_language(head.content_language().map(str::to_owned))
            .set_content_disposition(head.content_disposition().map(str::to_owned))
            .set_cache_control(head.cache_control().map(str::to_owned))
            .tagging_directive(TaggingDirective::Copy)
            .customize()
            .config_override(patient())
            .send()
            .await
            .map_err(failed)?;
        let etag = copied.copy_object_result().and_then(|result| result.e_tag());
        let made = self.made(etag, to).await?;
        if mark(head, "upload").is_some() {
            // What came in parts says in tags what it is, which Ceph RGW leaves behind when metadata are replaced.
            self.copy_tags(from, &self.key(to)).await;
        }
        Ok(made)
    }

    async fn copy_in_parts(
        &self,
        from: &str,
        to: &str,
        head: &HeadObjectOutput,
        kept: &Kept,
    ) -> Result<String, HomeError> {
        let key = self.key(to);
        let begin = self.client.create_multipart_upload().bucket(&self.name).key(&key);
        let begun =
            begin.set_metadata(Some(renamed(head, &kept.version))).send().await.map_err(failed)?;
        let upload = begun.upload_id().unwrap_or_default().to_owned();
        let copied = self.copy_parts(from, to, &upload, kept).await;
        match copied {
            Ok(version) => {
                self.copy_tags(from, &key).await;
                Ok(version)
            }
            Err(error) => {
                if let Err(error) = self.abandon(to, &upload).await {
                    tracing::warn!(%error, "a copy that was given up stays half done in the store");
                }
                Err(error)
            }
        }
    }

    /// Copies part by part into an upload and completes it. Returns the version that this made.
    async fn copy_parts(
        &self,
        from: &str,
        to: &str,
        upload: &str,
        kept: &Kept,
    ) -> Result<String, HomeError> {
        let key = &self.key(to);
        let parts = u32::try_from(kept.len.div_ceil(COPY_PART)).unwrap_or(u32::MAX);
        let copies = (0..parts).map(async |part| {
            let first = u64::from(part) * COPY_PART;
            let last = (first + COPY_PART).min(kept.len) - 1;
            let copied = self
                .client
                .upload_part_copy()
                .bucket(&self.name)
                .key(key)
                .upload_id(upload)
                .part_number(number(part)?)
                .copy_source(source_of(&self.name, &self.key(from)))
                .copy_source_if_match(quoted(&kept.version))
                .copy_source_range(format!("bytes={first}-{last}"))
                .customize()
                .config_override(patient())
                .mutate_request(without_body)
                .send()
                .await
                .map_err(failed)?;
            let etag = tagged(copied.copy_part_result().and_then(|result| result.e_tag()))?;
            Ok::<_, HomeError>(
                CompletedPart::builder().part_number(number(part)?).e_tag(quoted(&etag)).build(),
            )
        });
        let parts = futures_util::stream::iter(copies).buffered(AT_ONCE).try_collect().await?;
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.name).key(key);
        let done = complete
            .upload_id(upload)
            .multipart_upload(all)
            .customize()
            .config_override(patient())
            .send()
            .await
            .map_err(failed);
        match done {
            Ok(done) => self.made(done.e_tag(), to).await,
            // It was done, perhaps, and its answer lost: asked again, the store knows no such upload any more.
            Err(HomeError::Absent) => {
                let before = self.renamed_before(to, Some(&kept.version), None).await?;
                let copy = before.filter(|copy| copy.len == kept.len);
                copy.map(|copy| copy.version).ok_or(HomeError::Absent)
            }
            Err(error) => Err(error),
        }
    }

    async fn copy_tags(&self, from: &str, key: &str) {
        let tags = self.client.get_object_tagging().bucket(&self.name).key(self.key(from));
        let Ok(tags) = tags.send().await else { return };
        let Ok(tags) = Tagging::builder().set_tag_set(Some(tags.tag_set().to_vec())).build() else {
            return;
        };
        let put = self.client.put_object_tagging().bucket(&self.name).key(key).tagging(tags);
        if let Err(error) = put.send().await.map_err(failed) {
            tracing::warn!(%error, "an object that was renamed does not carry its hash; the ledger has it");
        }
    }
}

/// The metadata of an object that is renamed.
fn renamed(head: &HeadObjectOutput, version: &str) -> HashMap<String, String> {
    let mut metadata = head.metadata().cloned().unwrap_or_default();
    metadata.insert(format!("{PREFIX}{RENAMED}"), version.to_owned());
    metadata
}
