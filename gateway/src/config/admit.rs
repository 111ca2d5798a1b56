//! Whether a source may be opened: allowed, and nothing of the gateway's own.

use super::{Allowed, GatewayConfig};
use crate::source::SourceSpec;

/// A source that this gateway does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Inadmissible {
    #[error(
        "`{0}` is not under `sources.allow` of this gateway, which also says how a bucket is reached: a request \
         may leave out endpoint, region, profile and credentials, and not name others"
    )]
    NotAllowed(String),
    #[error(
        "the source holds this gateway's own state and keys ({0}): keep them elsewhere, or name less of it"
    )]
    Own(String),
    #[error(
        "`{0}` is not under `results.allow` of this gateway, which also says how a bucket is reached: a request \
         may leave out endpoint, region, profile and credentials, and not name others"
    )]
    NoHome(String),
    #[error(
        "results cannot go to `{home}`: it lies in, or holds, `{place}`, where data lies; give them a place of \
         their own"
    )]
    HomeOfData { home: String, place: String },
    #[error(
        "results cannot go to `{home}`: it lies in, or holds, this gateway's own {own}; give them a place of \
         their own"
    )]
    HomeOfOwn { home: String, own: String },
}

impl GatewayConfig {
    /// The source as it is to be opened, if it may be; a directory is named by its real path.
    pub(crate) fn admit(&self, source: &SourceSpec) -> Result<SourceSpec, Inadmissible> {
        let admitted = self.sources.admit(source);
        let admitted = admitted.ok_or_else(|| Inadmissible::NotAllowed(source.to_string()))?;
        self.own_within(source).map_or(Ok(admitted), |own| Err(Inadmissible::Own(own)))
    }

    /// The home of a lease's results as it is to be opened, if it may be; `source` is what the lease reads.
    /// Directories are named by their real paths.
    pub(crate) fn admit_home(
        &self,
        home: &SourceSpec,
        source: &SourceSpec,
    ) -> Result<SourceSpec, Inadmissible> {
        let admitted = self.results.admit(home);
        let admitted = admitted.ok_or_else(|| Inadmissible::NoHome(home.to_string()))?;
        let of_data = |place: String| Inadmissible::HomeOfData { home: home.to_string(), place };
        if Allowed::from(source.clone()).overlaps(home) {
            return Err(of_data(source.to_string()));
        }
        // An embedded gateway serves its one lease only.
        let others = self.sources.allow.iter().filter(|_| !self.embedded);
        if let Some(other) = others.clone().find(|other| other.overlaps(home)) {
            return Err(of_data(other.prefix.clone()));
        }
        match self.own_within(home).or_else(|| self.own_file_within(home)) {
            Some(own) => Err(Inadmissible::HomeOfOwn { home: home.to_string(), own }),
            None => Ok(admitted),
        }
    }

    /// Which of the files outside the gateway's own directories lies in a home, where a job could replace it.
    fn own_file_within(&self, home: &SourceSpec) -> Option<String> {
        let SourceSpec::Directory(home) = home else { return None };
        let files = [&self.checkpoint_copy, &self.admin_socket].into_iter().flatten();
        files
            .filter(|file| {
                let place = file.parent().and_then(|place| place.canonicalize().ok());
                place.is_some_and(|place| place.starts_with(home))
            })
            .map(|file| file.display().to_string())
            .next()
    }

    /// What of the gateway's own lies in a source, or holds it.
    fn own_within(&self, source: &SourceSpec) -> Option<String> {
        match source {
            SourceSpec::Directory(path) => {
                [Some(&self.state), self.secrets.as_ref()].into_iter().flatten().find_map(|own| {
                    let own = own.canonicalize().ok()?;
                    (own.starts_with(path) || path.starts_with(&own))
                        .then(|| own.display().to_string())
                })
            }
            SourceSpec::S3 { bucket, prefix, .. } => {
                let own = self.state_bucket.as_ref()?;
                let (name, place) = own.place().ok()?;
                let overlaps = place.starts_with(prefix) || prefix.starts_with(&place);
                // At whatever endpoint: one store goes by many names.
                (name == *bucket && overlaps).then(|| own.url.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::S3Options;
    use crate::state::StateBucket;

    fn spec(place: &str) -> SourceSpec {
        SourceSpec::parse(place, S3Options::default()).unwrap()
    }

    #[test]
    fn results_have_a_place_apart_from_all_data_and_from_the_gateway_s_own() {
        let mut config = GatewayConfig::embedded("/nowhere".into(), "/data/a");
        config.sources.allow.extend(["/data/b".into(), "s3://train/set".into()]);
        config.results.allow.extend(["/out".into(), "/data".into(), "s3://train".into()]);
        for embedded in [true, false] {
            config.embedded = embedded;
            for (home, source, refused) in [
                ("/out", "/data/a", None),
                ("/out/x", "/data/a", None),
                ("/outside", "/data/a", Some("results.allow")),
                ("s3://other", "/data/a", Some("results.allow")),
                ("/data/c", "/data/a", None),
                ("/data/a", "/data/a", Some("`/data/a`, where data lies")),
                ("/data/a/x", "/data/a", Some("where data lies")),
                ("/data", "/data/a", Some("where data lies")),
                ("/data/ab", "/data/a", None),
                ("/data/b/x", "/data/a", Some("`/data/b`").filter(|_| !embedded)),
                ("s3://train/out", "s3://train/set", None),
                ("s3://train/set/out", "s3://train/set", Some("where data lies")),
                ("s3://train", "s3://train/set", Some("where data lies")),
                ("s3://train/set/out", "/data/a", Some("s3://train/set").filter(|_| !embedded)),
            ] {
                let admitted = config.admit_home(&spec(home), &spec(source));
                match (&admitted, refused) {
                    (Ok(_), None) => {}
                    (Err(why), Some(word)) if why.to_string().contains(word) => {}
                    _ => panic!("{home} {source} {embedded}: {admitted:?}"),
                }
            }
        }
    }

    #[test]
    fn a_job_cannot_replace_what_is_the_gateway_s() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("out/socket")).unwrap();
        std::fs::create_dir(at("state")).unwrap();
        let mut config = GatewayConfig::embedded(at("state"), "/data");
        config.allow_results(&SourceSpec::Directory(dir.path().to_owned()));
        let refused = |config: &GatewayConfig, home: &str| {
            let home = SourceSpec::Directory(at(home));
            matches!(config.admit_home(&home, &spec("/data")), Err(Inadmissible::HomeOfOwn { .. }))
        };
        assert!(refused(&config, "state/x") && refused(&config, "") && !refused(&config, "out"));
        config.admin_socket = Some(at("out/socket/admin"));
        assert!(refused(&config, "out") && refused(&config, "out/socket"));
        assert!(!refused(&config, "out/other"));
        config.admin_socket = None;
        config.checkpoint_copy = Some(at("out/copy"));
        assert!(refused(&config, "out") && !refused(&config, "out/socket"));
    }

    #[test]
    fn the_bucket_of_the_state_is_no_source() {
        let mut config = GatewayConfig::embedded("/nowhere".into(), "s3://");
        config.state_bucket = Some(StateBucket {
            url: "s3://state/site/one".into(),
            endpoint: Some("https://rgw:1".into()),
            region: None,
            profile: None,
            credentials_file: None,
        });
        for (source, own) in [
            ("s3://state/site/one", true),
            ("s3://state/site/one/ledger", true),
            ("s3://state/site", true),
            ("s3://state", true),
            ("s3://state/site/one-more", false),
            ("s3://state/data", false),
            ("s3://data/site/one", false),
        ] {
            let spec = SourceSpec::parse(source, S3Options::default()).unwrap();
            let refused = config.admit(&spec);
            assert_eq!(matches!(refused, Err(Inadmissible::Own(_))), own, "{source} {refused:?}");
        }
    }
}
