//! What a configuration names, looked at: for `--check`, which opens nothing for good.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hyper::Uri;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::{Allowed, ConfigError, GatewayConfig, value};

/// Longest path of a Unix socket, in bytes: `sun_path` less its end.
const SOCKET_PATH: usize = 107;

impl GatewayConfig {
    /// Looks whether what the values name is there. An error for what cannot work; a line, with its
    /// key, for each thing that may be meant so but rarely is.
    pub fn inspect(&self) -> Result<Vec<String>, ConfigError> {
        self.check()?;
        let mut doubts = Vec::new();
        directory("state", &self.state)?;
        if let Some(secrets) = &self.secrets {
            directory("secrets", secrets)?;
        }
        if let Some(copy) = &self.checkpoint_copy {
            let home = copy.parent().filter(|home| !home.as_os_str().is_empty());
            let Some(home) = home.filter(|home| home.is_dir()) else {
                return Err(value("checkpoint_copy", "the directory it lies in is not there"));
            };
            if shared_device(home, &self.state) == Some(true) {
                doubts.push(
                    "checkpoint_copy: lies on the same file system as `state`, and is lost with it"
                        .into(),
                );
            }
        } else {
            doubts.push(
                "checkpoint_copy: absent, so a ledger that was set back is not noticed".into(),
            );
        }
        if let Some(socket) = &self.admin_socket {
            if socket.as_os_str().len() > SOCKET_PATH {
                let why = format!("a socket's path has at most {SOCKET_PATH} bytes");
                return Err(value("admin_socket", why));
            }
        } else {
            doubts.push("admin_socket: absent, so nobody can ask for a lease".into());
        }
        if let Some(bucket) = &self.state_bucket {
            if let Some(endpoint) = &bucket.endpoint {
                url("state_bucket.endpoint", endpoint, &["https", "http"])?;
            }
            if let Some(file) = &bucket.credentials_file {
                readable("state_bucket.credentials_file", file)?;
            }
        }
        for (key, allow) in
            [("sources.allow", &self.sources.allow), ("results.allow", &self.results.allow)]
        {
            for Allowed { s3, .. } in allow {
                if let Some(endpoint) = &s3.endpoint {
                    url(key, endpoint, &["https", "http"])?;
                }
                if let Some(file) = &s3.credentials_file {
                    readable(key, file)?;
                }
            }
            for Allowed { prefix, .. } in allow {
                if prefix.starts_with('/') && !Path::new(prefix).is_dir() {
                    doubts.push(format!("{key}: there is no directory {prefix}"));
                }
            }
        }
        for place in &self.results.allow {
            if let Some(data) = self.sources.allow.iter().find(|data| data.holds(place)) {
                let (place, data) = (&place.prefix, &data.prefix);
                doubts.push(format!("results.allow: {place} lies in {data}, and is refused"));
            }
        }
        if self.sources.allow.is_empty() {
            doubts.push("sources.allow: empty, so nothing can be leased".into());
        }
        Ok(doubts)
    }
}

/// A directory, or one that can be made: the nearest thing above it that exists is one.
fn directory(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok());
    match there {
        Some(there) if there.is_dir() => match access(there, Access::WRITE_OK) {
            Err(Errno::ROFS) => Err(value(key, format!("{} is read-only", there.display()))),
            // Whoever checks may be another than who will run it.
            Ok(()) | Err(_) => Ok(()),
        },
        Some(there) => Err(value(key, format!("{} is not a directory", there.display()))),
        None => Err(value(key, "must be an absolute path")),
    }
}

fn readable(key: &'static str, file: &Path) -> Result<(), ConfigError> {
    let opened = File::open(file);
    opened.map(drop).map_err(|error| value(key, format!("{}: {error}", file.display())))
}

/// Whether both lie on one file system; `None` when that cannot be seen.
fn shared_device(one: &Path, other: &Path) -> Option<bool> {
    let there = other.ancestors().find_map(|path| path.metadata().ok())?;
    Some(one.metadata().ok()?.dev() == there.dev())
}

fn url(key: &'static str, text: &str, schemes: &[&str]) -> Result<(), ConfigError> {
    let parsed = text.parse::<Uri>().ok();
    let good = parsed.is_some_and(|uri| {
        uri.host().is_some() && uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
    });
    if good {
        Ok(())
    } else {
        Err(value(key, format!("`{text}` is not a URL with {}", schemes.join(" or "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::S3Options;
    use crate::state::StateBucket;

    fn good(dir: &Path) -> GatewayConfig {
        let mut config = GatewayConfig::embedded(dir.join("state"), dir.to_str().unwrap());
        config.admin_socket = Some(dir.join("admin"));
        config
    }

    #[test]
    fn what_cannot_work_names_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let bucket = |endpoint: &str, credentials: &str| StateBucket {
            url: "s3://state".into(),
            endpoint: Some(endpoint.into()),
            region: None,
            profile: None,
            credentials_file: Some(credentials.into()),
        };
        let store = |endpoint: &str, credentials: &str| Allowed {
            prefix: "s3://data".into(),
            s3: S3Options {
                endpoint: Some(endpoint.into()),
                credentials_file: Some(credentials.into()),
                ..S3Options::default()
            },
        };
        type Change<'a> = Box<dyn Fn(&mut GatewayConfig) + 'a>;
        let table: Vec<(&str, Change<'_>)> = vec![
            ("state", Box::new(|c| c.state = file.join("state"))),
            ("secrets", Box::new(|c| c.secrets = Some(file.clone()))),
            ("checkpoint_copy", Box::new(|c| c.checkpoint_copy = Some("/nowhere/copy".into()))),
            ("admin_socket", Box::new(|c| c.admin_socket = Some("/x".repeat(60).into()))),
            ("gateways", Box::new(|c| c.gateways = vec!["https://".into()])),
            (
                "state_bucket.endpoint",
                Box::new(|c| c.state_bucket = Some(bucket("rgw:8443", "/dev/null"))),
            ),
            (
                "state_bucket.credentials_file",
                Box::new(|c| c.state_bucket = Some(bucket("https://rgw:8443", "/nowhere"))),
            ),
            ("key_epoch_s", Box::new(|c| c.key_epoch_s = 0)),
            ("sources.allow", Box::new(|c| c.sources.allow = vec![store("rgw:8443", "/dev/null")])),
            (
                "sources.allow",
                Box::new(|c| c.sources.allow = vec![store("https://rgw:8443", "/nowhere")]),
            ),
            (
                "results.allow",
                Box::new(|c| c.results.allow = vec![store("https://rgw:8443", "/nowhere")]),
            ),
        ];
        for (key, change) in table {
            let mut config = good(dir.path());
            change(&mut config);
            let error = config.inspect().unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
        }
    }

    #[test]
    fn what_is_rarely_meant_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = good(dir.path());
        config.checkpoint_copy = Some(dir.path().join("copy"));
        config.sources.allow.push("/no/such/directory".into());
        config.results.allow.push(dir.path().join("data/out").to_str().unwrap().into());
        let doubts = config.inspect().unwrap();
        assert_eq!(doubts.len(), 4, "{doubts:?}");
        assert!(doubts[2].starts_with("results.allow: there is no"), "{doubts:?}");
        assert!(
            doubts[3].starts_with("results.allow") && doubts[3].contains("lies in"),
            "{doubts:?}"
        );
        assert!(doubts[0].starts_with("checkpoint_copy"), "{doubts:?}");
        assert!(doubts[1].contains("/no/such/directory"), "{doubts:?}");
    }
}
