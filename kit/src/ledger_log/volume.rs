//! Where a ledger lies: the first in `ledger/`, the one that followed the n-th restore in
//! `ledger/<n + 1>/`. Documents and certificates, named by their content, lie together.

use std::path::{Path, PathBuf};

use tidegate_ledger::batch_name;

use crate::state::{StateError, StateStore};

/// The folder of everything that an offline verifier needs.
const ROOT: &str = "ledger";

/// The number of a ledger in a state, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Volume(u32);

impl Volume {
    /// The one that is written now.
    pub(super) async fn newest(store: &StateStore) -> Result<Self, StateError> {
        let names = store.directories(ROOT).await?;
        Ok(names.iter().filter_map(|name| Self::named(name)).max().unwrap_or(Self(1)))
    }

    /// The newest that has entries: one that a restore has only begun has none. The first when none has.
    pub(super) async fn newest_written(store: &StateStore) -> Result<Self, StateError> {
        let mut volume = Self::newest(store).await?;
        while !volume.is_written(store).await? && volume.0 > 1 {
            volume = Self(volume.0 - 1);
        }
        Ok(volume)
    }

    /// Whether there is anything in it.
    pub(super) async fn is_written(self, store: &StateStore) -> Result<bool, StateError> {
        Ok(!store.list(&self.batches()).await?.is_empty())
    }

    /// Whether it is one that a restore opens.
    pub(super) const fn follows_another(self) -> bool {
        self.0 > 1
    }

    /// Of a folder's name; the first has no folder of its own.
    pub(super) fn named(name: &str) -> Option<Self> {
        let number: u32 = name.parse().ok()?;
        (number > 1 && number.to_string() == name).then_some(Self(number))
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn folder(self) -> String {
        if self.0 == 1 { ROOT.to_owned() } else { format!("{ROOT}/{}", self.0) }
    }

    pub(super) fn batches(self) -> String {
        format!("{}/batches", self.folder())
    }

    pub(super) fn batch(self, first: u64) -> String {
        format!("{}/{}", self.batches(), batch_name(first))
    }

    /// The first verifier key, so that a copied ledger can be checked offline.
    pub(super) fn verifier(self) -> String {
        format!("{}/ledger.pub", self.folder())
    }

    /// The signing key, beside that of the first ledger: `ledger.key`, `ledger-2.key`.
    pub(super) fn key_file(self, first: &Path) -> PathBuf {
        if self.0 == 1 {
            return first.to_owned();
        }
        let stem = first.file_stem().unwrap_or_default().to_string_lossy();
        first.with_file_name(format!("{stem}-{}.key", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_above_one_are_folders_of_ledgers() {
        for name in ["1", "02", "+2", "0", "batches", "-2", "2x"] {
            assert_eq!(Volume::named(name), None, "{name}");
        }
        let second = Volume::named("2").unwrap();
        assert_eq!(second, Volume(1).next());
        assert_eq!(second.batch(7), "ledger/2/batches/00000000000000000007");
        assert_eq!(Volume(1).verifier(), "ledger/ledger.pub");
        assert_eq!(second.key_file(Path::new("/s/ledger.key")), Path::new("/s/ledger-2.key"));
    }
}
