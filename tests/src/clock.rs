//! A wall clock that is some seconds off, for one program and all that it starts.
//!
//! A library that every program there loads first (`/etc/ld.so.preload`, in a mount namespace of its
//! own) adds the seconds to what the C library says. Monotonic and boot clocks run true. It works
//! for workers too, which inherit no environment.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::process::check;
use crate::scratch::Scratch;

const SOURCE: &str = "\
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME) time->tv_sec += OFFSET;
    return failed;
}
";

const ENTER: &str = "\
[ -d \"$0/etc\" ] || cp -a /etc \"$0/etc\"
echo \"$0/clock.so\" > \"$0/etc/ld.so.preload\"
mount --bind \"$0/etc\" /etc
exec \"$@\"";

/// What the words of [`off_by`] need as long as they are used.
pub type Kept = Arc<Scratch>;

/// Words that run a program with such a clock, in a mount namespace of its own.
pub fn off_by(seconds: i64) -> Result<(Vec<String>, Kept)> {
    let scratch = Scratch::new()?;
    let (source, library) = (scratch.join("clock.c"), scratch.join("clock.so"));
    fs::write(&source, SOURCE).context("cannot write the clock")?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", &format!("-DOFFSET={seconds}"), "-o"]);
    check(compile.arg(&library).arg(&source))?;
    let words = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-euc", ENTER];
    let mut words: Vec<_> = words.map(str::to_owned).into();
    words.push(scratch.path().display().to_string());
    Ok((words, Arc::new(scratch)))
}
