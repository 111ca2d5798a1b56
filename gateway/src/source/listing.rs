//! Pages of a bucket's listing, as stores really send them.
//!
//! Seen: names sent encoded or not, whatever was asked for (versitygw never does, and replaces
//! control characters); markers sent unencoded beside encoded names (Ceph RGW 16); listings of
//! versions that end early or repeat themselves (versitygw 1.8). So the plain listing alone says
//! what there is, and the listing of versions only adds version ids to it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::list_object_versions::{
    ListObjectVersionsError, ListObjectVersionsOutput,
};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Error;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{CommonPrefix, EncodingType};
use tidegate_plan::Timestamp;

use super::keys::{Listed, bare, decoded};
use super::partition::{Ask, Keyed, Page};

/// A page that cannot be had or be used.
#[derive(Debug)]
pub(super) enum Refused<E> {
    Store(Box<SdkError<E>>),
    Nonsense(&'static str),
}

impl<E> From<SdkError<E>> for Refused<E> {
    fn from(error: SdkError<E>) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Keyed for Listed {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

pub(super) async fn objects(
    client: Client,
    bucket: String,
    ask: Ask<String>,
) -> Result<Page<Listed, String>, Refused<ListObjectsV2Error>> {
    let answer = client
        .list_objects_v2()
        .bucket(bucket)
        .prefix(&ask.prefix)
        .set_delimiter(ask.delimited.then(|| "/".to_owned()))
        .encoding_type(EncodingType::Url)
        .set_continuation_token(ask.cursor.clone())
        .send()
        .await?;
    let encoded = answer.encoding_type() == Some(&EncodingType::Url);
    let listed = |object: &aws_sdk_s3::types::Object| {
        Some(Listed {
            key: name(object.key()?, encoded),
            size: object.size(),
            etag: object.e_tag().map(|etag| bare(etag).to_owned()),
            modified: object.last_modified().map(timestamp).unwrap_or_default(),
            inexact: !encoded,
        })
    };
    let items = answer.contents().iter().map(listed).collect::<Option<Vec<_>>>();
    let items = items.ok_or(Refused::Nonsense("an object has no key"))?;
    let directories = directories(answer.common_prefixes(), encoded, &ask.prefix)?;
    let next = if answer.is_truncated() == Some(true) {
        let token = answer.next_continuation_token().map(str::to_owned);
        Some(advanced(token, ask.cursor)?)
    } else {
        None
    };
    Ok(Page { items, directories, next })
}

/// The current version of one key.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) key: Vec<u8>,
    pub(super) version_id: String,
    pub(super) etag: String,
}

impl Keyed for Current {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Key and version id after which the next page begins.
pub(super) type Marker = (String, Option<String>);

pub(super) async fn versions(
    client: Client,
    bucket: String,
    ask: Ask<Marker>,
) -> Result<Page<Current, Marker>, Refused<ListObjectVersionsError>> {
    let (key_marker, version_marker) = ask.cursor.clone().unzip();
    let answer = client
        .list_object_versions()
        .bucket(bucket)
        .prefix(&ask.prefix)
        .set_delimiter(ask.delimited.then(|| "/".to_owned()))
        .encoding_type(EncodingType::Url)
        .set_key_marker(key_marker)
        .set_version_id_marker(version_marker.flatten())
        .send()
        .await?;
    let encoded = answer.encoding_type() == Some(&EncodingType::Url);
    let current = |version: &aws_sdk_s3::types::ObjectVersion| {
        Some(Current {
            key: name(version.key()?, encoded),
            // Objects older than versioning are called `null`; their ETag pins them.
            version_id: version.version_id().filter(|id| *id != "null")?.to_owned(),
            etag: bare(version.e_tag()?).to_owned(),
        })
    };
    let latest = answer.versions().iter().filter(|version| version.is_latest() == Some(true));
    let items = latest.filter_map(current).collect();
    let directories = directories(answer.common_prefixes(), encoded, &ask.prefix)?;
    let next = if answer.is_truncated() == Some(true) {
        Some(advanced(marker(&answer, encoded), ask.cursor)?)
    } else {
        None
    };
    Ok(Page { items, directories, next })
}

/// Some stores send the marker unencoded among encoded names: then it is one of the page's keys.
fn marker(answer: &ListObjectVersionsOutput, encoded: bool) -> Option<Marker> {
    let sent = answer.next_key_marker()?;
    let keys = answer.versions().iter().filter_map(|version| version.key());
    let gone = answer.delete_markers().iter().filter_map(|marker| marker.key());
    let rolled = answer.common_prefixes().iter().filter_map(CommonPrefix::prefix);
    let plain = keys.chain(gone).chain(rolled).any(|key| name(key, encoded) == sent.as_bytes());
    let key = String::from_utf8(name(sent, encoded && !plain)).ok()?;
    Some((key, answer.next_version_id_marker().map(str::to_owned)))
}

fn advanced<C: PartialEq, E>(next: Option<C>, from: Option<C>) -> Result<C, Refused<E>> {
    match next {
        None => Err(Refused::Nonsense("a page says that there is more and not where")),
        next if next == from => Err(Refused::Nonsense("its pages do not advance")),
        Some(next) => Ok(next),
    }
}

fn directories<E>(
    rolled: &[CommonPrefix],
    encoded: bool,
    asked: &str,
) -> Result<Vec<String>, Refused<E>> {
    let directory = |rolled: &CommonPrefix| {
        let text = String::from_utf8(name(rolled.prefix()?, encoded)).ok()?;
        (text.len() > asked.len() && text.starts_with(asked) && text.ends_with('/')).then_some(text)
    };
    rolled
        .iter()
        .map(directory)
        .collect::<Option<_>>()
        .ok_or(Refused::Nonsense("a common prefix is not below the prefix asked for"))
}

fn name(text: &str, encoded: bool) -> Vec<u8> {
    if encoded { decoded(text) } else { text.as_bytes().to_vec() }
}

fn timestamp(time: &DateTime) -> Timestamp {
    Timestamp { secs: time.secs(), nanos: time.subsec_nanos() }
}
