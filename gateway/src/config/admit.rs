//! Whether a source may be opened: allowed, and nothing of the gateway's own.

use super::GatewayConfig;
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
}

impl GatewayConfig {
    /// The source as it is to be opened, if it may be; a directory is named by its real path.
    pub(crate) fn admit(&self, source: &SourceSpec) -> Result<SourceSpec, Inadmissible> {
        let admitted = self.sources.admit(source);
        let admitted = admitted.ok_or_else(|| Inadmissible::NotAllowed(source.to_string()))?;
        self.own_within(source).map_or(Ok(admitted), |own| Err(Inadmissible::Own(own)))
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
