//! Wrong gateways: each leaves out one step of a right one. The simulation is worth what it finds
//! of these.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use axum::routing::post;
use hyper::HeaderMap;
use tidegate_lease::Event as LeaseEvent;
use tidegate_ledger::Event;
use tidegate_wire::{KeyGrant, KeyRequest};
use tower::ServiceExt as _;

use super::executor::{Host, Sim};
use crate::admission::{Caller, Purpose, admit, over, refused};
use crate::json::{json, read};
use crate::office::Office;
use crate::problem::Refusal;
use crate::releasing::seal;
use crate::service;

/// What a wrong gateway does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// Answers with keys, and makes their entry afterwards.
    KeysBeforeEntry,
    /// Answers however long it was held up.
    LateKeys,
    /// Lets whoever holds a certificate of the rank have keys.
    NoFence,
    /// Releases by the head it knows, without a revision.
    NoRevision,
    /// Takes a revision that is there for the one it made.
    TakenIsSuccess,
    /// Counts an entry as durable before the store does.
    AnsweredEarly,
}

/// The workers' routes, with keys as a wrong gateway gives them.
pub(super) fn router(
    office: Arc<Office>,
    planted: Option<Planted>,
    sim: &Sim,
    number: usize,
) -> Router {
    let right = service::router(Arc::clone(&office));
    match planted {
        Some(
            planted @ (Planted::KeysBeforeEntry
            | Planted::LateKeys
            | Planted::NoFence
            | Planted::NoRevision),
        ) => Router::new()
            .route("/v1/leases/{lease}/keys", post(wrong_keys))
            .layer(Extension((planted, sim.clone(), number)))
            .with_state(office)
            .fallback(move |request: Request| {
                let right = right.clone();
                async move { right.oneshot(request).await }
            }),
        _ => right,
    }
}

/// A way to work in the background of one replica.
type Wrong = (Planted, Sim, usize);

async fn wrong_keys(
    State(office): State<Arc<Office>>,
    Extension((planted, sim, number)): Extension<Wrong>,
    Extension(caller): Extension<Caller>,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let purpose = if planted == Planted::NoFence { Purpose::Settle } else { Purpose::Serve };
    let admitted = match admit(&office, &caller, &lease, purpose).await {
        Err(_) if planted == Planted::NoFence => unfenced(&office, &caller)?,
        admitted => admitted?,
    };
    let request: KeyRequest = read(&headers, body).await?;
    let (live, rank) = (Arc::clone(&admitted.live), admitted.rank);
    let turn = live.turn.lock().await;
    let now = office.now();
    if !live.serves(now) {
        return Err(over(&office, live.id).await);
    }
    if planted != Planted::NoFence && !admitted.is_newest(&live.view().document.lease) {
        return Err(over(&office, live.id).await);
    }
    let event = LeaseEvent::Release { rank, first: request.first_block, end: request.end_block };
    let document = if planted == Planted::NoRevision {
        live.view().document
    } else {
        let advanced = office
            .advance(&live, |document| {
                document.lease = document.lease.apply(event.clone(), now)?;
                document.last_release_at = Some(now);
                Ok(())
            })
            .await;
        match advanced {
            Ok((_, document)) => document,
            Err(error) => return Err(refused(&office, live.id, error).await),
        }
    };
    drop(turn);
    let epoch = document.lease.releases();
    let (first_block, end_block) = (request.first_block, request.end_block);
    let entry =
        Event::KeysReleased { lease: live.id, rank, epoch, first_block, end_block, bytes: 0 };
    let receipt = if planted == Planted::KeysBeforeEntry {
        let office = Arc::clone(&office);
        let after = async move { drop(office.record.append_one(entry).await) };
        sim.spawn(Host::Replica(number), after);
        tidegate_wire::Receipt {
            entry: String::new(),
            index: 0,
            proof: Vec::new(),
            checkpoint: String::new(),
        }
    } else {
        office.record.append_one(entry).await?
    };
    let grant = KeyGrant {
        lease: live.id,
        layout: document.lease.layout,
        rank,
        epoch,
        first_block,
        end_block,
        expiry: document.lease.deadline,
        sealed: Vec::new().into(),
        receipt,
        time: now,
    };
    Ok(json(&seal(&office, &admitted, &document, grant).await?))
}

/// Anybody with a certificate.
fn unfenced(office: &Office, caller: &Caller) -> Result<crate::admission::Admitted, Refusal> {
    let peer = caller.0.clone().ok_or_else(Refusal::stranger)?;
    let live = office.find(peer.lease).ok_or_else(Refusal::stranger)?;
    Ok(crate::admission::Admitted { live, rank: peer.rank, peer })
}
