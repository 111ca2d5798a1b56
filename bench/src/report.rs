//! The table.

use crate::spread::Spread;

#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// One measured line beside its reference. `bar` is what the project asks of itself.
#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    ours: Spread,
    reference: Option<(&'static str, Spread)>,
    cpu_per_gib: Option<Spread>,
    bar: &'static str,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        reference: Option<(&'static str, Vec<f64>)>,
        cpu_per_gib: Vec<f64>,
        bar: &'static str,
    ) {
        let Some(ours) = Spread::of(ours) else { return };
        let reference = reference.and_then(|(name, v)| Some((name, Spread::of(v)?)));
        let what = what.into();
        eprintln!("  {what}: {ours} {unit}");
        self.rows.push(Row {
            what,
            unit,
            ours,
            reference,
            cpu_per_gib: Spread::of(cpu_per_gib),
            bar,
        });
    }

    #[allow(clippy::print_stdout, reason = "the table is this program's output")]
    pub(crate) fn print(&self) {
        println!("| what | ours | reference | ratio | CPU-s/GiB | bar |");
        println!("|---|---|---|---|---|---|");
        for row in &self.rows {
            let (reference, ratio) = match &row.reference {
                Some((name, r)) => {
                    (format!("{name}: {r}"), format!("{:.3}", row.ours.median / r.median))
                }
                None => ("–".into(), "–".into()),
            };
            let cpu = row.cpu_per_gib.map_or_else(|| "–".into(), |c| c.to_string());
            println!(
                "| {} | {} {} | {reference} | {ratio} | {cpu} | {} |",
                row.what, row.ours, row.unit, row.bar
            );
        }
    }
}
