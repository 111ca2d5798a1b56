//! Key release: the entry is durable before the keys are even derived (promise P8).
//!
//! One release hands out one window: blocks of the rank's share, no more than the lease's policy
//! says. A worker may ask again; each time is an entry of its own. Nothing bounds the sum but the
//! share: what a worker has wiped of what it got is not to be known from here.

use std::time::Duration;

use tidegate_lease::{Event as LeaseEvent, Refusal as LeaseRefusal};
use tidegate_ledger::Event;
use tidegate_seal::{Release, depth, seal_release};
use tidegate_wire::{KeyGrant, KeyRequest, ProblemKind};

use crate::admission::{Admitted, UNREAD, over, refused};
use crate::keyring::rng;
use crate::office::{AdvanceError, Office};
use crate::problem::Refusal;
use crate::serving::{goods, window_bytes};

/// A worker drops a reply that is older, so it need not be sent. Measured on the boot clock: gateway
/// time may stand still.
pub(crate) const LATEST: Duration = Duration::from_secs(10);

pub(crate) async fn release(
    office: &Office,
    admitted: &Admitted,
    request: &KeyRequest,
) -> Result<KeyGrant, Refusal> {
    let (live, rank) = (&admitted.live, admitted.rank);
    let goods = goods(office, live).await?;
    let window = request.first_block..request.end_block;
    let lease = &live.view().document.lease;
    if let Err(refusal) = lease.check_window(rank, window.start, window.end) {
        return Err(refused(office, live.id, AdvanceError::Refused(refusal)).await);
    }
    live.presence(rank).allow_release(office.now())?;

    let _turn = live.turn.lock().await;
    let (now, begun) = (office.now(), office.clock.boottime());
    if !live.serves(now) || !admitted.is_newest(&live.view().document.lease) {
        return Err(over(office, live.id).await);
    }
    let event = LeaseEvent::Release { rank, first: window.start, end: window.end };
    let advanced = office
        .advance(live, |document| {
            // Another gateway may have let somebody else have the rank meanwhile.
            if !admitted.is_newest(&document.lease) {
                return Err(LeaseRefusal::NotAttached);
            }
            if document.certificates.contains_key(&rank) {
                return Err(LeaseRefusal::RankWiped);
            }
            document.lease = document.lease.apply(event.clone(), now)?;
            document.last_release_at = Some(now);
            let released = document.lease.attachment(rank).map(|held| &held.released);
            let windows = released.into_iter().flatten();
            let bytes = windows.map(|(first, end)| window_bytes(&goods.layout, *first..*end)).sum();
            document.released_bytes.insert(rank, bytes);
            Ok(())
        })
        .await;
    let (_, document) = match advanced {
        Ok(advanced) => advanced,
        Err(error) => return Err(refused(office, live.id, error).await),
    };
    let epoch = document.lease.releases();
    let receipt = office
        .record
        .append_one(Event::KeysReleased {
            lease: live.id,
            rank,
            epoch,
            first_block: window.start,
            end_block: window.end,
            bytes: window_bytes(&goods.layout, window.clone()),
        })
        .await?;
    still_holds(office, admitted, begun).await?;

    crate::meters::RELEASES.add(1);
    let grant = KeyGrant {
        lease: live.id,
        layout: document.lease.layout,
        rank,
        epoch,
        first_block: window.start,
        end_block: window.end,
        expiry: document.lease.deadline,
        sealed: Vec::new().into(),
        receipt,
        time: now,
    };
    seal(office, admitted, &document, grant).await
}

/// Whether what was recorded may still be handed over: the entry may have taken long, and the lease
/// have ended or the rank gone to another worker elsewhere.
async fn still_holds(office: &Office, admitted: &Admitted, begun: Duration) -> Result<(), Refusal> {
    let live = &admitted.live;
    let unread = |error| Refusal::unavailable(UNREAD, &error);
    office.refresh(live).await.map_err(unread)?;
    if office.clock.boottime().saturating_sub(begun) > LATEST {
        let detail = "the release took too long and is not handed over";
        return Err(Refusal::new(ProblemKind::Unavailable, detail));
    }
    if live.serves(office.now()) && admitted.is_newest(&live.view().document.lease) {
        Ok(())
    } else {
        Err(over(office, live.id).await)
    }
}

pub(crate) async fn seal(
    office: &Office,
    admitted: &Admitted,
    document: &crate::book::Document,
    mut grant: KeyGrant,
) -> Result<KeyGrant, Refusal> {
    let (id, rank) = (admitted.live.id, admitted.rank);
    let held = document.lease.attachment(rank);
    let (Some(held), Some(hpke)) = (held, document.hpke.get(&rank)) else {
        return Err(Refusal::internal("an attachment has no HPKE key", &id));
    };
    let window = grant.first_block..grant.end_block;
    let sealed = office.keyring.with(id, |key| {
        let cover = key.tree_root().cover(depth(document.lease.blocks), window);
        let release = Release { manifest_key: key.manifest_key(rank), cover };
        let secret = key.join_secret(&held.token);
        seal_release(&hpke.0, &secret, &held.token, &grant.aad(), &release, &mut rng())
    });
    match sealed {
        Some(Ok(sealed)) => {
            grant.sealed = sealed.into();
            Ok(grant)
        }
        Some(Err(error)) => {
            tracing::warn!(lease = %id, %error, "a release cannot be sealed to the worker's key");
            Err(Refusal::new(ProblemKind::Malformed, "the HPKE key of the attachment is not valid"))
        }
        None => Err(over(office, id).await),
    }
}
