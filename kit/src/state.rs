//! State as small objects, each created if absent and never replaced.
//!
//! [`StateStore`] is the one conditional write everything rests on: create-if-absent, durable
//! before it answers. [`Revisions`] makes compare-and-swap of it: the numbered revisions of a
//! document, where creating number n + 1 is the swap.

mod probe;
mod revisions;
mod store;

pub use revisions::{Revision, Revisions};
pub use store::{Creation, StateError, StateStore};
