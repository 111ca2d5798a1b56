//! Very many small files: what listing, cutting, attaching, finding and opening them costs, and how it
//! grows.

mod generated;
mod memory;
mod served;

use anyhow::Result;

use crate::report::Report;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Files of the directory and objects of the bucket, in thousands. A million takes 3 GB under
    /// `$TMPDIR`.
    #[arg(long, default_value_t = 1000)]
    thousands: u64,
    /// Files of the larger generated snapshot, in thousands; the smaller has a tenth. Ten million take
    /// 5 GB of memory.
    #[arg(long, default_value_t = 10_000)]
    generated_thousands: u64,
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    generated::measure(plan.generated_thousands * 1000, report)?;
    served::measure(plan.thousands, report)
}

/// Adds one figure that was taken once.
fn add(report: &mut Report, what: String, unit: &'static str, value: f64, bar: &'static str) {
    report.add(what, unit, vec![value], None, Vec::new(), bar);
}
