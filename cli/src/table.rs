//! What the gateway says of itself and its leases, in words on standard output.

use bytesize::ByteSize;
use serde_json::Value;
use tidegate_gateway::admin::Status;
use tidegate_gateway::{LeaseStatus, WorkerStatus};

use crate::story::when;

/// One document a line, as it came.
pub(crate) fn document(answer: &Value) {
    println!("{answer}");
}

/// One line a lease.
pub(crate) fn leases(leases: &[LeaseStatus]) {
    if leases.is_empty() {
        println!("no lease is known here");
        return;
    }
    println!(
        "{:<32}  {:<9}  {:<20}  {:>7}  {:>10}  {:>10}  DATASET",
        "LEASE", "PHASE", "DEADLINE", "WORKERS", "RELEASED", "SENT"
    );
    for lease in leases {
        println!(
            "{:<32}  {:<9}  {:<20}  {:>7}  {:>10}  {:>10}  {}",
            lease.lease.to_string(),
            lease.phase,
            when(lease.deadline),
            lease.workers.len(),
            ByteSize(lease.released_bytes).to_string(),
            ByteSize(lease.sent_bytes).to_string(),
            lease.dataset
        );
    }
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("{name:<14}{value}");
}

/// Everything about a lease.
pub(crate) fn lease(lease: &LeaseStatus) {
    row("lease", lease.lease);
    match &lease.ending {
        Some(ending) => {
            row("phase", format!("{} ({} {})", lease.phase, ending.cause, when(ending.at)));
        }
        None => row("phase", &lease.phase),
    }
    row("dataset", &lease.dataset);
    row("subject", &lease.subject);
    row("granted", when(lease.granted_at));
    row("deadline", when(lease.deadline));
    row("selection", format!("{} files, {}", lease.files, ByteSize(lease.bytes)));
    row("blocks", format!("{} in {} shares", lease.blocks, lease.ranks));
    let last = lease.last_release_at.map_or_else(String::new, |at| format!(", last {}", when(at)));
    row(
        "released",
        format!(
            "{} blocks, at most {}, in {} releases{last}",
            lease.released_blocks,
            ByteSize(lease.released_bytes),
            lease.releases
        ),
    );
    row("sent", format!("{} sealed, by this process", ByteSize(lease.sent_bytes)));
    row(
        "key",
        lease
            .key_destroyed_at
            .map_or_else(|| "held".into(), |at| format!("destroyed {}", when(at))),
    );
    row("revision", lease.revision);
    row("snapshot", lease.snapshot);
    lease.workers.iter().for_each(worker);
}

fn worker(worker: &WorkerStatus) {
    let WorkerStatus { rank, attached_at, last_seen, counters, .. } = worker;
    let keeper = worker.keeper.as_deref().map(short).unwrap_or("none");
    let wiped = if worker.wiped { ", wiped" } else { "" };
    row(
        "worker",
        format!(
            "rank {rank}{wiped}: attached {}, last heard {} by {keeper}; {} blocks resident, {} read, {} errors; \
             keys of {} blocks",
            when(*attached_at),
            when(*last_seen),
            counters.resident,
            ByteSize(counters.bytes_read),
            counters.read_errors,
            worker.released_blocks
        ),
    );
}

/// The gateway at this moment.
pub(crate) fn status(status: &Status) {
    row("version", &status.version);
    row("time", when(status.time));
    row("replica", format!("{}, state in a {}", short(&status.replica), status.state));
    row("gateways", status.gateways.join(" "));
    row("leases", format!("{} open of at most {}", status.open_leases, status.most_leases));
    row("workers", status.workers);
    row("released", format!("at most {}", ByteSize(status.released_bytes)));
    row("sent", format!("{} sealed, by this process", ByteSize(status.sent_bytes)));
    row("buffers", format!("{} of {}", ByteSize(status.buffers), ByteSize(status.most_buffers)));
    row("strangers", format!("{} requests refused since the start", status.strangers));
    row(
        "ledger",
        format!("{} entries, newest {}", status.ledger.entries, when(status.ledger.time)),
    );
    row("ledger key", &status.ledger.key);
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
