//! The worker: sealed blocks in, a read-only file tree out, results home, and nothing left behind.
//!
//! Two processes share this crate. The *holder* ([`holder`], [`supervisor`]) mounts, answers the
//! kernel's first request, keeps the `/dev/fuse` descriptors and starts the *worker* ([`worker`]),
//! which alone has keys. A byte's way in the worker: `client` (TLS) → `store` (sealed block on disk)
//! → `blocks` (open, schedule) → `fs` (operations over the manifest, `tree`) → `fuse` (reply). What
//! each operation does is written in `docs/semantics.md`.

pub mod blocks;
pub mod budget;
pub mod client;
mod control;
mod errno;
pub mod facts;
mod fs;
mod fuse;
pub mod holder;
pub mod keys;
pub mod life;
pub mod meters;
mod readmode;
mod results;
pub mod schedule;
pub mod store;
pub mod supervisor;
mod tree;
pub mod worker;

pub use control::{FailureCode, Figures, Progress, Ready, ReadyResults, ResultsProgress};
