//! Challenge and attach: we show that we hold the join token's secret and our identity key, and
//! take nothing from a gateway that does not show the attachment in its ledger.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use getrandom::SysRng;
use tidegate_kit::clock::{BootClock, boottime};
use tidegate_kit::tls::Endpoint;
use tidegate_ledger::Event;
use tidegate_plan::InstanceId;
use tidegate_seal::rand_core::UnwrapErr;
use tidegate_seal::{HpkeKeyPair, JoinSecret, attach_proof};
use tidegate_wire::{
    AttachRequest, AttachResponse, Base64, Challenge, Evidence, JoinFile, LeaseTerms, NodeFacts,
};

use super::pool::Pool;
use super::receipt::Ledger;
use super::{Client, ClientError, Identity};
use crate::keys::KeyRing;
use crate::life::Life;

/// A successful attachment.
#[derive(Debug)]
pub struct Attached {
    pub terms: LeaseTerms,
    /// Lease revision that it made.
    pub revision: u64,
    /// Signed head of the ledger at that moment.
    pub checkpoint: String,
    pub client: Arc<Client>,
}

/// Attaches to the join file's lease, asking its gateways in order.
pub async fn attach(
    join: &JoinFile,
    identity: &Identity,
    facts: NodeFacts,
) -> Result<Attached, ClientError> {
    let endpoints = join.gateways.iter().map(|url| {
        Endpoint::parse(url)
            .ok_or_else(|| ClientError::Nonsense(format!("{url:?} is no https://host:port")))
    });
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    let secret = JoinSecret::from_slice(&join.secret.0)
        .ok_or_else(|| ClientError::Nonsense("the join file's secret is not 32 bytes".into()))?;
    let mut pool = Pool::anonymous(endpoints, &join.ca)?;
    let challenge: Challenge = pool.post_bytes("/v1/challenge", Bytes::new()).await?;
    let ledger = Ledger::new(&join.ledger_key)?;

    let hpke = HpkeKeyPair::generate(&mut UnwrapErr(SysRng));
    let instance = InstanceId::from_bytes(random()?);
    let mut request = AttachRequest {
        lease: join.lease,
        token: join.token,
        nonce: challenge.nonce,
        instance,
        identity_key: identity.public_key().as_slice().into(),
        hpke_key: hpke.public().into(),
        facts: facts.to_text(),
        evidence: Evidence::default().to_text(),
        proof: Base64::default(),
        signature: Base64::default(),
    };
    let transcript = request.transcript();
    request.proof = attach_proof(&secret, &transcript).as_slice().into();
    request.signature = identity.sign(&transcript).as_slice().into();
    let asked = boottime();
    let response: AttachResponse = pool.post("/v1/attach", &request).await?;

    let AttachResponse { terms, certificate, revision, receipt, time, .. } = response;
    let share_is_sound = terms.first_block <= terms.end_block
        && terms.end_block <= terms.blocks
        && terms.window_blocks > 0;
    if (terms.lease, terms.rank) != (join.lease, join.rank) || !share_is_sound {
        return Err(ClientError::Nonsense("the terms are of another lease or rank".into()));
    }
    ledger.check(&receipt, |event| {
        matches!(event, Event::Attached { lease, rank, instance: named, identity: key, revision: made, .. }
            if (*lease, *rank, *named, *made) == (terms.lease, terms.rank, instance, revision)
                && *key.as_bytes() == identity.public_key())
    })?;
    pool.renew(&join.ca, &certificate, identity)?;
    let seconds = Duration::from_secs;
    let (grace, left) = (seconds(terms.grace.into()), seconds(terms.deadline.saturating_sub(time)));
    let life = Life::new(BootClock::Real, asked, grace, left);
    pool.hurry(grace);
    let client = Client {
        join: join.clone(),
        secret,
        identity: identity.clone(),
        instance,
        ring: Arc::new(KeyRing::new(&terms, life)),
        terms: terms.clone(),
        hpke,
        pool,
        ledger,
    };
    Ok(Attached { terms, revision, checkpoint: receipt.checkpoint, client: Arc::new(client) })
}

fn random<const N: usize>() -> Result<[u8; N], ClientError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|why| ClientError::Nonsense(format!("this node gives no random bytes: {why}")))?;
    Ok(bytes)
}
