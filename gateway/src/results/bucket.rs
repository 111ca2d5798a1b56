//! A bucket with a prefix as the home of results.
//!
//! A store shows nothing of an object before it is there whole: small files are put, large ones are
//! uploads of several parts. Which data made an object lies with it as user metadata, whose names begin with
//! `tidegate-`; what is known of one that came in parts only at its end, its hash among it, as tags.

mod call;
mod finished;
mod list;
mod rename;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Tag, Tagging};
use tidegate_plan::{LeaseId, PartHash, RESULT_PART_LEN};
use tidegate_wire::PartReceipt;
use tokio::task::spawn_blocking;

use super::error::HomeError;
use super::file::{Arrival, Gone, Kept, Provenance};
use super::names::RESERVED;
use super::ticket::{Ticket, word};
use crate::source::{S3Options, SourceError, bare, connect, refusal_of};
use call::{failed, patient, quoted, range_of, source_of, without_body};

/// What metadata and tags are called, before the names of `Provenance::marks`.
const PREFIX: &str = "tidegate-";
/// Longest key that stores take, bytes.
const KEY_MAX: usize = 1024;
/// A store that sends nothing for so long in the middle of an object has gone.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Bucket {
    client: Client,
    name: String,
    prefix: String,
}

impl Bucket {
    /// Finds out whether the bucket can be listed; the prefix may be empty as yet.
    pub(super) async fn open(
        name: &str,
        prefix: &str,
        options: &S3Options,
    ) -> Result<Self, SourceError> {
        let (client, endpoint) = connect(options).await?;
        let first = client.list_objects_v2().bucket(name).prefix(prefix).max_keys(1).send().await;
        first.map_err(|error| refusal_of(&endpoint, name, error))?;
        Ok(Self { client, name: name.to_owned(), prefix: prefix.to_owned() })
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(super) fn takes(&self, path: &str) -> Result<(), HomeError> {
        if self.prefix.len() + path.len() > KEY_MAX {
            return Err(HomeError::Unfit("a key of this store has at most 1024 bytes"));
        }
        Ok(())
    }

    /// Puts an object and deletes it.
    pub(super) async fn try_out(&self) -> Result<(), HomeError> {
        let path = format!("{RESERVED}try-{}", hex::encode(crate::keyring::random::<8>()));
        let key = self.key(&path);
        let put = self.client.put_object().bucket(&self.name).key(&key);
        put.body(ByteStream::from_static(b"")).send().await.map_err(failed)?;
        self.client.delete_object().bucket(&self.name).key(&key).send().await.map_err(failed)?;
        Ok(())
    }

    pub(super) async fn put(
        &self,
        made: &Provenance,
        file: &Arrival,
        bytes: Vec<u8>,
    ) -> Result<String, HomeError> {
        let mut metadata = metadata(made);
        metadata.extend(of_file(file));
        let put = self.client.put_object().bucket(&self.name).key(self.key(&file.path));
        let put = put.set_metadata(Some(metadata)).body(ByteStream::from(bytes)).send().await;
        tagged(put.map_err(failed)?.e_tag())
    }

    pub(super) async fn begin(
        &self,
        made: &Provenance,
        path: &str,
        id: &str,
    ) -> Result<String, HomeError> {
        let mut metadata = metadata(made);
        metadata.insert(format!("{PREFIX}upload"), id.to_owned());
        let begin = self.client.create_multipart_upload().bucket(&self.name).key(self.key(path));
        let begun = begin.set_metadata(Some(metadata)).send().await.map_err(failed)?;
        let upload = begun.upload_id().filter(|upload| !upload.is_empty());
        upload.map(str::to_owned).ok_or_else(|| nonsense("it names no upload"))
    }

    pub(super) async fn part(
        &self,
        ticket: &Ticket,
        part: u32,
        bytes: Vec<u8>,
    ) -> Result<String, HomeError> {
        let put = self.client.upload_part().bucket(&self.name).key(self.key(&ticket.path));
        let put = put.upload_id(&ticket.store).part_number(number(part)?);
        let done = put.body(ByteStream::from(bytes)).send().await.map_err(failed)?;
        tagged(done.e_tag())
    }

    /// Which upload made the version at home, by its metadata.
    pub(super) async fn upload_of(
        &self,
        path: &str,
        version: &str,
    ) -> Result<Option<String>, HomeError> {
        let head = self.head(path).await?.ok_or(HomeError::Changed)?;
        if tagged(head.e_tag())? != version {
            return Err(HomeError::Changed);
        }
        Ok(mark(&head, "upload"))
    }

    pub(super) async fn copy(
        &self,
        ticket: &Ticket,
        (path, version): (&str, &str),
        receipt: &PartReceipt,
        hash: PartHash,
    ) -> Result<String, HomeError> {
        let first = u64::from(receipt.part) * RESULT_PART_LEN as u64;
        let copy = self.client.upload_part_copy().bucket(&self.name);
        let copy = copy.key(self.key(&ticket.path)).upload_id(&ticket.store);
        let copied = copy
            .part_number(number(receipt.part)?)
            .copy_source(source_of(&self.name, &self.key(path)))
            .copy_source_if_match(quoted(version))
            .copy_source_range(range_of(first, receipt.len)?)
            .customize()
            .config_override(patient())
            .mutate_request(without_body)
            .send()
            .await
            .map_err(failed)?;
        let tag = tagged(copied.copy_part_result().and_then(|result| result.e_tag()))?;
        if tag != word(receipt) {
            // A part that came twice has two receipts, and not every store gives the same bytes the same
            // tag: what was copied says which it is.
            let (_, bytes) = self.read(path, version, (first, receipt.len), None).await?;
            let number = receipt.part;
            let hashing = spawn_blocking(move || PartHash::of(number, &bytes));
            let is = hashing.await.map_err(|error| HomeError::Unavailable(error.to_string()))?;
            if is != Some(hash) {
                return Err(HomeError::Changed);
            }
        }
        Ok(tag)
    }

    pub(super) async fn commit(
        &self,
        ticket: &Ticket,
        file: &Arrival,
        parts: &[PartReceipt],
    ) -> Result<String, HomeError> {
        if ticket.path != file.path {
            return Err(HomeError::Unfit("an object has the name that its upload began with"));
        }
        let mut all = CompletedMultipartUpload::builder();
        for receipt in parts {
            let part = CompletedPart::builder().part_number(number(receipt.part)?);
            all = all.parts(part.e_tag(quoted(word(receipt))).build());
        }
        let key = self.key(&file.path);
        let complete = self.client.complete_multipart_upload().bucket(&self.name).key(&key);
        let completed = complete
            .upload_id(&ticket.store)
            .multipart_upload(all.build())
            .customize()
            .config_override(patient())
            .send()
            .await
            .map_err(failed)?;
        let version = self.made(completed.e_tag(), &file.path).await?;
        self.tag(&key, file).await;
        Ok(version)
    }

    /// The version of what was just made. A store that does not tell is asked what is there; an empty one, as
    /// Ceph RGW may give, is no answer: whoever asked looks when they ask again.
    async fn made(&self, etag: Option<&str>, path: &str) -> Result<String, HomeError> {
        match etag {
            Some(etag) => tagged(Some(etag)),
            None => tagged(self.head(path).await?.as_ref().and_then(|head| head.e_tag())),
        }
    }

    /// Says what an object is that came in parts. A store without tags goes without: the ledger says the
    /// same.
    async fn tag(&self, key: &str, file: &Arrival) {
        let tags = of_file(file).into_iter();
        let tags =
            tags.filter_map(|(name, value)| Tag::builder().key(name).value(value).build().ok());
        let Ok(tags) = Tagging::builder().set_tag_set(Some(tags.collect())).build() else {
            return;
        };
        let put = self.client.put_object_tagging().bucket(&self.name).key(key).tagging(tags);
        if let Err(error) = put.send().await.map_err(failed) {
            tracing::warn!(%error, "an object does not carry its hash; the ledger has it");
        }
    }

    pub(super) async fn abandon(&self, path: &str, upload: &str) -> Result<(), HomeError> {
        let abort = self.client.abort_multipart_upload().bucket(&self.name).key(self.key(path));
        match abort.upload_id(upload).send().await.map_err(failed) {
            Ok(_) | Err(HomeError::Absent) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn head(&self, path: &str) -> Result<Option<HeadObjectOutput>, HomeError> {
        let head = self.client.head_object().bucket(&self.name).key(self.key(path)).send().await;
        match head.map_err(failed) {
            Ok(head) => Ok(Some(head)),
            Err(HomeError::Absent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Which version has a name, if an object has it.
    pub(super) async fn version(&self, path: &str) -> Result<Option<String>, HomeError> {
        self.head(path).await?.map(|head| tagged(head.e_tag())).transpose()
    }

    /// The head of an object that is shown: to a lease that does not resume, only what it brought home itself.
    async fn shown(
        &self,
        path: &str,
        only: Option<LeaseId>,
    ) -> Result<Option<HeadObjectOutput>, HomeError> {
        let head = self.head(path).await?;
        Ok(head.filter(|head| is_from(head.metadata(), only)))
    }

    /// What an object's head says.
    fn kept(head: &HeadObjectOutput) -> Result<Kept, HomeError> {
        Ok(Kept {
            version: tagged(head.e_tag())?,
            len: u64::try_from(head.content_length().unwrap_or(0)).unwrap_or(0),
            blake3: mark(head, "blake3").and_then(|hex| hash(&hex)),
        })
    }

    pub(super) async fn unlink(
        &self,
        path: &str,
        only: Option<LeaseId>,
    ) -> Result<Gone, HomeError> {
        let Some(head) = self.head(path).await? else { return Ok(Gone::Before) };
        if !is_from(head.metadata(), only) {
            return Ok(Gone::Hidden);
        }
        let delete = self.client.delete_object().bucket(&self.name).key(self.key(path));
        delete.send().await.map_err(failed)?;
        Self::kept(&head).map(Gone::Now)
    }

    pub(super) async fn read(
        &self,
        path: &str,
        version: &str,
        (offset, len): (u64, u32),
        only: Option<LeaseId>,
    ) -> Result<(Kept, Vec<u8>), HomeError> {
        if len == 0 {
            let kept = Self::kept(&self.shown(path, only).await?.ok_or(HomeError::Changed)?)?;
            let is_it = kept.version == version;
            return if is_it { Ok((kept, Vec::new())) } else { Err(HomeError::Changed) };
        }
        let get = self.client.get_object().bucket(&self.name).key(self.key(path));
        let get = get.if_match(quoted(version)).range(range_of(offset, len)?);
        let got = match get.send().await.map_err(failed) {
            Ok(got) => got,
            Err(HomeError::Absent) => return Err(HomeError::Changed),
            Err(error) => return Err(error),
        };
        // Not every store heeds the condition.
        if tagged(got.e_tag())? != version || !is_from(got.metadata(), only) {
            return Err(HomeError::Changed);
        }
        let total = got.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let blake3 = got.metadata().and_then(|metadata| metadata.get(&format!("{PREFIX}blake3")));
        let kept = Kept {
            version: version.to_owned(),
            len: total.unwrap_or_else(|| u64::from(len)),
            blake3: blake3.and_then(|hex| hash(hex)),
        };
        let bytes = whole(got.body, len as usize).await?;
        if bytes.len() != len as usize {
            return Err(HomeError::Unfit("the range is not in the file"));
        }
        Ok((kept, bytes))
    }
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    hex::decode(hex).ok()?.try_into().ok()
}

/// What is known of an object before its bytes are.
fn metadata(made: &Provenance) -> HashMap<String, String> {
    made.marks().into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value)).collect()
}

/// What is known of an object with its bytes: metadata of one that is put, tags of one that came in parts.
fn of_file(file: &Arrival) -> [(String, String); 4] {
    let marks = [
        ("content", file.content.to_string()),
        ("blake3", hex::encode(file.blake3)),
        ("mode", format!("{:o}", file.attributes.mode & 0o7777)),
        ("mtime", file.attributes.mtime_s.to_string()),
    ];
    marks.map(|(name, value)| (format!("{PREFIX}{name}"), value))
}

fn mark(head: &HeadObjectOutput, name: &str) -> Option<String> {
    head.metadata()?.get(&format!("{PREFIX}{name}")).cloned()
}

/// Whether an object with this metadata is shown to a lease that sees its own alone.
fn is_from(metadata: Option<&HashMap<String, String>>, only: Option<LeaseId>) -> bool {
    let says = || metadata?.get(&format!("{PREFIX}lease")).cloned();
    only.is_none_or(|lease| says() == Some(lease.to_string()))
}

/// The bytes of an answer, as long as they come.
async fn whole(mut body: ByteStream, len: usize) -> Result<Vec<u8>, HomeError> {
    let mut bytes = Vec::with_capacity(len);
    loop {
        match tokio::time::timeout(SILENCE, body.next()).await {
            Err(_) => return Err(nonsense("it has stopped sending")),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(nonsense(&error.to_string())),
            Ok(Some(Ok(more))) if bytes.len() + more.len() > len => {
                return Err(nonsense("it sends more than was asked for"));
            }
            Ok(Some(Ok(more))) => bytes.extend_from_slice(&more),
        }
    }
}

fn nonsense(why: &str) -> HomeError {
    HomeError::Unavailable(format!("the store answers in a way that cannot be used: {why}"))
}

/// A version is an ETag without its quotes.
fn tagged(etag: Option<&str>) -> Result<String, HomeError> {
    let etag = etag.map(bare).filter(|etag| !etag.is_empty());
    etag.map(str::to_owned).ok_or_else(|| nonsense("it gives no ETag"))
}

/// Stores count parts from 1.
fn number(part: u32) -> Result<i32, HomeError> {
    i32::try_from(part).map(|part| part + 1).map_err(|_| HomeError::Unfit("no such part"))
}

#[cfg(test)]
mod tests;
