//! P7: what a job writes is at home before it counts as written, whole or not at all, and never in clear
//! on the worker's disk.

mod budget;
mod cut;
mod ends;
pub(crate) mod long;
pub(crate) mod provenance;
mod resumed;
mod sealed;
pub(crate) mod semantics;
mod spool;
mod storm;
mod telling;
pub(crate) mod writers;
