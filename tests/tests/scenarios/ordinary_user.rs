//! The main job as an ordinary user, where `/dev/fuse` is open to users: in a namespace that makes it so.

use std::process::Command;

use anyhow::Result;
use tidegate_tests::dataset;
use tidegate_tests::part;
use tidegate_tests::process::check;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

const USER: &str = "65534";

#[test]
fn a_user_without_rights_stages_reads_and_wipes() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 5, 300_000, 80)?;
    check(Command::new("chmod").args(["-R", "a+rX"]).arg(home.path()))?;
    let run = Run::from_dir(home.path())?;
    // Where the build lies the user may not look.
    let program = run.scratch().join("tidegate");
    std::fs::copy(part::tidegate()?, &program)?;
    check(Command::new("chown").args(["-R", USER]).arg(run.scratch().path()))?;
    let open = "mknod \"$0\" c 10 229; chmod 666 \"$0\"; mount --bind \"$0\" /dev/fuse; shift; \
                exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs -- \"$@\"";
    let device = run.scratch().join("fuse");
    let run = run
        .under(["unshare", "--mount", "--propagation", "slave", "sh", "-euc", open])
        .under([device.as_os_str(), "skip".as_ref(), program.as_os_str()])
        .program_in_wrapper();
    // The worker may not lock all of its memory; its buffers it does.
    let script = "id -u; cat \"$TIDEGATE_DATA\"/*.bin | wc -c; \
                  for p in /proc/[0-9]*; do \
                    grep -qx \"PPid:.$PPID\" $p/status || continue; \
                    tr '\\0' '\\n' < $p/cmdline | sed -n 2p | grep -qx worker \
                      && grep VmLck $p/status; \
                  done | awk '{ print ($2 > 0) }'";
    let outcome = run.shell(script).succeed()?;
    assert_eq!(outcome.stdout, format!("{USER}\n1500000\n1\n"));
    assert_eq!(outcome.receipt()?["outcome"], "wiped");
    assert!(std::fs::read_dir(outcome.cache())?.next().is_none());
    Ok(())
}
