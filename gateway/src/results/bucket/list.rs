//! What is in the bucket under the prefix.

use aws_sdk_s3::types::{EncodingType, Object};
use tidegate_wire::{Attributes, Found};

use super::super::error::HomeError;
use super::super::file::Listed;
use super::super::names::{checked, is_reserved};
use super::call::failed;
use super::{Bucket, tagged};
use crate::source::decoded;

/// Objects asked for at once: a page of long names stays below the largest JSON body.
const OBJECTS: i32 = 100;
/// Permissions of objects: what came with the bytes lies with each, and a listing does not say it.
const MODE: u32 = 0o644;

impl Bucket {
    /// A page. What cannot be a file (a marker of a directory, a key that is no path) is passed over.
    pub(in super::super) async fn list(&self, after: Option<&str>) -> Result<Listed, HomeError> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(&self.prefix);
        let list = list.max_keys(OBJECTS).encoding_type(EncodingType::Url);
        let page = list
            .set_start_after(after.map(|after| self.key(after)))
            .send()
            .await
            .map_err(failed)?;
        let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
        let name = |object: &Object| {
            let key = object.key()?;
            let key =
                if is_encoded { String::from_utf8(decoded(key)).ok()? } else { key.to_owned() };
            Some(key.strip_prefix(&self.prefix)?.to_owned())
        };
        let last = page.contents().iter().rev().find_map(name);
        let next = last.filter(|_| page.is_truncated() == Some(true));
        let found = page.contents().iter().filter_map(|object| found(object, name(object)?));
        Ok(Listed { found: found.collect(), next })
    }
}

fn found(object: &Object, path: String) -> Option<Found> {
    if checked(&path).is_err() || is_reserved(&path) {
        return None;
    }
    let modified = object.last_modified();
    Some(Found {
        path,
        directory: false,
        len: u64::try_from(object.size()?).ok()?,
        attributes: Attributes {
            mode: MODE,
            mtime_s: modified.map_or(0, |at| at.secs()),
            mtime_ns: modified.map_or(0, |at| at.subsec_nanos()),
        },
        version: tagged(object.e_tag()).ok()?,
    })
}
