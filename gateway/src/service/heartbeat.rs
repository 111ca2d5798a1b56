//! `POST /v1/leases/{lease}/heartbeat`: a sign of life and its counters. Writes no revision.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tidegate_lease::Standing;
use tidegate_wire::{Directive, Heartbeat, HeartbeatReply, ProblemKind};

use super::call::Call;
use crate::admission::Purpose;
use crate::certifying::{Holder, issue};
use crate::json::json;
use crate::keepers::{heard, write_down};
use crate::live::Live;
use crate::office::Office;
use crate::problem::Refusal;

/// A sign of life; brings the gateway's word and, when it is due, a new certificate.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/heartbeat", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = Heartbeat,
    responses((status = 200, description = "Heard", body = HeartbeatReply)),
))]
pub(super) async fn heartbeat(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Speak).await?;
    let beat: Heartbeat = call.json().await?;
    if beat.instance != admitted.peer.instance {
        let detail = "the heartbeat is of another process";
        return Err(Refusal::new(ProblemKind::Malformed, detail));
    }
    let now = office.now();
    let presence = admitted.live.presence(admitted.rank);
    presence.beat(beat.counters, now);
    if office.is_replicated() {
        heard(&office, &admitted, now).await?;
    }
    let directive = directive(&admitted.live, now);
    // Also while draining: the wipe certificate is still to come.
    let certificate = if presence.wants_certificate(now) {
        if office.is_replicated() {
            write_down(&office, &admitted.live, now).await?;
        }
        let holder = Holder {
            rank: admitted.rank,
            instance: admitted.peer.instance,
            identity: admitted.peer.public_key,
        };
        Some(issue(&office, &admitted.live, &holder, now)?)
    } else {
        None
    };
    let deadline = admitted.live.view().document.lease.deadline;
    Ok(json(&HeartbeatReply { directive, deadline, certificate, time: now }))
}

/// What the worker is to do; without its lease's key there is nothing to finish.
fn directive(live: &Live, now: u64) -> Directive {
    match live.view().document.lease.standing(now) {
        _ if live.is_over() => Directive::Die,
        Standing::Continue => Directive::Continue,
        Standing::Drain => Directive::Drain,
        Standing::Die => Directive::Die,
    }
}
