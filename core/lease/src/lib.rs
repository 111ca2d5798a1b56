//! A lease's states and deadlines as pure transitions; the clock is passed in.
//!
//! # Phases
//!
//! [`Lease::apply`] is the only way from one phase to another. What the table does not allow is
//! refused with [`Refusal::OutOfOrder`], except where a phase has a plainer word for it: once a lease
//! is ending, whatever would give a worker more is [`Refusal::LeaseOver`], and so is everything once
//! it is closed.
//!
//! | event | requested | granted | active | draining | wiping |
//! | --- | --- | --- | --- | --- | --- |
//! | `Grant` | granted | – | – | – | – |
//! | `Token` | – | granted | active | over | over |
//! | `Attach` ⁶ | – | active | active | over | over |
//! | `Release` | – | not attached | active | draining ¹ | over |
//! | `Drain` | – | draining | draining | unchanged | unchanged |
//! | `Expire` ², `Revoke`, `Abandon` | draining 0 | draining 0 | draining 0 | draining 0 | unchanged |
//! | `Vanished` ³ | – | – | draining 0 | draining 0 | unchanged |
//! | `Wiped` | – | not attached | active ⁴ | draining ⁴ | wiping |
//! | `Wiping` | – | – | – | wiping | unchanged |
//! | `KeyDestroyed` | – | – | – | closed ⁵ | closed ⁵ |
//!
//! 1. Only while the drain is an orderly one. *Draining 0* has no grace: nothing more is released.
//! 2. Only at or after the deadline. From the deadline on, `Attach` and `Release` are refused
//!    whether or not `Expire` was applied.
//! 3. Only where the rank's worker has been silent for longer than the policy's `silence_s`.
//! 4. *Wiping* once the ranks of all tokens have stated their wipe.
//! 5. As *wiped* if something was attached and all that ever was attached has stated its wipe; as
//!    *withdrawn* in every other case: destruction on the nodes was not observed.
//! 6. With another token than the worker's that holds the rank, the newest fences the older: it keeps
//!    its place in the history and gets nothing more.
//!
//! Time never runs backwards: an event is dated with the latest time that the lease has seen.

mod event;
mod identity;
mod lease;
mod ranges;
mod record;

pub use event::{Event, Refusal};
pub use identity::Identity;
pub use lease::Standing;
pub use record::{Attachment, Cause, Ending, JoinToken, Lease, Outcome, Phase, Policy, Proposal};
