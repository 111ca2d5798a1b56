//! Everything that talks to the gateway: TLS 1.3 to addresses and under an authority that the join
//! file names, and HTTP/1.1 over as many connections as there are requests under way.
//!
//! [`attach`] proves who we are and makes a [`Client`]. Whatever the gateway answers is checked:
//! releases and certificates against the ledger's receipts, lengths against what was granted.

mod attach;
mod block;
mod connection;
mod error;
mod idle;
mod link;
mod manifest;
mod outgoing;
mod pool;
mod receipt;
mod results;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_ledger::{Event, WipeCertificate};
use tidegate_plan::InstanceId;
use tidegate_seal::{BlockKey, HpkeKeyPair, JoinSecret};
use tidegate_wire::{
    Counters, Heartbeat, HeartbeatReply, JoinFile, KeyGrant, KeyRequest, LeaseTerms, MAX_WIPE_BODY,
    NodeFacts, WipeReceipt, WipeStatement,
};

use crate::keys::{KeyError, KeyRing};
use pool::{Pool, json};
use receipt::Ledger;

pub use attach::{Attached, attach};
pub use block::BlockBody;
pub use error::ClientError;
pub use manifest::ManifestBytes;
pub(crate) use outgoing::{Outgoing, Piece, Source};
/// The worker's Ed25519 identity: one copy in memory, wiped with the last clone.
pub use tidegate_kit::tls::IdentityKey as Identity;

/// No lease is longer than this; a gateway that says so is not to be believed.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// One attachment to a lease.
pub struct Client {
    join: JoinFile,
    secret: JoinSecret,
    identity: Identity,
    instance: InstanceId,
    terms: LeaseTerms,
    hpke: HpkeKeyPair,
    pool: Pool,
    ledger: Ledger,
    ring: Arc<KeyRing>,
}

impl Client {
    /// This attachment's random id.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    pub fn terms(&self) -> &LeaseTerms {
        &self.terms
    }

    /// The keys that were released to this attachment.
    pub fn ring(&self) -> &Arc<KeyRing> {
        &self.ring
    }

    /// Asks for the keys of a window of blocks, checks that the release is in the ledger, and opens
    /// the window on this attachment's ring. No blocks: the manifest's key alone. Repeatable, and an
    /// entry in the ledger each time. Returns the manifest's key.
    pub async fn keys(&self, window: Range<u32>) -> Result<BlockKey, ClientError> {
        let (first, end) = (window.start, window.end);
        let request = KeyRequest { first_block: first, end_block: end };
        let grant: KeyGrant = self.pool.post(&self.route("keys"), &request).await?;
        let terms = &self.terms;
        let asked = (terms.lease, terms.layout, terms.rank, first, end);
        if (grant.lease, grant.layout, grant.rank, grant.first_block, grant.end_block) != asked {
            return Err(ClientError::Nonsense("the key grant is for something else".into()));
        }
        self.ledger.check(&grant.receipt, |event| {
            matches!(event, Event::KeysReleased { lease, rank, epoch, first_block, end_block, .. }
                if (*lease, *rank, *epoch) == (grant.lease, grant.rank, grant.epoch)
                    && (*first_block, *end_block) == (first, end))
        })?;
        let release = self
            .hpke
            .open_release(&self.secret, &self.join.token, &grant.aad(), &grant.sealed.0)
            .map_err(|_| ClientError::Untrusted("the released keys cannot be opened".into()))?;
        if release.cover.range() != window {
            return Err(ClientError::Nonsense("the keys are of other blocks".into()));
        }
        if !window.is_empty() {
            let life = Duration::from_secs(grant.expiry.saturating_sub(grant.time));
            if life > LONGEST_LIFE {
                return Err(ClientError::Nonsense("the keys would live for ever".into()));
            }
            let (ring, expires) = (Arc::clone(&self.ring), boottime() + life);
            let opened = tokio::task::spawn_blocking(move || ring.open(release.cover, expires));
            let opened = opened.await.unwrap_or(Err(KeyError::Over));
            opened.map_err(|_| ClientError::Nonsense("the keys are already destroyed".into()))?;
        }
        Ok(release.manifest_key)
    }

    /// Fetches and opens the share's manifest, piece by piece, into memory of its own.
    pub async fn manifest(&self, key: &BlockKey) -> Result<ManifestBytes, ClientError> {
        let len = manifest::sealed_length(self.terms.manifest_len);
        let body = self.pool.get_sealed(&self.route("manifest"), len).await?;
        manifest::read(&self.terms, key, body).await
    }

    /// Begins to fetch a block whose sealed length is known from the manifest, in bytes.
    pub async fn block(&self, number: u32, sealed_len: u64) -> Result<BlockBody, ClientError> {
        self.pool.get_sealed(&self.route(&format!("blocks/{number}")), sealed_len).await
    }

    /// Attaches again as the same worker, with keys and certificate of its own: what this attachment
    /// was given is of no use any more.
    pub async fn attach_again(&self, facts: NodeFacts) -> Result<Attached, ClientError> {
        let attached = attach(&self.join, &self.identity, facts).await?;
        let same = |terms: &LeaseTerms| (terms.layout, terms.first_block, terms.end_block);
        if same(&attached.terms) != same(&self.terms) {
            return Err(ClientError::Nonsense("the terms are not those of before".into()));
        }
        Ok(attached)
    }

    /// Says that we live, which moves the end of our [`Life`](crate::life::Life), and takes the newer
    /// certificate if one comes: connections made from now on show it, and those that showed the old
    /// one are used no more.
    pub async fn heartbeat(&self, counters: Counters) -> Result<HeartbeatReply, ClientError> {
        let beat = Heartbeat { instance: self.instance, counters };
        let asked = boottime();
        let reply: HeartbeatReply = self.pool.post(&self.route("heartbeat"), &beat).await?;
        self.ring.life().heard(asked);
        if let Some((certificate, _)) = &reply.certificate {
            self.pool.renew(&self.join.ca, certificate, &self.identity)?;
        }
        Ok(reply)
    }

    /// Signs and posts what we state about the wipe (canonical JSON of `tidegate_ledger::Stated`)
    /// and checks the certificate that comes back: ours, and in the ledger.
    pub async fn wipe_certificate(
        &self,
        statement: String,
        facts: NodeFacts,
    ) -> Result<WipeReceipt, ClientError> {
        let signature = self.identity.sign(statement.as_bytes()).as_slice().into();
        let stated = WipeStatement { statement, facts, signature };
        let (route, body) = (self.route("wipe-certificate"), Outgoing::whole(json(&stated)?));
        let receipt: WipeReceipt = self.pool.post_patiently(&route, &body, MAX_WIPE_BODY).await?;
        let certificate = WipeCertificate::parse(&receipt.certificate)
            .map_err(|why| ClientError::Untrusted(format!("the wipe certificate: {why}")))?;
        let ours = certificate.stated.as_ref().and_then(|stated| stated.to_canonical().ok());
        if ours.as_deref() != Some(stated.statement.as_str()) {
            return Err(ClientError::Untrusted("the certificate states something else".into()));
        }
        let digest = certificate
            .digest()
            .map_err(|why| ClientError::Untrusted(format!("the wipe certificate: {why}")))?;
        self.ledger.check(&receipt.receipt, |event| match event {
            Event::Wiped { lease, rank, certificate }
            | Event::Withdrawn { lease, rank, certificate } => {
                (*lease, *rank, *certificate) == (self.terms.lease, self.terms.rank, digest)
            }
            _ => false,
        })?;
        Ok(receipt)
    }

    fn route(&self, rest: &str) -> String {
        format!("/v1/leases/{}/{rest}", self.terms.lease)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("lease", &self.terms.lease)
            .field("rank", &self.terms.rank)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
