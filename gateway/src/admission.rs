//! Who is calling, and may they: asked anew for every request.

use std::sync::Arc;

use tidegate_kit::tls::PeerIdentity;
use tidegate_lease::{Attachment, Lease, Refusal as LeaseRefusal};
use tidegate_plan::LeaseId;
use tidegate_wire::ProblemKind;

use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::problem::Refusal;
use crate::recovery::{chain, find_any};
use crate::refusals::Reason;

/// What a caller is told when the state is away.
pub(crate) const UNREAD: &str = "the lease's state cannot be read";

/// What the connection's certificate says; `None` for callers without one.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Option<Arc<PeerIdentity>>);

/// What a caller is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Take keys or bytes: the lease is active and before its deadline.
    Serve,
    /// Say it is alive: the lease is not closed.
    Speak,
    /// State its wipe: also when the lease was closed meanwhile.
    Settle,
}

/// A caller who is the newest worker of a rank of a lease of ours; to state its wipe, also one that was.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) live: Arc<Live>,
    pub(crate) peer: Arc<PeerIdentity>,
    pub(crate) rank: u16,
}

impl Admitted {
    /// Why the lease's head does not allow it; nothing is looked up.
    fn objection(&self, purpose: Purpose, now: u64) -> Option<Reason> {
        let document = self.live.view().document;
        let may_speak = self.is_newest(&document.lease)
            || (purpose == Purpose::Settle && self.held_before(&document.lease).is_some());
        if !may_speak {
            return Some(Reason::Fenced);
        }
        let open = match purpose {
            // A rank that has stated its wipe gets nothing more, whatever the others still do.
            Purpose::Serve => {
                self.live.serves(now) && !document.certificates.contains_key(&self.rank)
            }
            Purpose::Speak => !document.lease.is_closed(),
            Purpose::Settle => true,
        };
        (!open).then_some(Reason::LeaseOver)
    }

    /// Looks whether the lease's head allows it still.
    pub(crate) async fn still(&self, office: &Office, purpose: Purpose) -> Result<(), Refusal> {
        let (live, now) = (&self.live, office.now());
        let unread = |error| Refusal::unavailable(UNREAD, &chain(&error));
        office.refresh(live).await.map_err(unread)?;
        let mut objection = self.objection(purpose, now);
        if objection.is_some() && office.is_replicated() {
            // The worker may have attached at another gateway a moment ago.
            office.look(live).await.map_err(unread)?;
            objection = self.objection(purpose, now);
        }
        if objection.is_none() && !office.knows_head(live) {
            return Err(Refusal::unavailable(UNREAD, &"it took too long"));
        }
        match objection {
            Some(Reason::Fenced) => {
                let detail = "another worker holds this rank";
                let kind = ProblemKind::Forbidden;
                Err(refuse(office, live.id, Reason::Fenced, kind, detail).await)
            }
            Some(_) => Err(over(office, live.id).await),
            None => Ok(()),
        }
    }

    /// Whether the caller is still the rank's newest attachment.
    pub(crate) fn is_newest(&self, lease: &Lease) -> bool {
        lease.attachment(self.rank).is_some_and(|held| {
            held.identity.0 == self.peer.public_key && held.instance == self.peer.instance
        })
    }

    /// The caller's own attachment, when another worker took the rank from it.
    pub(crate) fn held_before<'a>(&self, lease: &'a Lease) -> Option<&'a Attachment> {
        let mut all = lease.attachments.iter().filter(|_| !self.is_newest(lease));
        all.find(|held| {
            !held.is_current()
                && held.rank == self.rank
                && held.identity.0 == self.peer.public_key
                && held.instance == self.peer.instance
        })
    }
}

/// Counts a refusal of a caller we know, writes its entry when it is due, and makes the answer.
pub(crate) async fn refuse(
    office: &Office,
    lease: LeaseId,
    reason: Reason,
    kind: ProblemKind,
    detail: &str,
) -> Refusal {
    crate::meters::REFUSED.add_for(&[reason.as_str()], 1);
    if let Some(event) = office.refusals.note(lease, reason, office.now())
        && let Err(error) = office.record.append(vec![event]).await
    {
        tracing::error!(%error, "a refusal could not be recorded");
    }
    Refusal::new(kind, detail)
}

pub(crate) async fn over(office: &Office, lease: LeaseId) -> Refusal {
    refuse(office, lease, Reason::LeaseOver, ProblemKind::LeaseOver, "").await
}

/// The answer to a transition that did not happen.
pub(crate) async fn refused(office: &Office, lease: LeaseId, error: AdvanceError) -> Refusal {
    let forbidden = ProblemKind::Forbidden;
    match error {
        AdvanceError::Book(error) => {
            Refusal::unavailable("the lease's state cannot be written", &error)
        }
        AdvanceError::Refused(LeaseRefusal::LeaseOver | LeaseRefusal::RankWiped) => {
            over(office, lease).await
        }
        AdvanceError::Refused(LeaseRefusal::TokenBound) => {
            let detail = "the join token belongs to another worker";
            refuse(office, lease, Reason::TokenBound, forbidden, detail).await
        }
        AdvanceError::Refused(LeaseRefusal::OutOfShare) => {
            let detail = "the blocks are not of this share";
            refuse(office, lease, Reason::OutsideShare, forbidden, detail).await
        }
        AdvanceError::Refused(LeaseRefusal::TooWide) => {
            let detail = "the blocks are more than one release hands out";
            refuse(office, lease, Reason::TooWide, forbidden, detail).await
        }
        AdvanceError::Refused(_) => {
            refuse(office, lease, Reason::Fenced, forbidden, "another worker holds this rank").await
        }
    }
}

/// Admits a caller to a lease named in the request's path, or says why not.
pub(crate) async fn admit(
    office: &Office,
    caller: &Caller,
    lease: &str,
    purpose: Purpose,
) -> Result<Admitted, Refusal> {
    let now = office.now();
    let stranger = || {
        office.refusals.stranger();
        Refusal::stranger()
    };
    let peer = caller.0.clone().ok_or_else(stranger)?;
    // A connection may outlive the certificate it was opened with.
    if peer.not_after <= now {
        return Err(stranger());
    }
    let live = find_any(office, peer.lease)
        .await
        .map_err(|error| Refusal::unavailable(UNREAD, &chain(&error)))?
        .ok_or_else(stranger)?;
    if lease.parse() != Ok(peer.lease) {
        let detail = "the certificate is of another lease";
        let kind = ProblemKind::Forbidden;
        return Err(refuse(office, peer.lease, Reason::ForeignLease, kind, detail).await);
    }
    let admitted = Admitted { rank: peer.rank, live: Arc::clone(&live), peer };
    admitted.still(office, purpose).await?;
    if admitted.is_newest(&live.view().document.lease) {
        live.presence(admitted.rank).seen(now);
    }
    Ok(admitted)
}
