//! What a listing yields, whatever it lists.

use tidegate_plan::{Entry, Unshown};

/// Everything found at a source; in no order.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) unshown: Vec<Unshown>,
}

impl Found {
    /// Reports by name what a directory tree cannot show.
    pub(super) fn cannot_show(&mut self, name: &[u8], reason: impl Into<String>) {
        self.unshown.push(Unshown { name: Box::from(name), reason: reason.into() });
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.unshown.extend(other.unshown);
    }
}
