//! The gateway: reads a source at home, grants leases on it, and serves sealed blocks to workers
//! that hold one.
//!
//! * [`source`] lists and reads; `survey` selects and cuts; [`pipeline`] reads and seals.
//! * A lease is a numbered history of documents in the state, changed in one place
//!   (`office`), with its key in the `keyring` and its entries in the `record`.
//! * `bringing` takes what workers bring home; `results` is where and how it lies there.
//! * Workers come through `server` (TLS, bounds) and `service` (routes) to `admission`, which asks of
//!   each request who is calling and whether the lease still lives.
//! * Order is the promise: an attachment is a revision, then an entry, then an answer; keys leave
//!   after their entry is durable; at the end a revision stops every replica, then the keys die, then
//!   the certificate is written.
//!
//! [`Gateway`] runs all of it, inside another program or as a daemon with an [`admin`] socket.

pub mod admin;
pub mod config;
pub mod pipeline;
pub mod source;

mod admission;
mod attaching;
mod book;
mod bringing;
mod certificates;
mod certifying;
mod closing;
mod gateway;
mod granting;
mod heard;
mod json;
mod keepers;
mod kept;
mod keyring;
mod live;
mod lobby;
mod lookups;
mod losses;
pub mod meters;
mod nodes;
mod nonce;
mod office;
mod openapi;
mod ops;
mod owed;
mod pace;
mod premises;
mod problem;
mod rate;
mod reaper;
mod record;
mod recovery;
mod refusals;
mod releasing;
mod restoring;
mod results;
mod seats;
mod server;
mod service;
mod serving;
mod shelf;
#[cfg(test)]
mod sim;
pub mod state;
mod status;
mod stop;
mod survey;
mod tokens;
mod waking;
mod wiping;

pub use book::BookError;
pub use bringing::HomeRefused;
pub use closing::{CloseError, Closed};
pub use config::{
    Allowed, ConfigError, GatewayConfig, Inadmissible, Limits, LogConfig, ResultsConfig,
    SourcesConfig,
};
pub use gateway::Gateway;
pub use granting::{GrantError, GrantRequest, Granted, ResultsRequest};
pub use keyring::KeyringError;
pub use nodes::NodePolicy;
pub use office::AdvanceError;
pub use premises::StartError;
pub use record::RecordError;
pub use recovery::RecoveryError;
pub use restoring::{Restore, RestoreError, Restored};
pub use shelf::CutError;
pub use status::{LeaseEnding, LeaseStatus, WorkerStatus};
pub use survey::SurveyError;
