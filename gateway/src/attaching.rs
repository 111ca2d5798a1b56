//! A worker joins a lease: proof, then revision, then ledger entry, then the answer.

use std::sync::Arc;

use tidegate_lease::{Attachment, Event as LeaseEvent, Identity, Lease, Refusal as LeaseRefusal};
use tidegate_ledger::{Digest, Event, to_canonical, verify_signature};
use tidegate_seal::{HPKE_PUBLIC_LEN, verify_attach_proof};
use tidegate_wire::{AttachRequest, AttachResponse, Evidence, NodeFacts, ProblemKind};

use crate::admission::{UNREAD, refuse, refused};
use crate::certifying::{Holder, issue};
use crate::live::Live;
use crate::nonce::NonceError;
use crate::office::Office;
use crate::problem::Refusal;
use crate::record::RecordError;
use crate::recovery::{chain, find_open};
use crate::refusals::Reason;

/// Longest text of facts and evidence that becomes a document, bytes.
const FACTS_MAX: usize = 64 * 1024;

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
    let now = office.now();
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
        return Err(Refusal::new(ProblemKind::TooLarge, "facts and evidence have at most 64 KiB"));
    }
    live.presence(rank).allow_attach(now)?;

    let turn = live.turn.lock().await;
    let change = LeaseEvent::Attach {
        token: request.token,
        identity: Identity(identity),
        instance: request.instance,
    };
    let advanced = office
        .advance(&live, |document| {
            // Whoever stated a wipe, complete or not, has got what there was to get.
            if document.certificates.contains_key(&rank) {
                return Err(LeaseRefusal::RankWiped);
            }
            document.lease = document.lease.apply(change.clone(), now)?;
            if fenced(&document.lease, rank).is_some() {
                document.fenced_bytes += document.released_bytes.remove(&rank).unwrap_or_default();
            }
            document.hpke.insert(rank, request.hpke_key.clone());
            document.kept_by(rank, &office.replica, now);
            Ok(())
        })
        .await;
    let (revision, document) = match advanced {
        Ok(advanced) => advanced,
        Err(error) => return Err(refused(office, live.id, error).await),
    };
    let facts = office.record.document(facts).await?;
    let fenced = fenced(&document.lease, rank);
    let fenced = fenced.map(|held| Event::Fenced { lease: live.id, rank, instance: held.instance });
    let attached = Event::Attached {
        lease: live.id,
        rank,
        instance: request.instance,
        identity: Digest::from_bytes(identity),
        facts,
        revision,
    };
    let receipts = office.record.append(fenced.into_iter().chain([attached]).collect()).await?;
    let receipt = receipts.into_iter().next_back().ok_or(RecordError::NoReceipt)?;
    drop(turn);

    let terms = crate::serving::terms(office, &live, &document, rank).await?;
    let holder = Holder { rank, instance: request.instance, identity };
    let (certificate, certificate_expires) = issue(office, &live, &holder, now)?;
    live.presence(rank).seen(now);
    crate::meters::ATTACHED.add(1);
    tracing::info!(lease = %live.id, rank, instance = %request.instance, "a worker attached");
    Ok(AttachResponse { terms, certificate, certificate_expires, revision, receipt, time: now })
}

/// The worker that the lease's latest event took the rank from.
fn fenced(lease: &Lease, rank: u16) -> Option<&Attachment> {
    lease.fenced_last(rank).filter(|held| held.fenced_at == Some(lease.changed_at))
}

/// Every way to fail here is the same 401: the caller is a stranger until all of it holds.
async fn prove(office: &Office, request: &AttachRequest, now: u64) -> Result<Proven, Refusal> {
    let stranger = || {
        office.refusals.stranger();
        Refusal::stranger()
    };
    let nonce = office.nonces.check(&request.nonce.0, now).map_err(|_| stranger())?;
    let live = find_open(office, request.lease)
        .await
        .map_err(|error| Refusal::unavailable(UNREAD, &chain(&error)))?
        .ok_or_else(stranger)?;
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
