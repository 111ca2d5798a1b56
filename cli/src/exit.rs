//! Exit codes, as `--help` documents them.

/// `audit verify` found a fault, or `doctor` something missing.
pub(crate) const FAULT_FOUND: u8 = 1;
/// Wrong arguments, selection, mount point or config file (clap's own code too).
pub(crate) const USAGE: u8 = 2;
/// The command ended well, but not all that it wrote came home.
pub(crate) const RESULTS_LOST: u8 = 122;
/// The command ended well, but the wipe could not be certified or its receipt not be written.
pub(crate) const NOT_CERTIFIED: u8 = 123;
/// The lease ended or no gateway was heard while the data was in use; the command was ended.
pub(crate) const LEASE_LOST: u8 = 124;
/// Tidegate failed before the command could run, or had none to run.
pub(crate) const TIDEGATE_FAILED: u8 = 125;
pub(crate) const COMMAND_NOT_EXECUTABLE: u8 = 126;
pub(crate) const COMMAND_NOT_FOUND: u8 = 127;
