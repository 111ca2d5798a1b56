//! A worker joins a lease: proof, then revision, then ledger entry, then the answer.

use std::sync::Arc;

use tidegate_lease::{Event as LeaseEvent, Identity, Refusal as LeaseRefusal};
use tidegate_ledger::{Commitment, Digest, Event, to_canonical, verify_signature};
use tidegate_plan::LeaseId;
use tidegate_seal::{HPKE_PUBLIC_LEN, verify_attach_proof};
use tidegate_wire::{AttachRequest, AttachResponse, Evidence, NodeFacts, ProblemKind};

use crate::admission::{UNREAD, refuse, refused};
use crate::certifying::{Holder, issue};
use crate::live::{Live, Presence};
use crate::lookups::Known;
use crate::nonce::NonceError;
use crate::office::{AdvanceError, Office};
use crate::owed::{fenced_events, fenced_recorded};
use crate::problem::Refusal;
use crate::record::RecordError;
use crate::recovery::{chain, find_open};
use crate::refusals::Reason;
use crate::releasing::LATEST;
use crate::serving::dormant;

/// Longest text of facts and evidence that becomes a document, bytes: the facts of a node are some
/// hundreds, and a quote of a processor with its certificates takes a few thousand.
const FACTS_MAX: usize = 8 * 1024;

/// What an attach request proved.
struct Proven {
    live: Arc<Live>,
    identity: [u8; 32],
    rank: u16,
}

pub(crate) async fn attach(
    office: &Office,
    request: AttachRequest,
) -> Result<AttachResponse, Refusal> {
    let (now, begun) = (office.now(), office.clock.boottime());
    let Proven { live, identity, rank } = prove(office, &request, now).await?;
    // From here on the caller is known: the log may say whose it is.
    tracing::Span::current().record("lease", tracing::field::display(live.id)).record("rank", rank);
    if request.hpke_key.0.len() != HPKE_PUBLIC_LEN {
        return Err(Refusal::new(ProblemKind::Malformed, "the HPKE key is not an X-Wing key"));
    }
    let unread = |_| Refusal::new(ProblemKind::Malformed, "facts or evidence are not what is due");
    let facts: NodeFacts = serde_json::from_str(&request.facts).map_err(unread)?;
    let evidence: Evidence = serde_json::from_str(&request.evidence).map_err(unread)?;
    if let Some(why) = office.config.nodes.objection(&facts) {
        return Err(refuse(office, live.id, Reason::Node, ProblemKind::Forbidden, why).await);
    }
    let facts = to_canonical(&(&facts, &evidence))
        .map_err(|_| Refusal::new(ProblemKind::Malformed, "facts hold what JSON cannot say"))?;
    if facts.len() > FACTS_MAX {
        return Err(Refusal::new(ProblemKind::TooLarge, "facts and evidence have at most 8 KiB"));
    }
    let change = LeaseEvent::Attach {
        token: request.token,
        identity: Identity(identity),
        instance: request.instance,
    };
    // What no later head allows either is not counted against the rank's own worker.
    if let Err(refusal) = live.view().document.lease.apply(change.clone(), now) {
        return Err(refused(office, live.id, AdvanceError::Refused(refusal)).await);
    }
    live.presence(rank).allow_attach(now)?;

    let turn = live.turn.lock().await;
    let advanced = office
        .advance(&live, |document| {
            // Whoever asked has given up by now, and may have attached elsewhere.
            if office.clock.boottime().saturating_sub(begun) > LATEST {
                return Err(LeaseRefusal::NotDue);
            }
            // Whoever stated a wipe, complete or not, has got what there was to get.
            if document.certificates.contains_key(&rank) {
                return Err(LeaseRefusal::RankWiped);
            }
            document.attach(rank, change.clone(), now)?;
            document.hpke.insert(rank, request.hpke_key.clone());
            document.kept_by(rank, &office.replica, now);
            Ok(())
        })
        .await;
    let (revision, document) = match advanced {
        Ok(advanced) => advanced,
        Err(AdvanceError::Refused(LeaseRefusal::NotDue)) => {
            return Err(Refusal::unavailable(
                "the lease's state cannot be written",
                &"it took too long",
            ));
        }
        Err(error) => return Err(refused(office, live.id, error).await),
    };
    let facts = facts_document(office, &live.presence(rank), facts).await?;
    let attached = Event::Attached {
        lease: live.id,
        rank,
        instance: request.instance,
        identity: Digest::from_bytes(identity),
        facts,
        revision,
    };
    // Whoever was fenced, by this attachment or by one whose entry could not be written.
    let events = fenced_events(live.id, &document).chain([attached]).collect();
    let receipts = office.record.append(events).await?;
    let receipt = receipts.into_iter().next_back().ok_or(RecordError::NoReceipt)?;
    fenced_recorded(office, &live, &document.fences).await;
    drop(turn);

    let mut terms = crate::serving::terms(office, &live, &document, rank).await?;
    terms.results = crate::bringing::terms(office, &live, &document);
    let holder = Holder { rank, instance: request.instance, identity };
    let (certificate, certificate_expires) = issue(office, &live, &holder, now)?;
    live.presence(rank).seen(now);
    crate::meters::ATTACHED.add(1);
    tracing::info!(lease = %live.id, rank, instance = %request.instance, "a worker attached");
    Ok(AttachResponse { terms, certificate, certificate_expires, revision, receipt, time: now })
}

/// The document of a node's facts: the one before, when a process comes back with the same.
async fn facts_document(
    office: &Office,
    presence: &Presence,
    facts: String,
) -> Result<Commitment, RecordError> {
    let digest = *blake3::hash(facts.as_bytes()).as_bytes();
    if let Some(commitment) = presence.facts_before(&digest)
        && office.record.has_document(&commitment).await?
    {
        return Ok(commitment);
    }
    let commitment = office.record.document(facts).await?;
    presence.facts_are(digest, commitment);
    Ok(commitment)
}

/// Every way to fail here is the same 401: the caller is a stranger until all of it holds.
async fn prove(office: &Office, request: &AttachRequest, now: u64) -> Result<Proven, Refusal> {
    let stranger = || {
        office.refusals.stranger();
        Refusal::stranger()
    };
    let nonce = office.nonces.check(&request.nonce.0, now).map_err(|_| stranger())?;
    let live = match office.find(request.lease) {
        Some(live) => live,
        None => look_up(office, request.lease).await?.ok_or_else(stranger)?,
    };
    live.tried().await;
    if live.is_dormant() {
        return Err(dormant());
    }
    let view = live.view();
    let token = view.document.lease.token(&request.token);
    let rank = token.ok_or_else(stranger)?.rank;
    let transcript = request.transcript();
    let holds = office.keyring.with(live.id, |key| {
        verify_attach_proof(&key.join_secret(&request.token), &transcript, &request.proof.0)
    });
    let identity: [u8; 32] =
        request.identity_key.0.as_slice().try_into().map_err(|_| stranger())?;
    if holds != Some(true) || !verify_signature(&identity, &transcript, &request.signature.0) {
        return Err(stranger());
    }
    match office.nonces.burn(nonce, now) {
        Ok(()) => Ok(Proven { live, identity, rank }),
        Err(NonceError::Invalid) => Err(stranger()),
        Err(NonceError::Full) => {
            Err(Refusal::new(ProblemKind::TooMany, "too many workers attach at once"))
        }
    }
}

/// A lease that is not served here, or not yet.
async fn look_up(office: &Office, id: LeaseId) -> Result<Option<Arc<Live>>, Refusal> {
    let now = || office.clock.boottime();
    let unread = || Refusal::new(ProblemKind::Unavailable, UNREAD);
    let nothing = |known| match known {
        Known::Absent => Ok(None),
        Known::Unread => Err(unread()),
        Known::TooMany => {
            let detail = "too many leases are asked for that this gateway does not serve";
            Err(Refusal::new(ProblemKind::TooMany, detail))
        }
    };
    let look = match office.lookups.begin(id, now()) {
        Ok(look) => look,
        Err(known) => return nothing(known),
    };
    let _turn = look.turn().await;
    if let Some(known) = office.lookups.known(id, now()) {
        return nothing(known);
    }
    match find_open(office, id).await {
        Ok(found) => {
            if found.is_none() {
                office.lookups.note(id, Known::Absent, now());
            }
            Ok(found)
        }
        Err(error) => {
            office.lookups.note(id, Known::Unread, now());
            if office.lookups.says(now()) {
                tracing::error!(cause = %chain(&error), "{UNREAD}");
            }
            Err(unread())
        }
    }
}
