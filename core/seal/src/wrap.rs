//! Lease keys at rest: sealed under the key of a short epoch.

use tidegate_plan::{LayoutId, LeaseId};

use crate::chunk::{HEADER_LEN, SALT_LEN, TAG_LEN};
use crate::context::{Context, Kind};
use crate::keys::{BlockKey, EpochKey, LeaseKey};
use crate::message::{open_message, seal_message};
use crate::opener::OpenError;

/// Length of a wrapped lease key, bytes.
pub const WRAPPED_KEY_LEN: usize = HEADER_LEN + 32 + TAG_LEN;

fn place(epoch: u32, lease: &LeaseId) -> Context {
    Context {
        kind: Kind::LeaseKey,
        lease: *lease,
        layout: LayoutId::from_bytes([0; 32]),
        number: epoch.into(),
        count: 0,
    }
}

/// Seals a lease key under its epoch's key, bound to the lease and the epoch's number.
pub fn wrap_lease_key(
    epoch_key: &EpochKey,
    epoch: u32,
    lease: &LeaseId,
    key: &LeaseKey,
    salt: [u8; SALT_LEN],
) -> Vec<u8> {
    let under = BlockKey::from(epoch_key.duplicate());
    seal_message(&under, &place(epoch, lease), salt, key.expose())
}

/// The other way. Fails for another epoch, lease or key, or for changed bytes.
pub fn unwrap_lease_key(
    epoch_key: &EpochKey,
    epoch: u32,
    lease: &LeaseId,
    wrapped: &[u8],
) -> Result<LeaseKey, OpenError> {
    let under = BlockKey::from(epoch_key.duplicate());
    let plain = open_message(&under, &place(epoch, lease), wrapped)?;
    LeaseKey::from_slice(&plain).ok_or(OpenError)
}
