//! SIGINT and SIGTERM end a run cleanly, through the wipe, whenever they come.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::held::Held;
use tidegate_tests::process::{descendants, signal_pid};
use tidegate_tests::reader::python;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, nothing_left, receipt};

fn home() -> Result<Scratch> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 8, 2 << 20, 60)?;
    Ok(home)
}

#[test]
fn the_job_gets_the_signal_and_the_wipe_follows() -> Result<()> {
    let home = home()?;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut held = Held::start(Run::from_dir(home.path())?)?;
        fs::read(held.data().join("00000.bin"))?;
        let status = held.process().stop(signal)?;
        assert_eq!(status.code(), Some(code), "{}", held.log());
        assert_eq!(receipt(held.scratch())?["outcome"], "wiped");
        nothing_left(held.scratch())?;
    }
    Ok(())
}

/// A job may handle the signal itself; its own code is what comes back.
#[test]
fn a_job_that_handles_the_signal_decides_the_code() -> Result<()> {
    let home = home()?;
    let run = Run::from_dir(home.path())?;
    let ready = run.scratch().join("ready");
    let script =
        format!("trap 'exit 17' TERM; touch '{}'; while :; do sleep 0.05; done", ready.display());
    let (mut process, scratch) = run.shell(&script).start()?;
    process.wait_ready(|_| ready.exists())?;
    let status = process.stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(17), "{}", process.log());
    assert_eq!(receipt(&scratch)?["outcome"], "wiped");
    Ok(())
}

#[test]
fn a_job_that_does_not_listen_is_killed_at_the_second_signal() -> Result<()> {
    let home = home()?;
    let run = Run::from_dir(home.path())?;
    let ready = run.scratch().join("ready");
    let script = format!(
        "trap 'touch \"{0}2\"' TERM INT; touch \"{0}\"; while :; do sleep 0.05; done",
        ready.display()
    );
    let (mut process, scratch) = run.shell(&script).start()?;
    process.wait_ready(|_| ready.exists())?;
    process.signal(Signal::TERM)?;
    process.wait_ready(|_| ready.with_file_name("ready2").exists())?;
    let status = process.stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(137), "{}", process.log());
    assert_eq!(receipt(&scratch)?["outcome"], "wiped");
    nothing_left(&scratch)
}

/// Ctrl-C at a terminal goes to us and to the job at once; the job is not to get it twice.
#[test]
fn a_key_at_the_terminal_reaches_the_job_once() -> Result<()> {
    // On a terminal of its own: presses Ctrl-C when the program says READY.
    const AT_A_TERMINAL: &str = "\
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
said, pressed = b'', False
while True:
    try: more = os.read(terminal, 4096)
    except OSError: break
    said += more
    if not pressed and b'READY' in said:
        os.write(terminal, b'\\x03')
        pressed = True
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    // Counts the interrupts until none comes for two seconds: a second one would follow at once.
    const JOB: &str = "\
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print('READY', flush=True)
count = int(signal.sigtimedwait([signal.SIGINT], 60) is not None)
while signal.sigtimedwait([signal.SIGINT], 2): count += 1
print('interrupts:', count, flush=True)
raise SystemExit(17)";
    let (home, python) = (home()?, python()?);
    let run = Run::from_dir(home.path())?
        .under([python.as_os_str(), "-c".as_ref(), AT_A_TERMINAL.as_ref()])
        .job([python.as_os_str(), "-c".as_ref(), JOB.as_ref()]);
    let outcome = run.finish()?;
    outcome.expect_code(17)?;
    assert!(outcome.stdout.contains("interrupts: 1"), "{}", outcome.stdout);
    assert_eq!(outcome.receipt()?["outcome"], "wiped");
    outcome.expect_nothing_left()
}

/// Under `nohup` a closed terminal is no reason to end, neither for us nor for the job.
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() -> Result<()> {
    let home = home()?;
    let run = Run::from_dir(home.path())?.under(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]);
    let held = Held::start(run)?;
    signal_pid(held.pid(), Signal::HUP)?;
    signal_pid(held.job(), Signal::HUP)?;
    fs::read(held.data().join("00000.bin"))?;
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped");
    Ok(())
}

/// At any moment between start and end: the process ends, and cache, mount and children are gone.
#[test]
fn a_signal_at_any_moment_leaves_nothing() -> Result<()> {
    let home = home()?;
    for delay in [0, 5, 20, 40, 80, 120, 200, 300, 500, 800] {
        let (mut process, scratch) = Run::from_dir(home.path())?.job(["sleep", "0.4"]).start()?;
        std::thread::sleep(Duration::from_millis(delay));
        let family = descendants(process.pid());
        let _ = process.signal(Signal::TERM);
        let status = process.wait()?;
        // Before anybody listens the signal has its ordinary effect.
        let by_signal = status.signal() == Some(15);
        let code = status.code().unwrap_or(-1);
        assert!(
            by_signal || [0, 143].contains(&code),
            "after {delay} ms: {status}\n{}",
            process.log()
        );
        nothing_left(&scratch)?;
        for pid in family {
            let words = tidegate_tests::process::command_line(pid);
            assert!(
                !words.iter().any(|word| word.ends_with("tidegate")),
                "{pid} still runs: {words:?}"
            );
        }
    }
    Ok(())
}
