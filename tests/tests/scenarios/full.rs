//! The full tier: what is too heavy for every run. `cargo xtask full` runs it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_tests::minio::Minio;

use crate::late_release::recorded_and_revoked;
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
