//! The parts themselves: what a scenario relies on is shown first.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tidegate_tests::canary::{Canary, core_image};
use tidegate_tests::ceph::CephRgw;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::process::{Process, check};
use tidegate_tests::reader::{python, script};
use tidegate_tests::results::{Home, Log, Watcher};
use tidegate_tests::s3::{Credentials, S3};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::trouble::Trouble;
use tidegate_tests::versitygw::Versitygw;
use tidegate_tests::wire::Capture;

/// A scan that finds nothing means something only if it finds what is there.
#[test]
fn a_canary_on_a_raw_device_and_on_the_wire_is_found() -> Result<()> {
    let scratch = Scratch::new()?;
    let (planted, sent, absent) = (Canary::new()?, Canary::new()?, Canary::new()?);

    let device = LoopDevice::ext4(&scratch, "device", 32 << 20)?;
    let file = device.path().join("file");
    std::fs::write(&file, planted.fill(1 << 20))?;
    device.raw()?;
    std::fs::remove_file(&file)?;
    assert!(planted.count_in(device.raw()?)? > 1000, "a file deleted without overwrite stays");
    assert_eq!(absent.count_in(device.raw()?)?, 0);

    let capture = Capture::start(&scratch)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.write_all(&sent.fill(100_000))?;
    let (mut peer, _) = listener.accept()?;
    drop(stream);
    std::io::copy(&mut peer, &mut std::io::sink())?;
    let wire = capture.stop()?;
    assert!(sent.count_in(&wire)? > 1000);
    assert_eq!(absent.count_in(&wire)?, 0);
    Ok(())
}

/// The same for the memory of a process, whose program is not asked to hide it.
#[test]
fn a_canary_in_a_process_is_found_in_its_core_image() -> Result<()> {
    let scratch = Scratch::new()?;
    let (held, absent) = (Canary::new()?, Canary::new()?);
    let file = scratch.join("file");
    std::fs::write(&file, held.fill(1 << 20))?;
    let script = "import sys, time\nheld = open(sys.argv[1], 'rb').read()\n\
                  print('ready', flush=True)\ntime.sleep(3600)";
    let mut command = Command::new(python()?);
    command.args(["-c", script]).arg(&file);
    let mut process = Process::start("holder", &mut command, scratch.path())?;
    process.wait_ready(|process| process.log().contains("ready"))?;
    let image = core_image(process.pid(), &scratch)?;
    assert!(held.count_in(&image)? > 1000, "what a process holds is in its image");
    assert_eq!(absent.count_in(&image)?, 0);
    Ok(())
}

#[test]
fn both_stores_start_and_take_objects() -> Result<()> {
    let versitygw = Versitygw::start()?;
    let ceph = CephRgw::start()?;
    for store in [versitygw.client()?, ceph.client()?] {
        store.create_bucket("bucket")?;
        store.put("bucket", "a key/with space", b"body")?;
        store.delete("bucket", "a key/with space")?;
    }
    assert!(versitygw.access_log().contains("s3_PutObject"), "{}", versitygw.access_log());
    Ok(())
}

/// Whoever judges results sees what is wrong with them: a job writes to an ordinary disk, which is its own home.
#[test]
fn a_judge_of_results_sees_a_lost_a_changed_and_a_half_file() -> Result<()> {
    let (scratch, canary) = (Scratch::new()?, Canary::new()?);
    let device = LoopDevice::ext4(&scratch, "disk", 96 << 20)?;
    let home = Home::directory_at(&device.path().join("home"))?;
    let (look, log) = (home.look()?, scratch.join("log"));
    let mut command = Command::new(python()?);
    command.arg(script("write_results.py")).arg(home.path()).arg(&log);
    check(command.args(["--canary", &hex::encode(canary.bytes()), "--steps", "120"]))?;
    let written = Log::read(&log)?;
    assert!(written.failed.is_empty() && written.done > 100, "{written:?}");
    written.judge(&look, |_| String::new())?;
    assert!(canary.count_in(device.raw()?)? > 1000, "what the job wrote is found in clear");
    Watcher::start(home.look()?).finish(&written.ever, |_| String::new())?;

    let files = look.list()?;
    let (path, _) = files.iter().max_by_key(|(_, seen)| seen.len).context("no file")?;
    let at = home.path().join(path);
    let whole = std::fs::read(&at)?;
    std::fs::write(&at, &whole[..whole.len() / 2])?;
    assert!(written.judge(&look, |_| String::new()).is_err(), "half a file");
    let seen = Watcher::start(home.look()?).finish(&written.ever, |_| String::new());
    assert!(seen.is_err(), "half a file is seen");
    std::fs::remove_file(&at)?;
    assert!(written.judge(&look, |_| String::new()).is_err(), "no file");
    std::fs::write(&at, &whole)?;
    written.judge(&look, |_| String::new())?;
    std::fs::write(home.path().join("surplus"), b"")?;
    assert!(written.judge(&look, |_| String::new()).is_err(), "a file that nobody wrote");
    Ok(())
}

#[test]
fn a_store_in_trouble_answers_503_and_takes_its_time() -> Result<()> {
    let server = Versitygw::start()?;
    server.client()?.create_bucket("bucket")?;
    let trouble = Trouble::before(server.port(), None)?;
    let store = S3::new(&format!("http://127.0.0.1:{}", trouble.port()), Credentials::TEST)?;
    store.put("bucket", "one", b"one")?;
    trouble.refuse(100);
    assert!(store.put("bucket", "two", b"two").is_err());
    assert!(trouble.refused() > 0);
    trouble.end();
    trouble.slow(Duration::from_millis(400));
    let began = Instant::now();
    assert_eq!(store.get("bucket", "one")?.as_deref(), Some(&b"one"[..]));
    assert!(began.elapsed() >= Duration::from_millis(400));
    trouble.end();
    assert_eq!(store.get("bucket", "nothing")?, None);
    let large = tidegate_tests::dataset::bytes(1, 9 << 20);
    store.put("bucket", "large", &large)?;
    assert!(store.get("bucket", "large")?.as_deref() == Some(&large));
    Ok(())
}
