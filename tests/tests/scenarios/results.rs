//! P7: what a job writes is at home before it counts as written, whole or not at all, and never in clear
//! on the worker's disk.

mod budget;
pub(crate) mod cut;
mod ends;
pub(crate) mod long;
pub(crate) mod provenance;
pub(crate) mod resumed;
pub(crate) mod semantics;
mod spool;
pub(crate) mod storm;
mod telling;
pub(crate) mod writers;
