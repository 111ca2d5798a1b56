use tidegate_plan::{InstanceId, TokenId};

use crate::event::{Event, Refusal};
use crate::identity::Identity;
use crate::ranges;
use crate::record::{Attachment, Cause, Ending, JoinToken, Lease, Outcome, Phase, Proposal};

/// What a worker is to do, as a heartbeat tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Continue,
    /// Finish what is open, then wipe.
    Drain,
    /// Destroy the keys now.
    Die,
}

impl Lease {
    /// A lease that nobody has granted yet, if its terms agree with each other.
    pub fn request(proposal: Proposal, now: u64) -> Result<Self, Refusal> {
        let (ranks, blocks) = check(&proposal).map_err(Refusal::BadTerms)?;
        let token = |(id, rank)| JoinToken { id, rank, bound: None };
        Ok(Self {
            id: proposal.id,
            snapshot: proposal.snapshot,
            selection: proposal.selection,
            layout: proposal.layout,
            ranks,
            blocks,
            shares: proposal.shares,
            dataset: proposal.dataset,
            subject: proposal.subject,
            granted_at: 0,
            deadline: proposal.deadline,
            policy: proposal.policy,
            phase: Phase::Requested,
            key_epoch: proposal.key_epoch,
            tokens: proposal.tokens.into_iter().map(token).collect(),
            attachments: Vec::new(),
            ending: None,
            key_destroyed_at: None,
            changed_at: now,
        })
    }

    /// The lease after `event`, or why not. `now` is the gateway's time in seconds since the epoch.
    pub fn apply(&self, event: Event, now: u64) -> Result<Self, Refusal> {
        if self.is_closed() {
            return Err(Refusal::LeaseOver);
        }
        let now = now.max(self.changed_at);
        let mut next = self.clone();
        next.changed_at = now;
        match event {
            Event::Abandon => next.end(Cause::Abandoned, now),
            Event::Attach { token, identity, instance } => {
                next.attach(token, identity, instance, now)?;
            }
            Event::Drain => next.drain(now)?,
            Event::Expire if now < self.deadline => return Err(Refusal::NotDue),
            Event::Expire => next.end(Cause::Expired, now),
            Event::FencedWiped { rank, instance } => next.fenced_mut(rank, instance)?.wiped = true,
            Event::Grant => next.grant(now)?,
            Event::KeyDestroyed => next.close(now)?,
            Event::Release { rank, first, end } => next.release(rank, first, end, now)?,
            Event::Revoke => next.end(Cause::Revoked, now),
            Event::Token { id, rank } => next.add_token(id, rank, now)?,
            Event::Vanished { rank } => next.vanished(rank, now)?,
            Event::Wiped { rank } => next.wiped(rank, now)?,
            Event::Wiping => match self.phase {
                Phase::Draining | Phase::Wiping => next.phase = Phase::Wiping,
                phase => return Err(Refusal::OutOfOrder(phase)),
            },
        }
        Ok(next)
    }

    /// The event that the clock alone brings about now, if any.
    ///
    /// A worker's silence is measured from [`Attachment::last_seen`]. Heartbeats make no event, so
    /// the gateway notes from its memory what it has heard before it asks, and counts every worker
    /// as just seen when it has only now read the lease from its store.
    pub fn due(&self, now: u64) -> Option<Event> {
        let now = now.max(self.changed_at);
        if matches!(self.phase, Phase::Wiping | Phase::Closed(_)) || self.is_cut_off() {
            return None;
        }
        if now >= self.deadline {
            return Some(Event::Expire);
        }
        let gone = self.attachments.iter().find(|held| self.is_gone(held, now))?;
        Some(Event::Vanished { rank: gone.rank })
    }

    /// Notes a sign of life from the rank's current worker. No transition and no new revision: the
    /// gateway keeps it in memory, and it is stored with the next event.
    pub fn note_seen(&mut self, rank: u16, instance: InstanceId, at: u64) -> Result<(), Refusal> {
        if self.is_closed() {
            return Err(Refusal::LeaseOver);
        }
        let held = self.current_mut(rank)?;
        if held.instance != instance {
            return Err(Refusal::NotAttached);
        }
        held.last_seen = held.last_seen.max(at);
        Ok(())
    }

    /// What the workers are to do now.
    pub fn standing(&self, now: u64) -> Standing {
        let late = now.max(self.changed_at) >= self.deadline;
        match self.phase {
            Phase::Wiping | Phase::Closed(_) => Standing::Die,
            _ if late || self.is_cut_off() => Standing::Die,
            Phase::Draining => Standing::Drain,
            Phase::Requested | Phase::Granted | Phase::Active => Standing::Continue,
        }
    }

    /// Blocks may be served and keys released to a worker that is attached.
    pub fn is_serving(&self, now: u64) -> bool {
        matches!(self.phase, Phase::Active | Phase::Draining) && self.standing(now) != Standing::Die
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// The worker that holds the rank now.
    pub fn attachment(&self, rank: u16) -> Option<&Attachment> {
        self.attachments.iter().find(|held| held.rank == rank && held.is_current())
    }

    /// Whom the newest worker of the rank took it from, if it did.
    pub fn fenced_last(&self, rank: u16) -> Option<&Attachment> {
        self.attachments.iter().rev().find(|held| held.rank == rank && !held.is_current())
    }

    pub fn token(&self, id: &TokenId) -> Option<&JoinToken> {
        self.tokens.iter().find(|token| token.id == *id)
    }

    /// Key releases so far, to all workers; the next one is numbered one higher.
    pub fn releases(&self) -> u32 {
        self.attachments.iter().fold(0, |sum, held| sum.saturating_add(held.releases))
    }

    /// Blocks whose keys were released, each counted once for each worker that had them.
    pub fn released_blocks(&self) -> u64 {
        self.attachments.iter().map(Attachment::released_blocks).sum()
    }

    fn grant(&mut self, now: u64) -> Result<(), Refusal> {
        if self.phase != Phase::Requested {
            return Err(Refusal::OutOfOrder(self.phase));
        }
        if now >= self.deadline {
            return Err(Refusal::LeaseOver);
        }
        self.phase = Phase::Granted;
        self.granted_at = now;
        Ok(())
    }

    fn attach(
        &mut self,
        token: TokenId,
        identity: Identity,
        instance: InstanceId,
        now: u64,
    ) -> Result<(), Refusal> {
        match self.phase {
            Phase::Requested => return Err(Refusal::OutOfOrder(self.phase)),
            Phase::Granted | Phase::Active if now < self.deadline => {}
            _ => return Err(Refusal::LeaseOver),
        }
        let joins = self.tokens.iter().position(|held| held.id == token);
        let joins = joins.ok_or(Refusal::TokenUnknown)?;
        let JoinToken { rank, bound, .. } = self.tokens[joins];
        // A worker that was fenced does not come back.
        let was_fenced =
            self.attachments.iter().any(|held| held.token == token && !held.is_current());
        if was_fenced || bound.is_some_and(|bound| bound != identity) {
            return Err(Refusal::TokenBound);
        }
        if self.attachment(rank).is_some_and(|held| held.wiped) {
            return Err(Refusal::RankWiped);
        }
        self.tokens[joins].bound = Some(identity);
        self.phase = Phase::Active;
        if let Ok(held) = self.current_mut(rank) {
            if held.token == token {
                if held.past.contains(&instance) {
                    return Err(Refusal::Superseded);
                }
                held.passes_to(instance);
                held.last_seen = now;
                return Ok(());
            }
            held.fenced_at = Some(now);
        }
        self.attachments.push(Attachment {
            rank,
            identity,
            instance,
            past: Vec::new(),
            token,
            attached_at: now,
            last_seen: now,
            released: Vec::new(),
            releases: 0,
            fenced_at: None,
            wiped: false,
        });
        Ok(())
    }

    fn add_token(&mut self, id: TokenId, rank: u16, now: u64) -> Result<(), Refusal> {
        match self.phase {
            Phase::Requested => return Err(Refusal::OutOfOrder(self.phase)),
            Phase::Granted | Phase::Active if now < self.deadline => {}
            _ => return Err(Refusal::LeaseOver),
        }
        if rank >= self.ranks {
            return Err(Refusal::BadTerms("a token is of no rank"));
        }
        if self.token(&id).is_some() {
            return Err(Refusal::BadTerms("two tokens have one id"));
        }
        if self.attachment(rank).is_some_and(|held| held.wiped) {
            return Err(Refusal::RankWiped);
        }
        self.tokens.push(JoinToken { id, rank, bound: None });
        Ok(())
    }

    fn release(&mut self, rank: u16, first: u32, end: u32, now: u64) -> Result<(), Refusal> {
        match self.phase {
            Phase::Requested => return Err(Refusal::OutOfOrder(self.phase)),
            Phase::Granted => return Err(Refusal::NotAttached),
            _ if !self.is_serving(now) => return Err(Refusal::LeaseOver),
            _ => {}
        }
        self.check_window(rank, first, end)?;
        let held = self.current_mut(rank)?;
        if held.wiped {
            return Err(Refusal::RankWiped);
        }
        ranges::insert(&mut held.released, first, end);
        held.releases = held.releases.saturating_add(1);
        held.last_seen = held.last_seen.max(now);
        Ok(())
    }

    /// Whether blocks `first..end` are of the rank's share, and no more than one release may hand out.
    pub fn check_window(&self, rank: u16, first: u32, end: u32) -> Result<(), Refusal> {
        let share = self.shares.get(usize::from(rank)).ok_or(Refusal::OutOfShare)?;
        if first > end || first < share.0 || end > share.1 {
            return Err(Refusal::OutOfShare);
        }
        if end - first > self.policy.window_blocks {
            return Err(Refusal::TooWide);
        }
        Ok(())
    }

    fn drain(&mut self, now: u64) -> Result<(), Refusal> {
        match self.phase {
            Phase::Granted | Phase::Active => {
                self.phase = Phase::Draining;
                self.ending = Some(Ending { cause: Cause::Drained, at: now });
                Ok(())
            }
            Phase::Draining | Phase::Wiping => Ok(()),
            phase => Err(Refusal::OutOfOrder(phase)),
        }
    }

    /// Draining without grace. The first cause that gave no grace stays.
    fn end(&mut self, cause: Cause, now: u64) {
        if self.phase != Phase::Wiping {
            self.phase = Phase::Draining;
            if !self.is_cut_off() {
                self.ending = Some(Ending { cause, at: now });
            }
        }
    }

    fn wiped(&mut self, rank: u16, now: u64) -> Result<(), Refusal> {
        match self.phase {
            Phase::Requested => return Err(Refusal::OutOfOrder(self.phase)),
            Phase::Granted => return Err(Refusal::NotAttached),
            _ => {}
        }
        let held = self.current_mut(rank)?;
        held.wiped = true;
        held.last_seen = held.last_seen.max(now);
        let rank_wiped = |rank| self.attachment(rank).is_some_and(|held| held.wiped);
        if self.tokens.iter().all(|token| rank_wiped(token.rank)) {
            self.phase = Phase::Wiping;
            self.ending.get_or_insert(Ending { cause: Cause::Drained, at: now });
        }
        Ok(())
    }

    fn vanished(&mut self, rank: u16, now: u64) -> Result<(), Refusal> {
        let held = self.attachment(rank);
        match self.phase {
            Phase::Requested | Phase::Granted => Err(Refusal::OutOfOrder(self.phase)),
            _ if !held.is_some_and(|held| self.is_gone(held, now)) => Err(Refusal::NotDue),
            _ => {
                self.end(Cause::Vanished, now);
                Ok(())
            }
        }
    }

    fn close(&mut self, now: u64) -> Result<(), Refusal> {
        if !matches!(self.phase, Phase::Draining | Phase::Wiping) {
            return Err(Refusal::OutOfOrder(self.phase));
        }
        let any = !self.attachments.is_empty();
        let seen = any && self.attachments.iter().all(|held| held.wiped);
        self.phase = Phase::Closed(if seen { Outcome::Wiped } else { Outcome::Withdrawn });
        self.key_destroyed_at = Some(now);
        Ok(())
    }

    /// Ending for a cause that leaves no grace.
    fn is_cut_off(&self) -> bool {
        self.ending.is_some_and(|ending| ending.cause != Cause::Drained)
    }

    /// It holds its rank, has something left to say, and was silent for too long.
    fn is_gone(&self, held: &Attachment, now: u64) -> bool {
        held.is_current() && !held.wiped && self.policy.is_gone(held.last_seen, now)
    }

    fn fenced_mut(&mut self, rank: u16, instance: InstanceId) -> Result<&mut Attachment, Refusal> {
        let is_it = |held: &&mut Attachment| {
            (held.rank, held.instance) == (rank, instance) && !held.is_current()
        };
        self.attachments.iter_mut().find(is_it).ok_or(Refusal::NotAttached)
    }

    fn current_mut(&mut self, rank: u16) -> Result<&mut Attachment, Refusal> {
        self.attachments
            .iter_mut()
            .find(|held| held.rank == rank && held.is_current())
            .ok_or(Refusal::NotAttached)
    }
}

/// Ranks and blocks of the proposal, or what is wrong with it.
fn check(proposal: &Proposal) -> Result<(u16, u32), &'static str> {
    let ranks = u16::try_from(proposal.shares.len()).unwrap_or_default();
    if ranks == 0 {
        return Err("there must be 1 to 65535 shares");
    }
    let mut blocks = 0;
    for share in &proposal.shares {
        if share.0 != blocks || share.1 < share.0 {
            return Err("the shares do not follow on each other");
        }
        blocks = share.1;
    }
    if proposal.tokens.iter().any(|(_, rank)| *rank >= ranks) {
        return Err("a token is of no rank");
    }
    let mut ids: Vec<TokenId> = proposal.tokens.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two tokens have one id");
    }
    match proposal.policy.fault() {
        Some(fault) => Err(fault),
        None => Ok((ranks, blocks)),
    }
}

#[cfg(test)]
mod tests;
