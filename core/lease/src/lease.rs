use tidegate_plan::{InstanceId, TokenId};

use crate::event::{Event, Refusal};
use crate::ranges;
use crate::record::{Attachment, Cause, Ending, JoinToken, Lease, Outcome, Phase, Terms};

impl Lease {
    /// A lease that nobody has granted yet.
    pub fn request(terms: Terms) -> Self {
        Self {
            id: terms.id,
            snapshot: terms.snapshot,
            selection: terms.selection,
            layout: terms.layout,
            ranks: terms.ranks,
            blocks: terms.blocks,
            shares: terms.shares,
            dataset: terms.dataset,
            subject: terms.subject,
            granted_at: 0,
            deadline: terms.deadline,
            policy: terms.policy,
            phase: Phase::Requested,
            key_epoch: terms.key_epoch,
            tokens: terms.tokens,
            attachments: Vec::new(),
            fenced: Vec::new(),
            ending: None,
            key_destroyed_at: None,
            changed_at: 0,
        }
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
            Event::Attach { token, identity, instance } => {
                next.attach(token, identity, instance, now)?;
            }
            Event::Drain => next.drain(now)?,
            Event::Expire if now < self.deadline => return Err(Refusal::NotDue),
            Event::Expire => next.end(Cause::Expired, now),
            Event::Grant => next.grant(now)?,
            Event::KeyDestroyed => next.key_destroyed(now),
            Event::Release { rank, first, end } => next.release(rank, first, end, now)?,
            Event::Revoke => next.end(Cause::Revoked, now),
            Event::Vanished => next.vanished(now)?,
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
    /// the gateway brings that field up to date from its memory before it asks, and counts every
    /// worker as just seen when it has only now read the lease from its store.
    pub fn due(&self, now: u64) -> Option<Event> {
        let now = now.max(self.changed_at);
        if matches!(self.phase, Phase::Wiping | Phase::Closed(_)) || self.is_cut_off() {
            return None;
        }
        if now >= self.deadline {
            return Some(Event::Expire);
        }
        self.is_anybody_silent(now).then_some(Event::Vanished)
    }

    /// Blocks may be served and keys released to a worker that is attached.
    pub fn is_serving(&self, now: u64) -> bool {
        let open = matches!(self.phase, Phase::Active | Phase::Draining);
        open && !self.is_cut_off() && now.max(self.changed_at) < self.deadline
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// The worker that holds the rank now.
    pub fn attachment(&self, rank: u16) -> Option<&Attachment> {
        self.attachments.iter().find(|held| held.rank == rank)
    }

    pub fn token(&self, id: &TokenId) -> Option<&JoinToken> {
        self.tokens.iter().find(|token| token.id == *id)
    }

    /// Key releases so far, to all workers; the next one is numbered one higher.
    pub fn releases(&self) -> u32 {
        self.ever_attached().fold(0, |sum, held| sum.saturating_add(held.releases))
    }

    /// Blocks whose keys were released, each counted once for each worker that had them.
    pub fn released_blocks(&self) -> u64 {
        self.ever_attached().map(Attachment::released_blocks).sum()
    }

    fn grant(&mut self, now: u64) -> Result<(), Refusal> {
        if self.phase != Phase::Requested {
            return Err(Refusal::OutOfOrder(self.phase));
        }
        if now >= self.deadline {
            return Err(Refusal::LeaseOver);
        }
        self.check_terms().map_err(Refusal::BadTerms)?;
        self.phase = Phase::Granted;
        self.granted_at = now;
        Ok(())
    }

    fn check_terms(&self) -> Result<(), &'static str> {
        if self.ranks == 0 || self.shares.len() != usize::from(self.ranks) {
            return Err("there is not one share a rank");
        }
        let mut end = 0;
        for share in &self.shares {
            if share.0 != end || share.1 < share.0 {
                return Err("the shares do not follow on each other");
            }
            end = share.1;
        }
        if end != self.blocks {
            return Err("the shares are not the whole lease");
        }
        if self.tokens.iter().any(|token| token.rank >= self.ranks || token.bound.is_some()) {
            return Err("a token is not of a rank, or not new");
        }
        let mut ids: Vec<TokenId> = self.tokens.iter().map(|token| token.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two tokens have one id");
        }
        if !self.policy.is_sound() {
            return Err("the grace must be longer than two heartbeats");
        }
        Ok(())
    }

    fn attach(
        &mut self,
        token: TokenId,
        identity: [u8; 32],
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
        let was_fenced = self.fenced.iter().any(|held| held.token == token);
        if was_fenced || bound.is_some_and(|bound| bound != identity) {
            return Err(Refusal::TokenBound);
        }
        if self.attachment(rank).is_some_and(|held| held.wiped) {
            return Err(Refusal::RankWiped);
        }
        self.tokens[joins].bound = Some(identity);
        self.phase = Phase::Active;
        let attached = Attachment {
            rank,
            identity,
            instance,
            token,
            attached_at: now,
            last_seen: now,
            released: Vec::new(),
            releases: 0,
            wiped: false,
        };
        match self.attachments.iter_mut().find(|held| held.rank == rank) {
            Some(held) if held.token == token => {
                (held.instance, held.last_seen) = (instance, now);
            }
            Some(held) => self.fenced.push(std::mem::replace(held, attached)),
            None => self.attachments.push(attached),
        }
        Ok(())
    }

    fn release(&mut self, rank: u16, first: u32, end: u32, now: u64) -> Result<(), Refusal> {
        match self.phase {
            Phase::Requested => return Err(Refusal::OutOfOrder(self.phase)),
            Phase::Granted => return Err(Refusal::NotAttached),
            _ if !self.is_serving(now) => return Err(Refusal::LeaseOver),
            _ => {}
        }
        let share = self.shares.get(usize::from(rank)).ok_or(Refusal::OutOfShare)?;
        if first > end || first < share.0 || end > share.1 {
            return Err(Refusal::OutOfShare);
        }
        let held = self.current_mut(rank)?;
        if held.wiped {
            return Err(Refusal::RankWiped);
        }
        ranges::insert(&mut held.released, first, end);
        held.releases = held.releases.saturating_add(1);
        held.last_seen = held.last_seen.max(now);
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
            self.wiping(now);
        }
        self.close_if_wiped();
        Ok(())
    }

    fn wiping(&mut self, now: u64) {
        self.phase = Phase::Wiping;
        self.ending.get_or_insert(Ending { cause: Cause::Drained, at: now });
    }

    fn key_destroyed(&mut self, now: u64) {
        self.key_destroyed_at.get_or_insert(now);
        self.wiping(now);
        self.close_if_wiped();
    }

    fn close_if_wiped(&mut self) {
        let any = !self.attachments.is_empty();
        if any && self.ever_attached().all(|held| held.wiped) && self.key_destroyed_at.is_some() {
            self.phase = Phase::Closed(Outcome::Wiped);
        }
    }

    fn vanished(&mut self, now: u64) -> Result<(), Refusal> {
        match self.phase {
            Phase::Wiping if self.key_destroyed_at.is_some() => {
                self.phase = Phase::Closed(Outcome::Withdrawn);
            }
            Phase::Active | Phase::Draining if self.is_anybody_silent(now) => {
                self.end(Cause::Vanished, now);
            }
            Phase::Active | Phase::Draining | Phase::Wiping => return Err(Refusal::NotDue),
            phase => return Err(Refusal::OutOfOrder(phase)),
        }
        Ok(())
    }

    fn ever_attached(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.iter().chain(&self.fenced)
    }

    /// Ending for a cause that leaves no grace.
    fn is_cut_off(&self) -> bool {
        self.ending.is_some_and(|ending| ending.cause != Cause::Drained)
    }

    fn is_anybody_silent(&self, now: u64) -> bool {
        let grace = u64::from(self.policy.grace_s);
        let mut watched = self.attachments.iter().filter(|held| !held.wiped);
        watched.any(|held| now.saturating_sub(held.last_seen) > grace)
    }

    fn current_mut(&mut self, rank: u16) -> Result<&mut Attachment, Refusal> {
        self.attachments.iter_mut().find(|held| held.rank == rank).ok_or(Refusal::NotAttached)
    }
}

#[cfg(test)]
mod tests;
