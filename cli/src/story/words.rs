//! Times, sizes, facts and reasons in words.

use bytesize::ByteSize;
use tidegate_ledger::{Action, Cause, ResultsAct};
use tidegate_wire::NodeFacts;

/// UTC in RFC 3339.
pub(crate) fn when(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s).ok())
        .map_or_else(|| format!("{seconds} s after the epoch"), |t| t.to_string())
}

pub(super) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

/// `12.3 MiB (12897485 bytes)`.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        plural(bytes, "byte")
    } else {
        format!("{} ({bytes} bytes)", ByteSize(bytes))
    }
}

/// `1 file`, `2 files`.
pub(super) fn plural(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

pub(super) const fn act(action: Action) -> &'static str {
    match action {
        Action::Drain => "asked for the orderly end of",
        Action::Restore => "restored",
        Action::Revoke => "took away",
        Action::Void => "destroyed the key of",
        _ => "acted on",
    }
}

/// What became of results.
pub(super) fn results(act: ResultsAct, files: u64, bytes: u64) -> String {
    let files = plural(files, "result");
    match act {
        ResultsAct::Stored => format!("{files} with {} came home", size(bytes)),
        ResultsAct::Renamed => format!("{files} took other names at home"),
        ResultsAct::Removed => format!("{files} taken away at home"),
        ResultsAct::Read => format!("{files} that lay at home given to the worker to read"),
        ResultsAct::Lost => format!("{files} LOST: written and not brought home"),
        _ => format!("something happened to {files}"),
    }
}

/// Why a lease ended, to follow how.
pub(super) const fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::Abandoned => {
            ", because its gateway could not serve it any longer or its user gave it up"
        }
        Cause::Drained => ", because the job was done or was asked to finish",
        Cause::Expired => ", because its deadline had come",
        Cause::Revoked => ", because an administrator took it away",
        Cause::Vanished => ", because a worker was not heard any more",
        _ => "",
    }
}

/// Blocks `first..end` as people count them, from 0 and with both ends.
pub(super) fn blocks(ranges: &[(u32, u32)]) -> String {
    let one = |(first, end): &(u32, u32)| match end.saturating_sub(*first) {
        0 => "no block".to_owned(),
        1 => format!("block {first}"),
        _ => format!("blocks {first} to {}", end - 1),
    };
    if ranges.is_empty() { "no block".to_owned() } else { list(ranges.iter().map(one)) }
}

pub(super) fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Why somebody was turned away, from the gateway's word for it.
pub(super) fn reason(word: &str) -> String {
    let said = match word {
        "fenced" => "another worker had taken its place",
        "foreign-lease" => "its certificate was of this lease, and it asked for another",
        "lease-over" => "the lease was over",
        "node" => "its machine is of a kind that the gateway's policy does not allow",
        "outside-share" => "it asked for blocks outside its share",
        "results-budget" => "it had brought home all the results that it may",
        "results-no-space" => "there was no room at home for its results",
        "statement" => "its statement of a wipe did not hold",
        "window-too-wide" => "it asked for more keys at once than the policy hands out",
        "token-bound" => "the join token was used by another worker before",
        other => return format!("({other})"),
    };
    said.to_owned()
}

/// What a node does about swap that outlives a restart; compressed memory does not.
pub(super) fn swaps(swap: &[String]) -> Option<String> {
    let areas = swap.iter().filter(|area| !area.starts_with("/dev/zram")).map(String::as_str);
    match areas.collect::<Vec<_>>().as_slice() {
        [] => None,
        [NodeFacts::UNKNOWN] => Some("could not see whether it swaps".into()),
        areas => Some(format!("swaps to {}", areas.join(", "))),
    }
}

/// What a node does about images of crashed processes, unless it keeps none.
pub(super) fn keeps_cores(pattern: &str) -> Option<String> {
    match pattern.trim() {
        "" | "|/bin/false" | "|/bin/true" => None,
        NodeFacts::UNKNOWN => {
            Some("could not see whether it keeps images of crashed programs".into())
        }
        pattern => Some(format!("keeps images of crashed programs ({pattern})")),
    }
}

/// What the node said of itself, as far as it bears on what can be left behind there.
pub(super) fn node(facts: &NodeFacts) -> String {
    let parts = [
        format!("host {}, Linux {}", facts.host, facts.kernel),
        swaps(&facts.swap).unwrap_or_else(|| "no swap on a disk".into()),
        keeps_cores(&facts.core_pattern)
            .unwrap_or_else(|| "keeps no images of crashed programs".into()),
        if facts.core_dumps_off {
            "the worker itself never leaves one".into()
        } else {
            "the worker itself may leave one".into()
        },
        if facts.init_on_free {
            "freed memory is overwritten by the kernel".into()
        } else {
            "freed memory is not overwritten by the kernel".into()
        },
        format!("the sealed cache lies on {}", facts.cache_fs),
    ];
    list(parts.into_iter())
}
