//! Looks at what a bucket holds: objects, their metadata and tags, and uploads nobody completed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use sha2::{Digest as _, Sha256};

use super::S3;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub len: u64,
    pub etag: String,
}

impl S3 {
    /// Every object whose key begins with `prefix`.
    pub fn objects(&self, bucket: &str, prefix: &str) -> Result<Vec<Object>> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let request = self.client.list_objects_v2().bucket(bucket).prefix(prefix);
            let page = self
                .wait(request.set_continuation_token(next).send())
                .with_context(|| format!("cannot list {bucket}/{prefix}"))?;
            found.extend(page.contents().iter().map(|object| Object {
                key: object.key().unwrap_or_default().to_owned(),
                len: object.size().and_then(|len| u64::try_from(len).ok()).unwrap_or(0),
                etag: object.e_tag().unwrap_or_default().to_owned(),
            }));
            next = page.next_continuation_token().map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// Bytes of an object; `None` where there is none.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let found = self.stream(bucket, key, |piece| bytes.extend_from_slice(piece))?;
        Ok(found.then_some(bytes))
    }

    /// SHA-256 of an object, in hex; `None` where there is none.
    pub fn sha256(&self, bucket: &str, key: &str) -> Result<Option<String>> {
        let mut hasher = Sha256::new();
        let found = self.stream(bucket, key, |piece| hasher.update(piece))?;
        Ok(found.then(|| hex::encode(hasher.finalize())))
    }

    /// Hands out an object piece by piece; whether there is one.
    fn stream(&self, bucket: &str, key: &str, mut each: impl FnMut(&[u8])) -> Result<bool> {
        self.runtime
            .block_on(async {
                let mut got = match self.client.get_object().bucket(bucket).key(key).send().await {
                    Err(SdkError::ServiceError(error))
                        if matches!(error.err(), GetObjectError::NoSuchKey(_)) =>
                    {
                        return Ok(false);
                    }
                    got => got?,
                };
                while let Some(piece) = got.body.next().await {
                    each(&piece?);
                }
                anyhow::Ok(true)
            })
            .with_context(|| format!("cannot get {bucket}/{key}"))
    }

    /// User metadata and tags of an object, in one map.
    pub fn notes(&self, bucket: &str, key: &str) -> Result<BTreeMap<String, String>> {
        let head = self.wait(self.client.head_object().bucket(bucket).key(key).send());
        let head = head.with_context(|| format!("no {bucket}/{key}"))?;
        let mut notes: BTreeMap<_, _> =
            head.metadata().cloned().unwrap_or_default().into_iter().collect();
        let tags = self.wait(self.client.get_object_tagging().bucket(bucket).key(key).send());
        // versitygw has an error for what has no tags.
        for tag in tags.iter().flat_map(|tags| tags.tag_set()) {
            notes.insert(tag.key().to_owned(), tag.value().to_owned());
        }
        Ok(notes)
    }

    /// Keys of the uploads that were begun and neither completed nor given up.
    pub fn uploads(&self, bucket: &str) -> Result<Vec<String>> {
        let listed = self
            .wait(self.client.list_multipart_uploads().bucket(bucket).send())
            .with_context(|| format!("cannot list the uploads of {bucket}"))?;
        Ok(listed.uploads().iter().filter_map(|one| one.key().map(str::to_owned)).collect())
    }
}
