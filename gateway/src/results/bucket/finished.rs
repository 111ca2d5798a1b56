//! Whether an upload that the store does not know any more has become the file that its commit says.

use tidegate_plan::{PartHash, RESULT_PART_LEN};
use tidegate_wire::PartReceipt;
use tokio::task::spawn_blocking;

use super::super::error::HomeError;
use super::super::file::Arrival;
use super::super::ticket::Ticket;
use super::{Bucket, PREFIX, mark, tagged};

impl Bucket {
    /// Whether the upload was completed before, as this file. An object that does not say its hash, because a
    /// gateway was killed before it said it or since the store has no tags, is read, unless it is the version that
    /// is known.
    pub(in super::super) async fn finished(
        &self,
        ticket: &Ticket,
        file: &Arrival,
        parts: &[PartReceipt],
        known: Option<&str>,
    ) -> Result<Option<String>, HomeError> {
        let Some(head) = self.head(&file.path).await? else { return Ok(None) };
        let is_it = mark(&head, "upload").as_ref() == Some(&ticket.id)
            && u64::try_from(head.content_length().unwrap_or(-1)) == Ok(file.len);
        if !is_it {
            return Ok(None);
        }
        let version = tagged(head.e_tag())?;
        let key = self.key(&file.path);
        let is_same = match self.hash_tag(&key).await {
            Some(hash) => hash == hex::encode(file.blake3),
            None => {
                known == Some(version.as_str()) || self.holds(&file.path, &version, parts).await?
            }
        };
        if !is_same {
            return Ok(None);
        }
        self.tag(&key, file).await;
        Ok(Some(version))
    }

    pub(super) async fn hash_tag(&self, key: &str) -> Option<String> {
        let tags = self.client.get_object_tagging().bucket(&self.name).key(key).send().await;
        let name = format!("{PREFIX}blake3");
        tags.ok()?.tag_set().iter().find(|tag| tag.key() == name).map(|tag| tag.value().to_owned())
    }

    /// Whether a version holds the parts of these receipts.
    async fn holds(
        &self,
        path: &str,
        version: &str,
        parts: &[PartReceipt],
    ) -> Result<bool, HomeError> {
        for receipt in parts {
            let (number, first) = (receipt.part, u64::from(receipt.part) * RESULT_PART_LEN as u64);
            let (_, bytes) = self.read(path, version, (first, receipt.len), None).await?;
            let hashing = spawn_blocking(move || PartHash::of(number, &bytes));
            let hash = hashing.await.map_err(|error| HomeError::Unavailable(error.to_string()))?;
            if hash.is_none_or(|hash| hash.0 != *receipt.hash.0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
