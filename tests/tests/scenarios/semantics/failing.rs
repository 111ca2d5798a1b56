//! S28 to S31: what fails, and how. S26 and S27 stand in `source_changes`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::held::Held;
use tidegate_tests::process::{Process, signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::reader::python;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

fn site(extra: &str) -> Result<(Scratch, GatewayProgram, MountProgram)> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "a-first", &dataset::bytes(1, 2 << 20))?;
    dataset::write(home.path(), "b-filler", &dataset::bytes(2, 60 << 20))?;
    dataset::write(home.path(), "c-last", &dataset::bytes(3, 2 << 20))?;
    let gateway = GatewayProgram::start(&home.path().display().to_string(), extra)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mount = MountProgram::start(&join, &[])?;
    Ok((home, gateway, mount))
}

#[test]
fn s28_without_a_gateway_reads_wait_and_then_are_eio() -> Result<()> {
    let (_home, mut gateway, mount) = site("heartbeat_s = 1\ngrace_s = 4\nrate_limit = 4000000")?;
    let first = fs::read(mount.data().join("a-first"))?;
    let file = File::open(mount.data().join("a-first"))?;
    let last = File::open(mount.data().join("c-last"))?;
    let killed = Instant::now();
    gateway.process().stop(Signal::KILL)?;
    let mut here = vec![0; 1000];
    file.read_exact_at(&mut here, 0)?;
    assert_eq!(here, first[..1000], "what is here is read");
    let error = last.read_at(&mut here, 0).err().context("read what was never sent")?;
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert!(killed.elapsed() >= Duration::from_secs(2), "it waited for the gateway to come back");
    Ok(())
}

/// The gateway is there and cannot write its ledger, so it gives no key.
#[test]
fn s28_without_a_key_reads_wait_and_then_are_eio() -> Result<()> {
    let (home, scratch) = (Scratch::new()?, Scratch::new()?);
    dataset::flat(home.path(), 24, 4 << 20, 670)?;
    let state = scratch.join("state");
    scratch.dir("state/ledger")?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    let device = LoopDevice::ext4(&scratch, "state/ledger/batches", 16 << 20)?;
    let config = "heartbeat_s = 1\ngrace_s = 4\nlimits.window = 8388608";
    let gateway = GatewayProgram::start_in(&state, &home.path().display().to_string(), config)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mount = MountProgram::start(&join, &["--cache-size", "22MiB"])?;
    let name = |file: u64| mount.data().join(format!("{file:05}.bin"));
    let first = fs::read(name(0))?;
    let filler = device.fill()?;
    let began = Instant::now();
    let path = name(20);
    let waiting = std::thread::spawn(move || (fs::read(path).err(), Instant::now()));
    while !waiting.is_finished() && began.elapsed() < Duration::from_secs(2) {
        let mut here = vec![0; 1000];
        File::open(name(0))?.read_exact_at(&mut here, 0)?;
        assert_eq!(here, first[..1000], "what is here is read");
    }
    let (error, failed) = waiting.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    let error = error.context("read what nobody gave keys for")?;
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    assert!(failed - began >= Duration::from_secs(2), "it waited for the ledger to come back");
    fs::remove_file(filler)?;
    let far = wait_for("the keys to come", || fs::read(name(20)).ok())?;
    assert!(far == fs::read(home.join("00020.bin"))?, "other bytes");
    mount.finish()?;
    Ok(())
}

#[test]
fn s28_a_signal_takes_effect_when_the_read_is_answered() -> Result<()> {
    let (_home, mut gateway, mount) = site("heartbeat_s = 1\ngrace_s = 6\nrate_limit = 4000000")?;
    let killed = Instant::now();
    gateway.process().stop(Signal::KILL)?;
    let logs = Scratch::new()?;
    let script = "import os, sys\n\
                  fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                  print('reads', flush=True)\n\
                  os.pread(fd, 1000, 0)";
    let mut command = Command::new(python()?);
    command.args(["-c", script]).arg(mount.data().join("c-last"));
    let mut reader = Process::start("reader", &mut command, logs.path())?;
    reader.wait_ready(|reader| reader.log().contains("reads"))?;
    let pid = reader.pid();
    let waits = move || {
        let on = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        on.contains("request_wait_answer").then_some(())
    };
    wait_for("the read to wait", waits)?;
    reader.signal(Signal::KILL)?;
    wait_for("it to wait on, though it is to die", waits)?;
    let status = reader.wait()?;
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}: {}", reader.log());
    assert!(killed.elapsed() >= Duration::from_secs(3), "after {:?}", killed.elapsed());
    Ok(())
}

#[test]
fn s29_after_the_lease_has_ended_everything_is_eio() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "large", &dataset::bytes(1, 3 << 20))?;
    dataset::write(home.path(), "small", &dataset::bytes(2, 10_000))?;
    let gateway =
        GatewayProgram::start(&home.path().display().to_string(), "heartbeat_s = 1\ngrace_s = 4")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start(&join, &[])?;
    let (large, small) =
        (File::open(mount.data().join("large"))?, File::open(mount.data().join("small"))?);
    let mut byte = [0];
    large.read_exact_at(&mut byte, 0)?;
    small.read_exact_at(&mut byte, 0)?;
    // The holder stands still, so that the mount is not taken away before it was looked at.
    mount.process().signal(Signal::STOP)?;
    gateway.revoke(&join)?;
    for file in [&large, &small] {
        let error = wait_for("reads to fail", || file.read_at(&mut [0], 5).err())?;
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    for name in ["large", "small"] {
        let error = File::open(mount.data().join(name)).err().context("opened all the same")?;
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(mount.data())? {
        names.push(entry?.file_name());
    }
    assert_eq!(names, ["large", "small"], "names can still be listed");
    drop((large, small));
    mount.process().signal(Signal::CONT)?;
    mount.process().wait()?;
    Ok(())
}

/// A reader in C's terms: a mapping of a file that is stale dies of SIGBUS.
#[test]
fn s30_in_a_mapping_it_is_sigbus() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "00-filler", &dataset::bytes(1, 60 << 20))?;
    dataset::write(home.path(), "z-changed", &dataset::bytes(2, 5 << 20))?;
    let held = Held::start(Run::from_dir(home.path())?.args(["--limit", "100Mbit"]))?;
    let file = File::options().write(true).open(home.join("z-changed"))?;
    file.write_all_at(b"changed", 77)?;
    let script = "import mmap, os, sys\n\
                  fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                  view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\n\
                  print(view[4096])";
    let output =
        Command::new(python()?).args(["-c", script]).arg(held.data().join("z-changed")).output()?;
    assert_eq!(output.status.signal(), Some(7), "{output:?}");
    held.finish()?;
    Ok(())
}

/// Pages that a mapping had already seen are taken out of it when the lease ends.
#[test]
fn s30_a_mapping_loses_its_pages_with_the_lease() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "large", &dataset::bytes(1, 3 << 20))?;
    dataset::write(home.path(), "small", &dataset::bytes(2, 10_000))?;
    let gateway =
        GatewayProgram::start(&home.path().display().to_string(), "heartbeat_s = 1\ngrace_s = 4")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start(&join, &[])?;
    let script = "import mmap, os, sys\n\
                  fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                  view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\n\
                  first = view[4096]\n\
                  print('mapped', flush=True)\n\
                  while view[4096] == first: pass\n\
                  print('other bytes', flush=True)";
    let (mut readers, logs) = (Vec::new(), Scratch::new()?);
    for name in ["large", "small"] {
        let mut command = Command::new(python()?);
        command.args(["-c", script]).arg(mount.data().join(name));
        let mut reader = Process::start(name, &mut command, logs.path())?;
        reader.wait_ready(|reader| reader.log().contains("mapped"))?;
        readers.push(reader);
    }
    gateway.revoke(&join)?;
    for mut reader in readers {
        let status = reader.wait()?;
        assert_eq!(status.signal(), Some(Signal::BUS.as_raw()), "{status}: {}", reader.log());
    }
    mount.process().wait()?;
    Ok(())
}

/// Mapped pages outlive the worker that filled them, and the others come from its successor.
#[test]
fn s31_a_mapping_goes_on_under_the_next_worker() -> Result<()> {
    let home = Scratch::new()?;
    let want = dataset::bytes(1, 6 << 20);
    dataset::write(home.path(), "large", &want)?;
    let held = Held::start(Run::from_dir(home.path())?)?;
    let file = File::open(held.data().join("large"))?;
    #[allow(unsafe_code, reason = "a mapping is what is tested")]
    // SAFETY: a fresh read-only mapping of a file that nobody writes, unmapped after its last use.
    unsafe {
        let flags = rustix::mm::MapFlags::SHARED;
        let read = rustix::mm::ProtFlags::READ;
        let start = rustix::mm::mmap(std::ptr::null_mut(), want.len(), read, flags, &file, 0)?;
        let mapped = std::slice::from_raw_parts(start.cast::<u8>(), want.len());
        assert!(mapped[..3 << 20] == want[..3 << 20]);
        let worker = held.worker()?;
        signal_pid(worker, Signal::KILL)?;
        assert!(mapped == want);
        wait_for("another worker", || held.worker().ok().filter(|pid| *pid != worker))?;
        assert!(mapped == want);
        rustix::mm::munmap(start, want.len())?;
    }
    drop(file);
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["workers_replaced"], 1);
    Ok(())
}

#[test]
fn s31_a_killed_worker_is_replaced_under_waiting_reads() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "cold", &dataset::bytes(1, 30 << 20))?;
    dataset::write(home.path(), "small", &dataset::bytes(2, 100_000))?;
    let held = Held::start(Run::from_dir(home.path())?.args(["--limit", "80Mbit"]))?;
    let path = held.data().join("cold");
    let waiting = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut tail = vec![0; 1 << 20];
        File::open(path)?.read_exact_at(&mut tail, 29 << 20)?;
        Ok(tail)
    });
    let worker = held.worker()?;
    signal_pid(worker, Signal::KILL)?;
    let tail = waiting
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .context("the waiting read failed")?;
    assert!(tail == dataset::bytes(1, 30 << 20)[29 << 20..]);
    assert_eq!(fs::read(held.data().join("small"))?, dataset::bytes(2, 100_000));
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["workers_replaced"], 1);
    assert_eq!(receipt["read_errors"], 0);
    Ok(())
}
