//! `tidegate plan`: lists the source and says what would leave. Reads no content, moves nothing.

use anyhow::Result;
use bytesize::ByteSize;
use serde::Serialize;
use tidegate_gateway::source::Source;
use tidegate_plan::{Estimate, Layout, Selection, Shown, SnapshotId};

use crate::args::PlanArgs;
use crate::{Usage, source};

#[derive(Debug, Serialize)]
struct Plan {
    source: String,
    snapshot: SnapshotId,
    files: u64,
    symlinks: u64,
    dirs: u64,
    bytes: u64,
    blocks: u64,
    /// What would cross the link, in bytes.
    sealed_bytes: u64,
    /// Memory the worker holds for names, in bytes, apart from its buffers.
    manifest_bytes: u64,
    /// Memory the gateway holds for the listing, in bytes, once for all leases on it.
    snapshot_bytes: usize,
    minutes: f64,
    unshown: Vec<(String, String)>,
}

pub(crate) fn main(args: PlanArgs, json: bool) -> Result<u8> {
    let spec = source::source(&args.source)?;
    let selection = source::selection(&args.source)?;
    let (rank, ranks) = source::rank(&args.source);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let name = spec.to_string();
    let snapshot = runtime.block_on(async { Source::open(spec).await?.snapshot().await })?;
    let selection =
        Selection::resolve(&snapshot, &selection).map_err(|error| Usage(error.to_string()))?;
    let layout = Layout::build(&snapshot, &selection, ranks)?;
    let estimate = match args.source.rank {
        Some(_) => Estimate::of_share(&snapshot, &selection, &layout, rank),
        None => Estimate::of_lease(&snapshot, &selection, &layout),
    };
    let wire = estimate.sealed_bytes + estimate.manifest_bytes;
    let plan = Plan {
        source: name,
        snapshot: snapshot.id(),
        files: estimate.files,
        symlinks: estimate.symlinks,
        dirs: estimate.dirs,
        bytes: estimate.bytes,
        blocks: estimate.blocks,
        sealed_bytes: estimate.sealed_bytes,
        manifest_bytes: estimate.manifest_bytes,
        snapshot_bytes: snapshot.as_bytes().len(),
        minutes: wire as f64 / args.rate.0 as f64 / 60.0,
        unshown: snapshot
            .unshown()
            .iter()
            .map(|u| (String::from_utf8_lossy(&u.name).into_owned(), u.reason.clone()))
            .collect(),
    };
    tell(&plan, json)?;
    Ok(0)
}

#[allow(clippy::print_stdout, reason = "the plan is this command's output")]
fn tell(plan: &Plan, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(plan)?);
        return Ok(());
    }
    println!("source      {}", plan.source);
    println!("snapshot    {}", plan.snapshot);
    println!("files       {} ({} links, {} directories)", plan.files, plan.symlinks, plan.dirs);
    println!("bytes       {} ({})", plan.bytes, ByteSize(plan.bytes));
    println!("blocks      {}, {} sealed", plan.blocks, ByteSize(plan.sealed_bytes));
    println!("names       {} in the worker's memory", ByteSize(plan.manifest_bytes));
    println!("listing     {} in the gateway's memory", ByteSize(plan.snapshot_bytes as u64));
    println!("minutes     {:.1} at the given rate", plan.minutes);
    for (name, reason) in &plan.unshown {
        println!("not shown   {}: {reason}", Shown(name.as_bytes()));
    }
    Ok(())
}
