//! Where things lie when nobody said so (XDG base directories).

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// State and ledger: `$XDG_STATE_HOME/tidegate`, else `~/.local/state/tidegate`.
pub(crate) fn state(given: Option<PathBuf>) -> Result<PathBuf> {
    given.map_or_else(|| xdg("XDG_STATE_HOME", ".local/state", "--ledger"), Ok)
}

/// The sealed cache: `$XDG_CACHE_HOME/tidegate`, else `~/.cache/tidegate`.
pub(crate) fn cache(given: Option<PathBuf>) -> Result<PathBuf> {
    given.map_or_else(|| xdg("XDG_CACHE_HOME", ".cache", "--cache"), Ok)
}

fn xdg(variable: &str, below_home: &str, flag: &str) -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set(variable)
        .or_else(|| set("HOME").map(|home| home.join(below_home)))
        .map(|base| base.join("tidegate"))
        .with_context(|| {
            format!("neither {variable} nor HOME is set; name a directory with {flag}")
        })
}
