//! `tidegate audit show` of a result: which data made this?

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use tidegate_ledger::Digest;
use tidegate_plan::Shown;

use super::versions::{Fate, Place, Version, Versions};
use crate::stored::Stored;
use crate::{Usage, story};

/// Says all that is known of results of that name or hash; oldest first.
#[allow(clippy::print_stdout, reason = "the answer is this command's output")]
pub(super) fn show(stored: &Stored, what: &str, as_json: bool) -> Result<u8> {
    let versions = Versions::read(stored)?;
    let wanted = Wanted::of(what);
    let found: Vec<_> = versions.all.iter().filter(|version| wanted.is(version)).collect();
    if found.is_empty() {
        let erased = match versions.unknown {
            0 => String::new(),
            n => format!("; {n} documents that name results were erased or altered"),
        };
        let why =
            format!("`{what}` is neither a lease id nor an index, and no result is known by it");
        return Err(Usage(why + &erased).into());
    }
    let several = stored.volumes.len() > 1;
    for version in found {
        let asked = story::asked(stored, version.lease)?;
        if as_json {
            let mut document = serde_json::to_value(version)?;
            document["asked"] = serde_json::to_value(&asked)?;
            document["object"] = json!(object(version));
            println!("{document}");
        } else {
            print!("{}", page(version, asked.as_ref(), several));
        }
    }
    Ok(0)
}

/// What a result may be called.
struct Wanted {
    digest: Option<Digest>,
    /// Below any home, or with it.
    names: Vec<String>,
}

impl Wanted {
    fn of(what: &str) -> Self {
        let mut names = vec![what.to_owned()];
        if !what.contains("://") {
            let path = Path::new(what);
            let real = path.parent().zip(path.file_name()).and_then(|(parent, name)| {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Some(parent.canonicalize().ok()?.join(name))
            });
            let whole = [std::path::absolute(path).ok(), real];
            names.extend(
                whole
                    .into_iter()
                    .flatten()
                    .filter_map(|path| path.into_os_string().into_string().ok()),
            );
        }
        Self { digest: what.parse().ok(), names }
    }

    fn is(&self, version: &Version) -> bool {
        (self.digest.is_some() && version.blake3 == self.digest)
            || version.names.iter().any(|name| {
                self.names.contains(&name.path) || self.names.contains(&version.address(&name.path))
            })
    }
}

/// Its newest name, with the home.
fn object(version: &Version) -> String {
    version.names.last().map_or_else(String::new, |name| version.address(&name.path))
}

fn page(version: &Version, asked: Option<&story::Asked>, several: bool) -> String {
    let Version { names, bytes, blake3, lease, rank, snapshot, selection, image, fate, .. } =
        version;
    let place = |place: &Place| match several {
        true => format!("{} (entry {}:{})", place.time, place.ledger, place.entry),
        false => format!("{} (entry {})", place.time, place.entry),
    };
    let mut text = format!("{}\n", Shown(object(version).as_bytes()));
    let mut row = |name: &str, value: String| {
        text.push_str(&format!("  {name:<13}{value}\n"));
    };
    let first = &names[0].since;
    let verb = if matches!(fate, Fate::Lost(_)) { "written" } else { "stored" };
    row(verb, format!("{} by rank {rank} of lease {lease}", place(first)));
    row("bytes", bytes.to_string());
    row("BLAKE3", blake3.map_or_else(|| "(not recorded)".into(), |digest| digest.to_string()));
    if let Some(asked) = asked {
        row("asked by", asked.by.to_string());
        row("data", asked.source.to_string());
        row("which part", asked.which.clone());
    }
    row("snapshot", snapshot.to_string());
    row("selection", selection.to_string());
    row("image", image.clone().unwrap_or_else(|| "(not said)".into()));
    for pair in names.windows(2) {
        let from = Shown(pair[0].path.as_bytes());
        row("renamed", format!("{} from {from}", place(&pair[1].since)));
    }
    match fate {
        Fate::AtHome => row("since then", "neither overwritten nor removed by a lease".into()),
        Fate::Overwritten(at) => row("overwritten", place(at)),
        Fate::Removed(at) => row("removed", place(at)),
        Fate::Lost(at) => row("LOST", format!("{}: it did not come home", place(at))),
    }
    text
}
