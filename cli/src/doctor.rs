//! `tidegate doctor`: what this machine lacks, and what each lack costs.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rustix::process::Resource;
use serde::Serialize;
use tidegate_fuse_cache::facts;

use crate::args::DoctorArgs;
use crate::{exit, paths};

/// How a finding bears on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grade {
    Good,
    /// Works without; slower or weaker, as `cost` says.
    Lacking,
    /// `run` and `mount` cannot work.
    Missing,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) subject: &'static str,
    pub(crate) grade: Grade,
    pub(crate) seen: String,
    /// What the lack costs, and what to do; empty when good.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) cost: &'static str,
}

#[allow(clippy::print_stdout, reason = "the findings are this command's output")]
pub(crate) fn main(args: DoctorArgs, json: bool) -> Result<u8> {
    let findings = examine(&paths::cache(args.cache.cache)?);
    for finding in &findings {
        if json {
            println!("{}", serde_json::to_string(finding)?);
            continue;
        }
        let mark = match finding.grade {
            Grade::Good => "ok     ",
            Grade::Lacking => "lacking",
            Grade::Missing => "MISSING",
        };
        println!("{mark}  {}: {}", finding.subject, finding.seen);
        if !finding.cost.is_empty() {
            println!("         {}", finding.cost);
        }
    }
    let missing = findings.iter().any(|finding| finding.grade == Grade::Missing);
    Ok(if missing { exit::FAULT_FOUND } else { 0 })
}

/// Examines kernel, FUSE device, namespaces, swap, core pattern, memory hygiene and the cache's disk.
pub(crate) fn examine(cache: &Path) -> Vec<Finding> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = kernel_version(&kernel);
    let needs = |subject, least: (u32, u32), cost| Finding {
        subject,
        grade: if version >= least { Grade::Good } else { Grade::Lacking },
        seen: format!("kernel {kernel}"),
        cost: if version >= least { "" } else { cost },
    };
    vec![
        fuse_device(),
        namespaces(),
        needs(
            "requests re-sent after a worker's death (kernel 6.9)",
            (6, 9),
            "a killed worker ends the mount: reads under way fail with ENOTCONN and the command must be run again",
        ),
        needs(
            "shared mmap of large files (kernel 6.6)",
            (6, 6),
            "MAP_SHARED of files over 1 MiB fails with ENODEV; MAP_PRIVATE works",
        ),
        needs(
            "tmpfs without swap (kernel 6.4)",
            (6, 4),
            "nothing here uses it yet; the plaintext pool will be off",
        ),
        swap(&facts::swap()),
        locked_memory(rustix::process::getrlimit(Resource::Memlock).current),
        core_pattern(&facts::core_pattern()),
        init_on_free(&read("/proc/cmdline")),
        disk(cache),
    ]
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn fuse_device() -> Finding {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let (grade, seen, cost) = match opened {
        Ok(_) => (Grade::Good, "/dev/fuse opens".to_owned(), ""),
        Err(error) => (
            Grade::Missing,
            format!("/dev/fuse: {error}"),
            "nothing can be mounted; load the module (modprobe fuse), pass --device /dev/fuse to the container, \
             or have it opened to users (chmod 666)",
        ),
    };
    Finding { subject: "FUSE device", grade, seen, cost }
}

fn namespaces() -> Finding {
    let root = rustix::process::geteuid().is_root();
    let limit: u64 = read("/proc/sys/user/max_user_namespaces").trim().parse().unwrap_or(0);
    let allowed = read("/proc/sys/kernel/unprivileged_userns_clone").trim() != "0" && limit > 0;
    let good = root || allowed;
    Finding {
        subject: "private mount namespace",
        grade: if good { Grade::Good } else { Grade::Missing },
        seen: match (root, allowed) {
            (true, _) => "running as root".into(),
            (false, true) => format!("user namespaces allowed ({limit})"),
            (false, false) => "not root, and user namespaces are off".into(),
        },
        cost: if good {
            ""
        } else {
            "`run` needs root, or sysctl user.max_user_namespaces above 0"
        },
    }
}

fn swap(areas: &[String]) -> Finding {
    let persistent = areas.iter().any(|area| !area.starts_with("/dev/zram"));
    Finding {
        subject: "swap",
        grade: if persistent { Grade::Lacking } else { Grade::Good },
        seen: if areas.is_empty() { "none".into() } else { areas.join(", ") },
        cost: if persistent {
            "the job's own memory can reach this disk in clear; swapoff -a, or encrypt it. The certificate names it"
        } else {
            ""
        },
    }
}

/// What the worker locks at most as long as it may not lock everything: its buffers and the names.
const LOCKED: u64 = 64 << 20;

fn locked_memory(limit: Option<u64>) -> Finding {
    let all = rustix::process::geteuid().is_root();
    let good = all || limit.is_none_or(|limit| limit >= LOCKED);
    Finding {
        subject: "locked memory",
        grade: if good { Grade::Good } else { Grade::Lacking },
        seen: match limit {
            _ if all => "running as root: the worker locks all of its memory".into(),
            Some(limit) => format!("at most {}", bytesize::ByteSize(limit)),
            None => "no limit".into(),
        },
        cost: if good {
            ""
        } else {
            "the worker locks its plaintext buffers first and then the names, as far as this reaches; the rest can \
             be swapped. ulimit -l 65536, or no swap"
        },
    }
}

fn core_pattern(pattern: &str) -> Finding {
    let stores = !pattern.is_empty() && pattern != "|/bin/false";
    Finding {
        subject: "core pattern",
        grade: if stores { Grade::Lacking } else { Grade::Good },
        seen: if pattern.is_empty() { "empty".into() } else { pattern.into() },
        cost: if stores {
            "Tidegate's processes never dump, but a crash of the job may write its memory to disk; \
             sysctl kernel.core_pattern='|/bin/false'. The certificate names it"
        } else {
            ""
        },
    }
}

fn init_on_free(cmdline: &str) -> Finding {
    let on = cmdline.split_whitespace().any(|word| word == "init_on_free=1");
    Finding {
        subject: "memory zeroed when freed",
        grade: if on { Grade::Good } else { Grade::Lacking },
        seen: if on { "init_on_free=1".into() } else { "init_on_free is off".into() },
        cost: if on {
            ""
        } else {
            "freed page-cache pages keep plaintext until reused; boot with init_on_free=1"
        },
    }
}

fn disk(cache: &Path) -> Finding {
    // The cache directory may not exist yet; its nearest ancestor stands on the same disk.
    let existing = cache.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
            let seen = format!("{}: {} free", existing.display(), bytesize::ByteSize(free));
            let (grade, cost) = if read_only {
                (
                    Grade::Missing,
                    "the cache's file system is read-only; choose another with --cache",
                )
            } else if free < 1 << 30 {
                (
                    Grade::Lacking,
                    "under 1 GiB for the cache: blocks will be fetched again and again",
                )
            } else {
                (Grade::Good, "")
            };
            Finding { subject: "cache disk", grade, seen, cost }
        }
        Err(error) => Finding {
            subject: "cache disk",
            grade: Grade::Missing,
            seen: format!("{}: {error}", existing.display()),
            cost: "choose a directory that exists with --cache",
        },
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::NodeFacts;

    use super::*;

    #[test]
    fn lacks_are_recognised() {
        assert_eq!(kernel_version("6.18.44-fc"), (6, 18));
        assert_eq!(kernel_version("5.15.0-101-generic"), (5, 15));
        for (area, grade) in [
            ("/dev/sda2", Grade::Lacking),
            ("/dev/zram0", Grade::Good),
            (NodeFacts::UNKNOWN, Grade::Lacking),
        ] {
            assert_eq!(swap(&[area.to_owned()]).grade, grade, "{area}");
        }
        assert_eq!(swap(&[]).grade, Grade::Good);
        assert_eq!(core_pattern("core").grade, Grade::Lacking);
        assert_eq!(core_pattern("|/bin/false").grade, Grade::Good);
        assert_eq!(locked_memory(None).grade, Grade::Good);
        assert_eq!(init_on_free("quiet init_on_free=1").grade, Grade::Good);
    }
}
