//! The main job on two real stores: odd keys arrive, and what POSIX cannot show is named.

use std::ffi::OsStr;

use anyhow::Result;
use tidegate_tests::ceph::CephRgw;
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::held::Held;
use tidegate_tests::s3::S3;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;
use tidegate_tests::versitygw::Versitygw;

const BUCKET: &str = "training-data";

/// Keys of ordinary shape that any file system shows.
fn shown_keys() -> Vec<String> {
    vec![
        "set/plain.bin".into(),
        "set/with space.bin".into(),
        "set/plus+percent%25&amp;.bin".into(),
        "set/été-日本語-🌊.bin".into(),
        "set/quote\"and'tick.bin".into(),
        "set/deep/er/and/deeper/file".into(),
        "set/empty".into(),
        "set/clash/below-a-file".into(),
        format!(
            "set/{}",
            ["x".repeat(200), "y".repeat(200), "z".repeat(200), "w".repeat(200), "v".repeat(191)]
                .join("/")
        ),
    ]
}

fn check(store: &S3, odd: &[&str]) -> Result<()> {
    let copy = Scratch::new()?;
    store.create_bucket(BUCKET)?;
    for (seed, key) in (0..).zip(shown_keys()) {
        let len = if key.ends_with("empty") { 0 } else { 50_000 + 9_999 * usize::try_from(seed)? };
        let body = dataset::bytes(seed, len);
        store.put(BUCKET, &key, &body)?;
        dataset::write(copy.path(), OsStr::new(key.trim_start_matches("set/")), &body)?;
    }
    let large = dataset::bytes(99, (9 << 20) + 5);
    store.put(BUCKET, "set/large.bin", &large)?;
    dataset::write(copy.path(), "large.bin", &large)?;
    store.put(BUCKET, "other/not-selected", b"outside the prefix")?;
    for key in odd {
        store.put(BUCKET, key, b"cannot be shown")?;
    }

    let held = Held::start(Run::from_s3(store, &format!("s3://{BUCKET}/set"))?)?;
    digest::assert_same(&digest::contents(copy.path())?, &digest::contents(held.data())?);
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped");
    let unshown = receipt["unshown"].to_string();
    for key in odd {
        let name = key.trim_start_matches("set/");
        assert!(unshown.contains(name), "{key} is not named: {unshown}");
    }
    assert_eq!(receipt["unshown"].as_array().map(Vec::len), Some(odd.len()), "{unshown}");
    Ok(())
}

/// versitygw keeps objects as files, so it has none that a file system could not show but folders with content.
#[test]
fn odd_keys_on_versitygw() -> Result<()> {
    check(&Versitygw::start()?.client()?, &[])
}

#[test]
fn odd_keys_on_ceph_rgw() -> Result<()> {
    check(
        &CephRgw::start()?.client()?,
        &["set/double//slash", "set/trailing/", "set/./dot", "set/../up", "set/clash"],
    )
}

/// Versioned buckets are pinned by version: what is written over at home still arrives as it was.
#[test]
fn a_versioned_object_written_over_is_read_as_it_was() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    store.create_bucket(BUCKET)?;
    store.enable_versions(BUCKET)?;
    let (old, new) = (dataset::bytes(1, 6 << 20), dataset::bytes(2, 6 << 20));
    store.put(BUCKET, "set/object", &old)?;
    store.put(BUCKET, "set/large", &dataset::bytes(3, 40 << 20))?;
    let run = Run::from_s3(&store, &format!("s3://{BUCKET}/set"))?.args(["--limit", "100Mbit"]);
    let held = Held::start(run)?;
    store.put(BUCKET, "set/object", &new)?;
    assert_eq!(std::fs::read(held.data().join("object"))?, old);
    held.finish()?;
    Ok(())
}

#[test]
fn store_credentials_do_not_reach_the_job() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    store.create_bucket(BUCKET)?;
    store.put(BUCKET, "object", b"body")?;
    let run = Run::new()?
        .args(["--from", &format!("s3://{BUCKET}"), "--s3-endpoint", store.endpoint()])
        .args(["--s3-region", "us-east-1"])
        .env("AWS_ACCESS_KEY_ID", "testkey")
        .env("AWS_SECRET_ACCESS_KEY", "testsecret")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-of-a-container")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/run/token")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")
        .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/reader")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/identity");
    let outcome =
        run.shell("cat \"$TIDEGATE_DATA/object\"; env | grep '^AWS_' || true").succeed()?;
    assert_eq!(outcome.stdout, "body");
    Ok(())
}
