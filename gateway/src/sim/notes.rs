//! What was seen of a run from outside, with the time at which it was seen.

use std::time::Duration;

use tidegate_plan::InstanceId;
use tidegate_wire::{Directive, KeyGrant};

/// Keys that left a gateway, whether or not they arrived.
#[derive(Clone, Debug)]
pub(super) struct Handed {
    pub(super) at: Duration,
    pub(super) replica: usize,
    pub(super) to: InstanceId,
    pub(super) grant: KeyGrant,
}

/// Keys that a worker took.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) at: Duration,
    pub(super) epoch: u32,
    /// Gateway time of the answer.
    pub(super) time: u64,
    /// How late the promptest answer was by which the worker judges others.
    pub(super) slack: Duration,
}

/// A worker was told how it stands, and believed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// When the worker asked, and when it had the answer.
    pub(super) asked: Duration,
    pub(super) at: Duration,
    /// As in [`Accepted`].
    pub(super) slack: Duration,
    pub(super) to: InstanceId,
    pub(super) directive: Directive,
}

/// A worker stated its wipe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stated {
    pub(super) instance: InstanceId,
    pub(super) complete: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) handed: Vec<Handed>,
    pub(super) accepted: Vec<Accepted>,
    /// Answers to attachments too.
    pub(super) beats: Vec<Beat>,
    pub(super) stated: Vec<Stated>,
    /// Workers that attached again after their keys were destroyed at the grace.
    pub(super) returns: u64,
    /// Every checkpoint that was shown to anybody.
    pub(super) checkpoints: Vec<String>,
    /// What was wrong on the way.
    pub(super) wrong: Vec<String>,
}
