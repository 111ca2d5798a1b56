//! Which sources a gateway may open at all, and how it reaches them, whatever an administrator asks
//! later.

use std::fmt;
use std::path::{Component, Path};

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::source::{S3Options, SourceSpec, is_plain_prefix};

/// Prefixes of what may be staged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcesConfig {
    /// Directories (`/data`) and buckets (`s3://bucket/prefix`). A prefix ends at a `/`: `/data` allows
    /// `/data/a` and not `/database`; `/` allows every directory, `s3://` every bucket of the store.
    pub allow: Vec<Allowed>,
}

/// One prefix, and for a bucket how its store is reached: `"/data"`, `"s3://bucket"`, or
/// `{ source = "s3://bucket", endpoint = "https://…", credentials_file = "…" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub(super) prefix: String,
    pub(super) s3: S3Options,
}

impl SourcesConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        check(&self.allow)
    }

    pub(crate) fn resolve(&mut self) {
        resolve(&mut self.allow);
    }

    /// The source as it is to be opened, if it may be.
    pub(crate) fn admit(&self, asked: &SourceSpec) -> Option<SourceSpec> {
        admit(&self.allow, asked)
    }
}

pub(super) fn check(allow: &[Allowed]) -> Result<(), String> {
    for Allowed { prefix, s3 } in allow {
        let is_bucket = prefix.starts_with(S3);
        if !is_plain(prefix) {
            return Err(format!(
                "`{prefix}` is neither an absolute directory without `..` nor an s3:// address whose prefix has \
                 no empty name, `.` or `..`"
            ));
        }
        if !is_bucket && *s3 != S3Options::default() {
            return Err(format!("`{prefix}` is a directory: it has no endpoint or credentials"));
        }
    }
    Ok(())
}

/// Adds the real paths of allowed directories that are named through links: what is opened is
/// compared by its real path.
pub(super) fn resolve(allow: &mut Vec<Allowed>) {
    let real = allow.iter().filter(|allowed| allowed.prefix.starts_with('/'));
    let real: Vec<Allowed> = real
        .filter_map(|allowed| std::fs::canonicalize(&allowed.prefix).ok())
        .filter_map(|path| path.into_os_string().into_string().ok())
        .map(Allowed::from)
        .collect();
    for path in real {
        if !allow.contains(&path) {
            allow.push(path);
        }
    }
}

/// The place as it is to be opened, if it may be: a store is reached as the configuration says. What
/// is asked for may repeat that, and name nothing else.
pub(super) fn admit(allow: &[Allowed], asked: &SourceSpec) -> Option<SourceSpec> {
    let place = asked.to_string();
    let mut covering = allow.iter().filter(|allowed| allowed.covers(&place));
    match asked {
        SourceSpec::Directory(_) => covering.next().map(|_| asked.clone()),
        SourceSpec::S3 { bucket, prefix, options } => {
            let allowed = covering.find(|allowed| repeats(options, &allowed.s3))?;
            Some(SourceSpec::S3 {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                options: allowed.s3.clone(),
            })
        }
    }
}

impl Allowed {
    /// Whether `source` (an absolute directory or an `s3://` address) lies under it.
    fn covers(&self, source: &str) -> bool {
        is_plain(source)
            && self.prefix.starts_with(S3) == source.starts_with(S3)
            && under(&self.prefix, source)
    }

    /// Whether another place lies under it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        self.covers(&other.prefix)
    }

    /// Whether one of both lies in the other, or they are the same.
    pub(super) fn overlaps(&self, place: &SourceSpec) -> bool {
        let place = place.to_string();
        self.prefix.starts_with(S3) == place.starts_with(S3)
            && (under(&self.prefix, &place) || under(&place, &self.prefix))
    }
}

impl From<String> for Allowed {
    fn from(prefix: String) -> Self {
        Self { prefix, s3: S3Options::default() }
    }
}

impl From<&str> for Allowed {
    fn from(prefix: &str) -> Self {
        prefix.to_owned().into()
    }
}

/// This source and what lies under it, reached as it is.
impl From<SourceSpec> for Allowed {
    fn from(spec: SourceSpec) -> Self {
        let prefix = spec.to_string();
        match spec {
            SourceSpec::Directory(_) => prefix.into(),
            SourceSpec::S3 { options, .. } => Self { prefix, s3: options },
        }
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = Allowed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a directory, an s3:// address, or a table with `source`")
            }

            fn visit_str<E>(self, prefix: &str) -> Result<Allowed, E> {
                Ok(prefix.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Allowed, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                let Table { source, endpoint, region, profile, credentials_file } = table;
                let s3 = S3Options { endpoint, region, profile, credentials_file };
                Ok(Allowed { prefix: source, s3 })
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    source: String,
    endpoint: Option<String>,
    region: Option<String>,
    profile: Option<String>,
    credentials_file: Option<std::path::PathBuf>,
}

const S3: &str = "s3://";

/// Whether each thing that was asked for is the configuration's too.
fn repeats(asked: &S3Options, own: &S3Options) -> bool {
    fn same<T: PartialEq>(asked: &Option<T>, own: &Option<T>) -> bool {
        asked.is_none() || asked == own
    }
    same(&asked.endpoint, &own.endpoint)
        && same(&asked.region, &own.region)
        && same(&asked.profile, &own.profile)
        && same(&asked.credentials_file, &own.credentials_file)
}

/// Whether a place lies where its text says: an absolute directory, or an `s3://` address.
fn is_plain(place: &str) -> bool {
    if let Some(place) = place.strip_prefix(S3) {
        return place.split_once('/').is_none_or(|(_, prefix)| is_plain_prefix(prefix));
    }
    let path = Path::new(place);
    path.is_absolute() && path.components().all(|c| c != Component::ParentDir)
}

fn under(prefix: &str, source: &str) -> bool {
    if prefix == S3 {
        return true;
    }
    let prefix = prefix.trim_end_matches('/');
    match source.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(source: &str, options: S3Options) -> SourceSpec {
        SourceSpec::parse(source, options).unwrap()
    }

    fn allows(sources: &SourcesConfig, source: &str) -> bool {
        sources.admit(&spec(source, S3Options::default())).is_some()
    }

    #[test]
    fn an_allowed_link_allows_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut sources = SourcesConfig { allow: vec![link.to_str().unwrap().into()] };
        let real = real.canonicalize().unwrap();
        assert!(!allows(&sources, real.to_str().unwrap()));
        sources.resolve();
        assert!(allows(&sources, real.to_str().unwrap()));
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let sources = SourcesConfig { allow: vec!["/data".into(), "s3://bucket/train/".into()] };
        for (source, allowed) in [
            ("/data", true),
            ("/data/a", true),
            ("/database", false),
            ("/data/../etc", false),
            ("data", false),
            ("s3://bucket/train", true),
            ("s3://bucket/train/a", true),
            ("s3://bucket/training", false),
            ("s3://other/train", false),
        ] {
            assert_eq!(allows(&sources, source), allowed, "{source}");
        }
        let all = SourcesConfig { allow: vec!["/".into(), "s3://".into()] };
        assert!(allows(&all, "/etc") && allows(&all, "s3://any/where"));
        assert!(!allows(&SourcesConfig { allow: vec!["/".into()] }, "s3://any"));
    }

    /// Some stores resolve names as file systems do.
    #[test]
    fn nothing_leads_out_of_a_prefix() {
        let sources = |allow: &[&str]| SourcesConfig {
            allow: allow.iter().map(|prefix| Allowed::from(*prefix)).collect(),
        };
        let allowed = sources(&["s3://bucket/train", "s3://whole"]);
        for (bucket, prefix) in [
            ("bucket", "train/../cars/"),
            ("bucket", "train/a/.."),
            ("bucket", "train/./"),
            ("bucket", "train//"),
            ("whole", "../bucket/"),
        ] {
            let options = S3Options::default();
            let asked = SourceSpec::S3 { bucket: bucket.into(), prefix: prefix.into(), options };
            assert_eq!(allowed.admit(&asked), None, "{asked}");
        }
        for text in ["s3://bucket/train/..", "s3://bucket//", "s3://bucket/./a", "/data/.."] {
            assert!(sources(&[text]).check().unwrap_err().contains(text));
        }
        let plain = ["s3://", "s3://bucket", "s3://bucket/", "s3://bucket/..a/", "/", "/data"];
        assert_eq!(sources(&plain).check(), Ok(()));
    }

    /// Whoever asks does not choose where requests and credentials go.
    #[test]
    fn a_store_is_reached_as_the_configuration_says() {
        let options = |endpoint: &str, file: &str| S3Options {
            endpoint: Some(endpoint.into()).filter(|text: &String| !text.is_empty()),
            credentials_file: Some(file.into()).filter(|_| !file.is_empty()),
            ..S3Options::default()
        };
        let own = options("https://rgw:1", "/ours");
        let sources = SourcesConfig {
            allow: vec![
                "s3://plain".into(),
                spec("s3://data/train", own.clone()).into(),
                spec("s3://data", options("https://minio:2", "")).into(),
            ],
        };
        let admitted = |source: &str, asked: S3Options| match sources.admit(&spec(source, asked))? {
            SourceSpec::S3 { options, .. } => Some(options),
            SourceSpec::Directory(_) => None,
        };
        let none = S3Options::default;
        assert_eq!(admitted("s3://data/train/a", none()), Some(own.clone()));
        assert_eq!(admitted("s3://data/train", own.clone()), Some(own.clone()));
        assert_eq!(admitted("s3://data/train", options("https://rgw:1", "")), Some(own));
        assert_eq!(admitted("s3://plain/a", none()), Some(none()));
        let other = options("https://minio:2", "");
        assert_eq!(admitted("s3://data/train", other.clone()), Some(other));
        for (source, asked) in [
            ("s3://data/train", options("http://elsewhere", "/any/file")),
            ("s3://data/train", options("", "/any/file")),
            ("s3://data/other", options("https://rgw:1", "")),
            ("s3://plain", options("http://elsewhere", "")),
            ("s3://plain", S3Options { region: Some("us-west-2".into()), ..none() }),
            ("s3://plain", S3Options { profile: Some("root".into()), ..none() }),
        ] {
            assert_eq!(admitted(source, asked.clone()), None, "{source} {asked:?}");
        }
    }

    #[test]
    fn an_entry_is_a_word_or_a_table() {
        let read = |text: &str| toml::from_str::<SourcesConfig>(text).map_err(|e| e.to_string());
        let both =
            read("allow = [\"/data\", { source = \"s3://b\", endpoint = \"https://rgw:1\" }]");
        let both = both.unwrap();
        assert_eq!(both.allow[0], "/data".into());
        assert_eq!(both.allow[1].s3.endpoint.as_deref(), Some("https://rgw:1"));
        assert!(both.check().is_ok());
        for (text, word) in [
            ("allow = [{ source = \"s3://b\", endpont = \"x\" }]", "endpont"),
            ("allow = [{ endpoint = \"x\" }]", "source"),
            ("allow = [1]", "a directory, an s3:// address"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let directory = read("allow = [{ source = \"/data\", region = \"x\" }]").unwrap();
        assert!(directory.check().unwrap_err().contains("is a directory"));
    }
}
