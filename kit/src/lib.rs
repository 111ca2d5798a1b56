//! Shared input and output, a closed list: TLS, the state store, the ledger's log on it, key
//! files, telemetry, shutdown and clocks. Nothing of the domain is decided here.

pub mod clock;
pub mod keyfile;
pub mod ledger_log;
pub mod meters;
pub mod shutdown;
pub mod state;
pub mod telemetry;
pub mod tls;
