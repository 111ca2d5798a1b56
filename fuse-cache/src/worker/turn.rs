//! What changes how a worker stands: the gateway's word, time, and a way back.

use std::sync::Arc;

use tidegate_wire::Directive;

use crate::client::{Client, ClientError};
use crate::keys::KeyRing;
use crate::life::Past;

pub(super) enum Turn {
    /// A new word of the gateway.
    Directed(Directive),
    /// The keys' time is over, and the keys are destroyed.
    Past(Past),
    /// A gateway let us attach again, or said that it never will.
    Returned(Result<Return, ClientError>),
}

/// A new attachment to the same lease, and its keys.
pub(super) struct Return {
    pub(super) client: Arc<Client>,
    pub(super) keys: Arc<KeyRing>,
}
