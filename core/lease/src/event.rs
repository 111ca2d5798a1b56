use tidegate_plan::{InstanceId, TokenId};

use crate::identity::Identity;
use crate::record::Phase;

/// What happened to a lease, or what somebody asks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The gateway cannot serve it any longer, or the program that asked for it gives it up.
    Abandon,
    /// A worker proved that it holds a token's secret and an identity key.
    Attach {
        token: TokenId,
        identity: Identity,
        instance: InstanceId,
    },
    /// The job is done or is asked to finish: reads go on until the wipe.
    Drain,
    /// The deadline has come.
    Expire,
    /// A worker that lost its rank to another has stated that it destroyed everything.
    FencedWiped {
        rank: u16,
        instance: InstanceId,
    },
    /// An administrator has granted what was requested.
    Grant,
    /// The gateway has destroyed its own key and waits for no worker any longer.
    KeyDestroyed,
    /// Keys of blocks `first..end` are about to go to the rank's worker. An empty range releases
    /// the manifest alone.
    Release {
        rank: u16,
        first: u32,
        end: u32,
    },
    Revoke,
    /// An administrator lets another worker take the rank over, with a token of its own.
    Token {
        id: TokenId,
        rank: u16,
    },
    /// The rank's worker has been silent for so long that it is taken for gone.
    Vanished {
        rank: u16,
    },
    /// The rank's worker has stated that it destroyed everything.
    Wiped {
        rank: u16,
    },
    /// No more reads: the workers are to destroy what they hold.
    Wiping,
}

/// Why an event is not applied. All but `OutOfOrder` and `NotDue` are the worker's to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("the lease's terms contradict each other: {0}")]
    BadTerms(&'static str),
    #[error("the lease is over")]
    LeaseOver,
    #[error("no worker is attached for this rank")]
    NotAttached,
    #[error("the condition for this event does not hold")]
    NotDue,
    #[error("a {0:?} lease does not take this event")]
    OutOfOrder(Phase),
    #[error("the blocks are outside the rank's share")]
    OutOfShare,
    #[error("the rank has stated its wipe")]
    RankWiped,
    #[error("a newer process of this worker has attached")]
    Superseded,
    #[error("the token is bound to another worker")]
    TokenBound,
    #[error("the blocks are more than one release may hand out")]
    TooWide,
    #[error("the lease has no such token")]
    TokenUnknown,
}
