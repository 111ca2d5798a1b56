//! Generated listings through the real snapshot, selection, layout and manifest, in this process.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tidegate_plan::{
    Entry, Kind, Layout, Manifest, RelPath, Selection, SelectionSpec, Snapshot, Timestamp, Version,
    build_manifest,
};
use tidegate_tests::dataset::Dice;
use tidegate_tests::many::Many;

use super::{add, memory};
use crate::report::Report;

const EACH: u64 = 1000;
const LOOKUPS: u64 = 1_000_000;

/// What so many files cost, a file.
struct Costs {
    seconds: Vec<(&'static str, f64)>,
    bytes: Vec<(&'static str, f64, &'static str)>,
    lookup: f64,
}

pub(super) fn measure(files: u64, report: &mut Report) -> Result<()> {
    let tenth = costs(files / 10)?;
    let all = costs(files)?;
    let millions = files as f64 / 1e6;
    for ((what, small), (_, large)) in tenth.seconds.iter().zip(&all.seconds) {
        let name = format!("generated, {millions} M files: {what}");
        add(report, name, "s", large * files as f64, "–");
        add(
            report,
            format!("growth of that, ten times the files: {what}"),
            "×",
            large / small,
            "~ 1",
        );
    }
    for ((what, small, _), (_, large, bar)) in tenth.bytes.iter().zip(&all.bytes) {
        add(report, format!("generated, {millions} M files: {what}"), "B a file", *large, bar);
        add(
            report,
            format!("growth of that, ten times the files: {what}"),
            "×",
            large / small,
            "~ 1",
        );
    }
    let name = format!("generated, {millions} M files: look-ups by path, two names each");
    add(report, name, "a second", 1.0 / all.lookup, "–");
    Ok(())
}

/// Directories and files in no order, as threads find them.
fn listing(many: Many) -> Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(usize::try_from(many.files())?);
    let stride = 7919; // prime, so that every number comes once
    for place in 0..many.files() {
        let n = place * stride % many.files();
        let time = Timestamp { secs: 1_700_000_000, nanos: 5 };
        entries.push(Entry {
            path: RelPath::new(many.name(n))?,
            kind: Kind::File,
            size: n % 200,
            mode: 0o644,
            mtime: time,
            version: Version::Inode { dev: 1, ino: n, ctime: time },
        });
    }
    Ok(entries)
}

fn costs(files: u64) -> Result<Costs> {
    let many = Many { dirs: files / EACH, each: EACH };
    let listed = listing(many)?;
    let mut seconds = Vec::new();
    let each = many.files() as f64;
    let mut timed =
        |what, start: Instant| seconds.push((what, start.elapsed().as_secs_f64() / each));
    memory::forget_peak()?;
    let before = memory::peak()?;

    let start = Instant::now();
    let snapshot = Snapshot::build("generated".into(), listed, Vec::new());
    timed("a listing becomes a snapshot", start);
    let peak = (memory::peak()? - before) / each;
    let start = Instant::now();
    let selection = Selection::resolve(&snapshot, &SelectionSpec::default())?;
    let layout = Layout::build(&snapshot, &selection, 1)?;
    timed("everything selected and cut", start);
    let start = Instant::now();
    let manifest = build_manifest(&snapshot, &selection, &layout, 0);
    timed("manifest built", start);
    let start = Instant::now();
    let manifest = Manifest::parse(manifest).context("our own manifest")?;
    timed("manifest checked", start);
    let bytes = snapshot.as_bytes().to_vec();
    let start = Instant::now();
    let again = Snapshot::from_bytes(bytes).context("our own snapshot")?;
    timed("a stored snapshot checked", start);

    let mut dice = Dice::new(1);
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        let name = many.name(dice.below(many.files()));
        let found = name.split('/').try_fold(0, |dir, name| manifest.lookup(dir, name.as_bytes()));
        found.context("a name is not found")?;
    }
    let lookup = start.elapsed().as_secs_f64() / LOOKUPS as f64;

    let names: usize = (0..manifest.len()).map(|i| manifest.record(i).name.len()).sum();
    let beyond = |len: usize| (len - names) as f64 / each;
    let manifest_len =
        tidegate_plan::Estimate::of_lease(&snapshot, &selection, &layout).manifest_bytes;
    let cut = selection.files().len() * 4 + selection.dirs().len() * 4 + layout.blocks().len() * 24;
    let bytes = vec![
        ("manifest beyond names", beyond(usize::try_from(manifest_len)?), "≤ 64"),
        ("snapshot beyond names", beyond(again.as_bytes().len()), "–"),
        ("selection and layout", cut as f64 / each, "–"),
        ("peak beside the listing while it becomes a snapshot", peak, "–"),
    ];
    Ok(Costs { seconds, bytes, lookup })
}
