//! Where results may be brought home to, and how fast.

use serde::Deserialize;

use super::allow::{Allowed, admit, check, resolve};
use crate::source::SourceSpec;

/// Seconds that draining may take once a job has ended: 20 GiB on 50 Mbit/s take an hour.
const DRAIN_S: u32 = 3600;

/// What leases may write to at home. Nothing unless it is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResultsConfig {
    /// Places below which results may lie, in the same form as `sources.allow`.
    pub allow: Vec<Allowed>,
    /// Bytes a second that one lease may bring home; unlimited when absent.
    pub rate: Option<u64>,
    /// Seconds for which a worker whose job has ended may go on bringing results home.
    pub drain_s: u32,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self { allow: Vec::new(), rate: None, drain_s: DRAIN_S }
    }
}

impl ResultsConfig {
    /// Which key cannot be used, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        check(&self.allow).map_err(|why| ("results.allow", why))?;
        if self.rate == Some(0) {
            let why = "must be more than 0; leave it out for no limit";
            return Err(("results.rate", why.to_owned()));
        }
        if self.drain_s == 0 {
            return Err(("results.drain_s", "must be at least 1".to_owned()));
        }
        Ok(())
    }

    pub(crate) fn resolve(&mut self) {
        resolve(&mut self.allow);
    }

    /// The home as it is to be opened, if it may be.
    pub(super) fn admit(&self, asked: &SourceSpec) -> Option<SourceSpec> {
        admit(&self.allow, asked)
    }
}
