//! The full tier: what is too heavy for every run. `cargo xtask full` runs it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_tests::minio::Minio;
use tidegate_tests::results::Home;

use crate::late_release::recorded_and_revoked;
use crate::results::long;
use crate::results::provenance::every_object_says_which_data_made_it;
use crate::results::semantics::every_line;
use crate::results::writers::real_writers;
use crate::state_bucket::{a_lease_lives_and_dies, refused};

#[test]
fn on_minio_a_lease_lives_and_dies() -> Result<()> {
    a_lease_lives_and_dies(&Minio::start()?.client()?)
}

#[test]
fn a_replica_that_stood_for_a_minute_hands_nothing_over() -> Result<()> {
    recorded_and_revoked(Duration::from_secs(60))
}

#[test]
fn a_versioned_bucket_on_minio_is_refused() -> Result<()> {
    let server = Minio::start()?;
    let store = server.client()?;
    store.create_bucket("state")?;
    store.enable_versions("state")?;
    let versioned = refused(&store)?;
    ensure!(versioned.contains("keeps versions"), "{versioned}");
    Ok(())
}

#[test]
fn results_of_twenty_gibibytes() -> Result<()> {
    long::very_large_files()
}

/// Of four minutes.
#[test]
fn results_in_long_storms() -> Result<()> {
    long::long_storms()
}

#[test]
fn results_over_a_cut_of_a_minute() -> Result<()> {
    long::a_cut_of_a_minute()
}

#[test]
fn results_in_every_trouble_on_every_home() -> Result<()> {
    long::every_trouble_on_every_home()
}

#[test]
fn results_on_ceph_rgw_and_minio() -> Result<()> {
    for home in [Home::ceph, Home::minio] {
        every_line(home()?)?;
        every_object_says_which_data_made_it(home()?)?;
    }
    real_writers(Home::minio()?)
}
