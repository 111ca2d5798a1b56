//! How much of everything there may be.

use serde::Deserialize;
use tidegate_plan::BLOCK_MAX;

/// Longest lease anybody may ask for: 30 days.
const MAX_LEASE_S: u64 = 30 * 24 * 3600;
/// Buffers of the pipeline: 64 blocks in flight.
const BUFFERS: u64 = 256 << 20;
/// Listings and selections of open leases: some 50 million files.
const SNAPSHOTS: u64 = 4 << 30;
/// Connections of workers that showed a certificate.
const CONNECTIONS: usize = 1024;
/// Connections of callers without a certificate, and handshakes under way.
const STRANGERS: usize = 128;
/// Leases open at once in one gateway.
const LEASES: usize = 4096;
/// Ranks of one lease: each revision of a lease has some 2.5 KiB for each rank that is attached, and each
/// rank makes revisions, so what a lease writes grows with the square of its ranks.
const RANKS: u16 = 256;
/// Plaintext whose keys one release may hand out: at 10 Gbit/s a worker fetches it in a quarter of a
/// minute, so that asking for the next stays cheap for link and ledger, and 1 TiB makes 64 entries.
const WINDOW: u64 = 16 << 30;
/// Results of one lease: some fifty checkpoints of 20 GiB.
const RESULTS_BYTES: u64 = 1 << 40;
const RESULTS_FILES: u64 = 1_000_000;

/// Hard bounds (promise P11).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of attached workers.
    pub connections: usize,
    /// Connections of callers without a certificate.
    pub strangers: usize,
    /// Leases open at once.
    pub leases: usize,
    /// Longest lease in seconds.
    pub lease_s: u64,
    /// Ranks of one lease.
    pub ranks: u16,
    /// Bytes of buffers between sources and connections.
    pub buffers: u64,
    /// Bytes of memory that listings and selections of open leases may take.
    pub snapshots: u64,
    /// Plaintext bytes whose keys one release may hand out; whole blocks of 4 MiB.
    pub window: u64,
    /// Bytes that one lease may bring home; what is stored again counts again.
    pub results_bytes: u64,
    /// Files that one lease may bring home; the same.
    pub results_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            strangers: STRANGERS,
            leases: LEASES,
            lease_s: MAX_LEASE_S,
            ranks: RANKS,
            buffers: BUFFERS,
            snapshots: SNAPSHOTS,
            window: WINDOW,
            results_bytes: RESULTS_BYTES,
            results_files: RESULTS_FILES,
        }
    }
}

impl Limits {
    /// Blocks of one window of keys: none is larger than [`BLOCK_MAX`].
    pub(crate) fn window_blocks(&self) -> u32 {
        u32::try_from(self.window / u64::from(BLOCK_MAX)).unwrap_or(u32::MAX).max(1)
    }

    /// Which key cannot be used, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        for (key, zero) in [
            ("limits.connections", self.connections == 0),
            ("limits.strangers", self.strangers == 0),
            ("limits.leases", self.leases == 0),
            ("limits.lease_s", self.lease_s == 0),
            ("limits.ranks", self.ranks == 0),
            ("limits.results_bytes", self.results_bytes == 0),
            ("limits.results_files", self.results_files == 0),
        ] {
            if zero {
                return Err((key, "must be at least 1"));
            }
        }
        if self.buffers < 32 << 20 {
            return Err(("limits.buffers", "must be at least 32 MiB (33554432)"));
        }
        if self.snapshots < 1 << 20 {
            return Err(("limits.snapshots", "must be at least 1 MiB (1048576)"));
        }
        if self.window < u64::from(BLOCK_MAX) {
            return Err(("limits.window", "must be at least 4 MiB (4194304), one block"));
        }
        Ok(())
    }
}
