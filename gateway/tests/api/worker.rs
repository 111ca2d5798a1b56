//! A gateway on loopback with a small tree behind it, and a worker written by hand: TLS, HTTP and
//! JSON, nothing of the real worker's code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tidegate_gateway::source::{S3Options, SourceSpec};
use tidegate_gateway::{Gateway, GatewayConfig, GrantRequest, Granted};
use tidegate_kit::ledger_log::read_batches;
use tidegate_kit::tls::{ClientIdentity, IdentityKey, client_config};
use tidegate_ledger::{
    Discarded, Entry, Event, METHOD_OVERWRITE, Stated, StatedCounters, StatedFacts, VerifierKey,
};
use tidegate_plan::{InstanceId, SelectionSpec};
use tidegate_seal::{HpkeKeyPair, Release, attach_proof};
use tidegate_wire::{
    AttachRequest, AttachResponse, Challenge, Counters, Evidence, Heartbeat, HeartbeatReply,
    JoinFile, KeyGrant, KeyRequest, NodeFacts, Problem, ProblemKind, WipeReceipt, WipeStatement,
};

/// A gateway and what it serves.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) gateway: Gateway,
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Files of the tree: small ones, an empty one, one that takes whole blocks and a tail.
pub(crate) fn tree(root: &Path) {
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    for n in 0..40_u8 {
        std::fs::write(root.join(format!("a/small-{n:02}")), vec![n; usize::from(n) * 100])
            .unwrap();
    }
    std::fs::write(root.join("a/b/empty"), b"").unwrap();
    let large: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(root.join("a/b/large"), large).unwrap();
    std::fs::write(root.join("secret-name-not-selected"), b"no").unwrap();
}

impl Home {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        tree(&dir.path().join("data"));
        let gateway = Gateway::start(Self::config(dir.path(), change)).await.unwrap();
        Self { dir, gateway }
    }

    pub(crate) fn config(dir: &Path, change: impl FnOnce(&mut GatewayConfig)) -> GatewayConfig {
        let source = dir.join("data").to_str().unwrap().to_owned();
        let mut config = GatewayConfig::embedded(dir.join("state"), source);
        change(&mut config);
        config
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn request(&self) -> GrantRequest {
        let data = self.dir.path().join("data");
        GrantRequest {
            source: SourceSpec::parse(data.to_str().unwrap(), S3Options::default()).unwrap(),
            selection: SelectionSpec { include: vec!["a/**".to_owned()], ..Default::default() },
            ranks: 1,
            only_rank: None,
            duration: Duration::from_secs(3600),
            subject: "somebody".to_owned(),
            dataset: "set".to_owned(),
            results: None,
        }
    }

    pub(crate) async fn grant(&self) -> Granted {
        self.gateway.grant(self.request()).await.unwrap()
    }

    pub(crate) async fn grant_ranks(&self, ranks: u16) -> Granted {
        self.gateway.grant(GrantRequest { ranks, ..self.request() }).await.unwrap()
    }

    /// Every entry in the ledger, from disk, in order.
    pub(crate) async fn entries(&self) -> Vec<Entry> {
        entries(&self.state()).await
    }

    /// Events of the ledger without those every grant makes.
    pub(crate) async fn events(&self) -> Vec<Event> {
        self.entries().await.into_iter().map(|entry| entry.event).collect()
    }
}

/// Of a state directory, or of the folder of one of its ledgers.
pub(crate) async fn entries(state: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let of_state = state.join("ledger/batches");
    let batches = if of_state.is_dir() { of_state } else { state.join("batches") };
    for (_, bytes) in read_batches(&batches).unwrap() {
        let batch = tidegate_ledger::Batch::parse(&bytes).unwrap();
        entries.extend(batch.entries.iter().map(|text| Entry::parse(text).unwrap()));
    }
    entries
}

/// An answer read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem document, checked against status and media type.
    pub(crate) fn problem(&self) -> ProblemKind {
        assert_ne!(self.status, 200);
        assert_eq!(self.headers["content-type"], Problem::MEDIA_TYPE);
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        let text = String::from_utf8_lossy(&self.body).to_lowercase();
        for word in ["small-", "b/large", "secret-name", "/data", "somebody"] {
            assert!(!text.contains(word), "{text} leaks {word}");
        }
        problem.kind
    }
}

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Connection = hyper::client::conn::http1::SendRequest<Body>;

pub(crate) async fn ask(
    connection: &mut Connection,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, Failed> {
    send(connection, method, path, Body::from(body)).await
}

/// The same with a body that may come by and by.
pub(crate) async fn send(
    connection: &mut Connection,
    method: &str,
    path: &str,
    body: Body,
) -> Result<Answer, Failed> {
    let request =
        Request::builder().method(method).uri(path).header("host", "gateway").body(body)?;
    connection.ready().await?;
    let (parts, body) = connection.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// A worker by hand.
pub(crate) struct Worker {
    pub(crate) addr: std::net::SocketAddr,
    pub(crate) join: JoinFile,
    pub(crate) identity: IdentityKey,
    pub(crate) hpke: HpkeKeyPair,
    pub(crate) instance: InstanceId,
    pub(crate) certificate: Option<String>,
}

impl Worker {
    pub(crate) fn new(home: &Home, join: &JoinFile) -> Self {
        Self {
            addr: home.gateway.addr(),
            join: join.clone(),
            identity: IdentityKey::generate(),
            hpke: HpkeKeyPair::generate(&mut rng()),
            instance: InstanceId::from_bytes(random()),
            certificate: None,
        }
    }

    pub(crate) async fn attached(home: &Home, join: &JoinFile) -> Self {
        let mut worker = Self::new(home, join);
        worker.attach().await.unwrap();
        worker
    }

    /// One request on a connection of its own; with the certificate, if there is one.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        self.try_call(method, path, body).await.unwrap()
    }

    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer, Failed> {
        ask(&mut self.connect().await?, method, path, body).await
    }

    /// A connection of its own; with the certificate, if there is one.
    pub(crate) async fn connect(&self) -> Result<Connection, Failed> {
        let identity = self
            .certificate
            .clone()
            .map(|certificate| ClientIdentity { certificate, key: self.identity.clone() });
        let config = client_config(&self.join.ca, identity.as_ref())?;
        let stream = tokio::net::TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    pub(crate) async fn challenge(&self) -> Challenge {
        self.call("POST", "/v1/challenge", Vec::new()).await.json()
    }

    /// A request that holds in every way.
    pub(crate) async fn attach_request(&self) -> AttachRequest {
        let mut request = AttachRequest {
            lease: self.join.lease,
            token: self.join.token,
            nonce: self.challenge().await.nonce,
            instance: self.instance,
            identity_key: self.identity.public_key().as_slice().into(),
            hpke_key: self.hpke.public().into(),
            facts: NodeFacts { host: "node".to_owned(), ..NodeFacts::default() }.to_text(),
            evidence: Evidence::default().to_text(),
            proof: Vec::new().into(),
            signature: Vec::new().into(),
        };
        self.sign(&mut request);
        request
    }

    pub(crate) fn secret(&self) -> tidegate_seal::JoinSecret {
        tidegate_seal::JoinSecret::from_slice(&self.join.secret.0).unwrap()
    }

    pub(crate) fn sign(&self, request: &mut AttachRequest) {
        let transcript = request.transcript();
        request.proof = attach_proof(&self.secret(), &transcript).as_slice().into();
        request.signature = self.identity.sign(&transcript).as_slice().into();
    }

    pub(crate) async fn send_attach(&self, request: &AttachRequest) -> Answer {
        let stranger = Self { certificate: None, ..self.copy() };
        stranger.call("POST", "/v1/attach", serde_json::to_vec(request).unwrap()).await
    }

    fn copy(&self) -> Self {
        Self {
            addr: self.addr,
            join: self.join.clone(),
            identity: self.identity.clone(),
            hpke: HpkeKeyPair::generate(&mut rng()),
            instance: self.instance,
            certificate: self.certificate.clone(),
        }
    }

    pub(crate) async fn attach(&mut self) -> Result<AttachResponse, ProblemKind> {
        let answer = self.send_attach(&self.attach_request().await).await;
        if answer.status != 200 {
            return Err(answer.problem());
        }
        let response: AttachResponse = answer.json();
        self.certificate = Some(response.certificate.clone());
        Ok(response)
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/leases/{}/{rest}", self.join.lease)
    }

    pub(crate) async fn post<T: serde::Serialize>(&self, rest: &str, body: &T) -> Answer {
        self.call("POST", &self.path(rest), serde_json::to_vec(body).unwrap()).await
    }

    pub(crate) async fn get(&self, rest: &str) -> Answer {
        self.call("GET", &self.path(rest), Vec::new()).await
    }

    pub(crate) async fn ask_keys(&self, first_block: u32, end_block: u32) -> Answer {
        self.post("keys", &KeyRequest { first_block, end_block }).await
    }

    pub(crate) async fn keys(&self, first_block: u32, end_block: u32) -> (KeyGrant, Release) {
        let grant: KeyGrant = self.ask_keys(first_block, end_block).await.json();
        let release = self
            .hpke
            .open_release(&self.secret(), &self.join.token, &grant.aad(), &grant.sealed.0)
            .unwrap();
        (grant, release)
    }

    pub(crate) async fn heartbeat(&self) -> Answer {
        let counters = Counters { blocks_fetched: 3, ..Counters::default() };
        self.post("heartbeat", &Heartbeat { instance: self.instance, counters }).await
    }

    pub(crate) async fn beat(&self) -> HeartbeatReply {
        self.heartbeat().await.json()
    }

    /// A statement of a complete wipe.
    pub(crate) fn stated(&self) -> Stated {
        Stated {
            v: Stated::VERSION,
            lease: self.join.lease,
            rank: self.join.rank,
            instance: self.instance,
            time: 1_800_000_000,
            keys_destroyed_at: 1_800_000_000,
            unmounted: true,
            cache_bytes: 4096,
            overwritten_bytes: 4096,
            read_back_bytes: 4096,
            mismatched_bytes: 0,
            discarded: Discarded::Done,
            unlinked: true,
            method: METHOD_OVERWRITE.to_owned(),
            page_cache_bytes_freed_without_overwrite: 0,
            counters: StatedCounters::default(),
            facts: StatedFacts::default(),
            results: None,
        }
    }

    pub(crate) fn statement(&self, stated: &Stated) -> WipeStatement {
        let statement = stated.to_canonical().unwrap();
        let signature = self.identity.sign(statement.as_bytes()).as_slice().into();
        WipeStatement { statement, facts: NodeFacts::default(), signature }
    }

    pub(crate) async fn wipe(&self) -> WipeReceipt {
        self.post("wipe-certificate", &self.statement(&self.stated())).await.json()
    }

    pub(crate) fn ledger_key(&self) -> VerifierKey {
        VerifierKey::parse(&self.join.ledger_key).unwrap()
    }

    /// Checks a receipt against the join file's key and returns the event it proves.
    pub(crate) fn proven(&self, receipt: &tidegate_wire::Receipt) -> Event {
        let (entry, _) = tidegate_ledger::verify_receipt(
            &self.ledger_key(),
            &receipt.entry,
            receipt.index,
            &receipt.proof,
            &receipt.checkpoint,
        )
        .unwrap();
        entry.event
    }
}

pub(crate) fn rng() -> tidegate_seal::rand_core::UnwrapErr<getrandom::SysRng> {
    tidegate_seal::rand_core::UnwrapErr(getrandom::SysRng)
}

/// Looks until there is something, for at most a minute.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looks).await.expect("waited for a minute")
}
