//! Which sources a gateway may open at all, whatever an administrator asks later.

use std::path::{Component, Path};

use serde::Deserialize;

/// Prefixes of what may be staged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcesConfig {
    /// Directories (`/data`) and buckets (`s3://bucket/prefix`). A prefix ends at a `/`: `/data` allows
    /// `/data/a` and not `/database`; `/` allows every directory, `s3://` every bucket.
    pub allow: Vec<String>,
}

impl SourcesConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        for prefix in &self.allow {
            if !prefix.starts_with("s3://") && !is_plain_absolute(prefix) {
                return Err(format!(
                    "`{prefix}` is neither an absolute directory without `..` nor an s3:// address"
                ));
            }
        }
        Ok(())
    }

    /// Adds the real paths of allowed directories that are named through links: what is opened is
    /// compared by its real path.
    pub(crate) fn resolve(&mut self) {
        let real = self.allow.iter().filter(|prefix| prefix.starts_with('/'));
        let real: Vec<String> = real
            .filter_map(|prefix| std::fs::canonicalize(prefix).ok())
            .filter_map(|path| path.into_os_string().into_string().ok())
            .collect();
        for path in real {
            if !self.allow.contains(&path) {
                self.allow.push(path);
            }
        }
    }

    /// Whether `source` (an absolute directory or an `s3://` address) lies under an allowed prefix.
    pub fn allows(&self, source: &str) -> bool {
        if !source.starts_with("s3://") && !is_plain_absolute(source) {
            return false;
        }
        self.allow.iter().any(|prefix| {
            prefix.starts_with("s3://") == source.starts_with("s3://") && under(prefix, source)
        })
    }
}

fn is_plain_absolute(path: &str) -> bool {
    let path = Path::new(path);
    path.is_absolute() && path.components().all(|c| c != Component::ParentDir)
}

fn under(prefix: &str, source: &str) -> bool {
    if prefix == "s3://" {
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

    #[test]
    fn an_allowed_link_allows_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut sources = SourcesConfig { allow: vec![link.to_str().unwrap().to_owned()] };
        let real = real.canonicalize().unwrap();
        assert!(!sources.allows(real.to_str().unwrap()));
        sources.resolve();
        assert!(sources.allows(real.to_str().unwrap()));
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let sources =
            SourcesConfig { allow: vec!["/data".to_owned(), "s3://bucket/train/".to_owned()] };
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
            assert_eq!(sources.allows(source), allowed, "{source}");
        }
        let all = SourcesConfig { allow: vec!["/".to_owned(), "s3://".to_owned()] };
        assert!(all.allows("/etc") && all.allows("s3://any/where"));
        assert!(!SourcesConfig { allow: vec!["/".to_owned()] }.allows("s3://any"));
    }
}
