//! State in a bucket: what is there, what goes, and which buckets are refused.

use std::path::Path;

use anyhow::{Result, ensure};
use tidegate_tests::ceph::CephRgw;
use tidegate_tests::dataset::odd_tree;
use tidegate_tests::digest;
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of};
use tidegate_tests::s3::S3;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::versitygw::Versitygw;

/// Lines of configuration for state in `s3://state/site`.
fn lines(store: &S3, credentials: &Path) -> String {
    format!(
        "[state_bucket]\nurl = \"s3://state/site\"\nendpoint = \"{}\"\ncredentials_file = \"{}\"\n",
        store.endpoint(),
        credentials.display()
    )
}

/// A whole lease, and a gateway killed in the middle of it.
pub(crate) fn a_lease_lives_and_dies(store: &S3) -> Result<()> {
    store.create_bucket("state")?;
    let home = Scratch::new()?;
    odd_tree(home.path())?;
    let own = Scratch::new()?;
    let credentials = store.credentials_file(&own)?;
    let source = home.path().display().to_string();
    let mut gateway = GatewayProgram::start(&source, &lines(store, &credentials))?;
    let join = gateway.lease("one.join", ["--from", &source])?;
    let lease = lease_of(&join)?;
    let mount = MountProgram::start(&join, &[])?;
    let keys = store.list("state")?;
    ensure!(keys.contains(&format!("site/wrapped/{lease}")), "no wrapped key in {keys:?}");
    ensure!(keys.contains(&format!("site/leases/{lease}/00000001")), "no revision in {keys:?}");
    ensure!(!keys.iter().any(|key| key.contains("probe")), "the probe stayed: {keys:?}");
    gateway.crash_and_restart()?;
    digest::assert_same(&digest::tree(home.path())?, &digest::tree(mount.data())?);
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    let keys = store.list("state")?;
    ensure!(!keys.iter().any(|key| key.contains("wrapped/")), "a wrapped key stayed: {keys:?}");
    ensure!(keys.iter().any(|key| key.contains("ledger/batches/")), "no ledger in {keys:?}");
    Ok(())
}

#[test]
fn on_versitygw_a_lease_lives_and_dies() -> Result<()> {
    a_lease_lives_and_dies(&Versitygw::start()?.client()?)
}

#[test]
fn on_ceph_a_lease_lives_and_dies() -> Result<()> {
    a_lease_lives_and_dies(&CephRgw::start()?.client()?)
}

pub(crate) fn refused(store: &S3) -> Result<String> {
    let own = Scratch::new()?;
    let credentials = store.credentials_file(&own)?;
    let started = GatewayProgram::start("/usr/share", &lines(store, &credentials));
    let Err(error) = started else { anyhow::bail!("a gateway started on an unfit bucket") };
    Ok(format!("{error:#}"))
}

#[test]
fn a_versioned_or_missing_bucket_is_refused_with_the_reason() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    let missing = refused(&store)?;
    ensure!(missing.contains("s3://state/site"), "{missing}");
    store.create_bucket("state")?;
    store.enable_versions("state")?;
    let versioned = refused(&store)?;
    ensure!(versioned.contains("keeps versions"), "{versioned}");
    ensure!(store.list("state")?.is_empty(), "something was left");
    Ok(())
}

#[test]
fn a_versioned_bucket_on_ceph_is_refused() -> Result<()> {
    let server = CephRgw::start()?;
    let store = server.client()?;
    store.create_bucket("state")?;
    store.enable_versions("state")?;
    let versioned = refused(&store)?;
    ensure!(versioned.contains("keeps versions") || versioned.contains("race"), "{versioned}");
    Ok(())
}

/// What no trial shows: an object that a rule takes away next week, a key that a lock keeps.
fn rules_are_looked_at(store: &S3) -> Result<()> {
    store.create_bucket("state")?;
    store.expire("state", "sit")?;
    let expiring = refused(store)?;
    ensure!(expiring.contains("lifecycle rule"), "{expiring}");
    ensure!(store.list("state")?.is_empty(), "something was left");
    // One that leaves the state alone is nobody's business.
    store.expire("state", "data/")?;
    let own = Scratch::new()?;
    let gateway =
        GatewayProgram::start("/usr/share", &lines(store, &store.credentials_file(&own)?))?;
    ensure!(!gateway.log().contains("does not say"), "{}", gateway.log());
    Ok(())
}

#[test]
fn on_ceph_rules_of_the_bucket_are_looked_at() -> Result<()> {
    rules_are_looked_at(&CephRgw::start()?.client()?)
}

fn a_bucket_that_keeps_is_refused(store: &S3) -> Result<()> {
    store.create_keeping_bucket("state")?;
    let keeping = refused(store)?;
    ensure!(keeping.contains("default retention"), "{keeping}");
    ensure!(store.list("state")?.is_empty(), "something was left");
    Ok(())
}

#[test]
fn a_bucket_that_keeps_is_refused_on_ceph() -> Result<()> {
    a_bucket_that_keeps_is_refused(&CephRgw::start()?.client()?)
}

#[test]
fn a_bucket_that_keeps_is_refused_on_versitygw() -> Result<()> {
    a_bucket_that_keeps_is_refused(&Versitygw::start()?.client()?)
}

/// versitygw knows no lifecycle rules and says so; that is said, and the gateway starts.
#[test]
fn a_store_that_does_not_tell_its_rules_is_said() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own) = (server.client()?, Scratch::new()?);
    store.create_bucket("state")?;
    let gateway =
        GatewayProgram::start("/usr/share", &lines(&store, &store.credentials_file(&own)?))?;
    let log = gateway.log();
    assert_eq!(log.matches("does not say what lifecycle").count(), 1, "{log}");
    Ok(())
}

#[test]
fn a_store_that_is_away_or_refuses_is_said() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    store.create_bucket("state")?;
    drop(server);
    let away = refused(&store)?;
    ensure!(away.contains("s3://state/site"), "{away}");
    Ok(())
}
