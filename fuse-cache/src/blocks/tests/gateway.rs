//! A gateway of one lease on loopback: real TLS, ledger, releases and sealed bytes, and faults on
//! demand.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use getrandom::SysRng;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_kit::clock::now_unix;
use tidegate_kit::tls::{Authority, PeerIdentity, server_config};
use tidegate_ledger::{Digest, Event, Ledger, SigningKey, commit, verify_signature};
use tidegate_plan::{InstanceId, TokenId};
use tidegate_seal::rand_core::UnwrapErr;
use tidegate_seal::{Release, depth, seal_release, verify_attach_proof};
use tidegate_wire::{
    AttachRequest, AttachResponse, Challenge, Directive, HeartbeatReply, JoinFile, KeyGrant,
    KeyRequest, Problem, ProblemKind, Receipt,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::home::Home;

/// What goes wrong with one fetch of a block.
#[derive(Clone)]
pub(crate) enum Fault {
    /// One bit of the sealed bytes.
    Flip(usize),
    /// One byte fewer is announced and sent.
    Short,
    /// The connection ends after so many bytes.
    Tear(usize),
    Refuse(ProblemKind),
    /// Refused after so long.
    Late(Duration, ProblemKind),
    /// Another block's bytes, of the right length.
    Swap(u32),
    /// Not sealed at all.
    Garbage,
    /// The bytes stop there until notified.
    Hold(usize, Arc<Notify>),
    /// The same, with a bit changed behind.
    HoldAndFlip(usize, usize, Arc<Notify>),
}

#[derive(Default)]
pub(crate) struct Faults {
    /// For the next fetches of a block, one each.
    pub(crate) next: Mutex<HashMap<u32, VecDeque<Fault>>>,
    /// For every fetch of a block.
    pub(crate) always: Mutex<HashMap<u32, Fault>>,
    /// Nobody is answered.
    pub(crate) down: AtomicBool,
    /// Connections and requests that were not answered for that.
    pub(crate) unanswered: AtomicU32,
    /// Blocks in the order they were asked for.
    pub(crate) asked: Mutex<Vec<u32>>,
    /// For every release.
    pub(crate) no_keys: Mutex<Option<ProblemKind>>,
    /// Releases wait for it.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Windows in the order they were released.
    pub(crate) released: Mutex<Vec<Range<u32>>>,
}

impl Faults {
    fn is_down(&self) -> bool {
        let down = self.down.load(Ordering::Relaxed);
        self.unanswered.fetch_add(down.into(), Ordering::Relaxed);
        down
    }

    pub(crate) fn once(&self, block: u32, fault: Fault) {
        self.next.lock().unwrap().entry(block).or_default().push_back(fault);
    }

    pub(crate) fn always(&self, block: u32, fault: Fault) {
        self.always.lock().unwrap().insert(block, fault);
    }

    /// Times that a block's key was released.
    pub(crate) fn released_for(&self, block: u32) -> usize {
        self.released.lock().unwrap().iter().filter(|window| window.contains(&block)).count()
    }

    pub(crate) fn asked_for(&self, block: u32) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| **asked == block).count()
    }

    fn of(&self, block: u32) -> Option<Fault> {
        self.asked.lock().unwrap().push(block);
        let next = self.next.lock().unwrap().get_mut(&block).and_then(VecDeque::pop_front);
        next.or_else(|| self.always.lock().unwrap().get(&block).cloned())
    }
}

pub(crate) struct Gateway {
    pub(crate) home: Home,
    pub(crate) join: JoinFile,
    pub(crate) faults: Faults,
    authority: Arc<Authority>,
    ledger: Mutex<Ledger>,
    signer: SigningKey,
    epoch: Mutex<u32>,
    /// Of the keys it releases.
    pub(crate) expiry: Mutex<u64>,
    /// Of the newest attachment.
    hpke: Mutex<Vec<u8>>,
    salt: AtomicU8,
    /// What answers below `results/`: the route there and the request's body.
    pub(crate) results: OnceLock<ResultsRoute>,
}

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type ResultsRoute = Box<
    dyn Fn(String, Bytes) -> Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>
        + Send
        + Sync,
>;

impl Gateway {
    pub(crate) async fn start(home: Home) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let authority = Arc::new(Authority::generate().unwrap());
        let signer = SigningKey::from_seed("tidegate/test", [3; 32]).unwrap();
        let token = TokenId::from_bytes([4; 16]);
        let join = JoinFile {
            version: JoinFile::VERSION,
            gateways: vec![format!("https://{addr}")],
            ca: authority.certificate_pem().into(),
            ledger_key: signer.vkey(),
            lease: home.lease,
            rank: 0,
            token,
            secret: home.key.join_secret(&token).expose().as_slice().into(),
        };
        let gateway = Arc::new(Self {
            home,
            join,
            faults: Faults::default(),
            ledger: Mutex::new(Ledger::new(signer.verifier().clone())),
            authority,
            signer,
            epoch: Mutex::new(0),
            expiry: Mutex::new(now_unix() + 3600),
            hpke: Mutex::default(),
            salt: AtomicU8::new(0),
            results: OnceLock::new(),
        });
        gateway.record(Event::LedgerOpened { origin: "tidegate/test".into(), after: None });
        tokio::spawn(Arc::clone(&gateway).serve(listener));
        gateway
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let config = server_config(&self.authority, &["127.0.0.1".into()]).unwrap();
        let acceptor = TlsAcceptor::from(config);
        while let Ok((tcp, _)) = listener.accept().await {
            let (gateway, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move {
                if gateway.faults.is_down() {
                    return;
                }
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let peer = PeerIdentity::of(tls.get_ref().1).unwrap();
                let service = service_fn(move |request| {
                    let (gateway, peer) = (Arc::clone(&gateway), peer.clone());
                    async move { gateway.answer(request, peer).await }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                let _peer_gone = serving.serve_connection(TokioIo::new(tls), service).await;
            });
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Option<PeerIdentity>,
    ) -> Result<Response<Body>, io::Error> {
        if self.faults.is_down() {
            return Err(io::Error::other("down"));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let lease = format!("/v1/leases/{}/", self.home.lease);
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(match (method, path.as_str()) {
            (Method::POST, "/v1/challenge") => {
                json(&Challenge { nonce: vec![5; 32].into(), expires_in: 60, time: now_unix() })
            }
            (Method::POST, "/v1/attach") => self.attach(&from(&body)),
            (method, path) => {
                let peer = peer.expect("routes of a lease need a certificate");
                assert_eq!(peer.lease, self.home.lease);
                let rest = path.strip_prefix(&lease).expect("no other lease is asked for");
                match (method, rest.split_once('/')) {
                    (Method::POST, None) if rest == "keys" => self.keys(&from(&body)).await,
                    (Method::POST, None) if rest == "heartbeat" => json(&HeartbeatReply {
                        directive: Directive::Continue,
                        deadline: 0,
                        certificate: Some(self.certificate(&peer.public_key, peer.instance)),
                        time: now_unix(),
                    }),
                    (Method::POST, Some(("results", route))) => {
                        let results = self.results.get().expect("the lease has results");
                        return results(route.to_owned(), body).await;
                    }
                    (Method::GET, None) if rest == "manifest" => {
                        respond(200, Full::from(self.home.sealed_manifest()))
                    }
                    (Method::GET, Some(("blocks", number))) => {
                        self.block(number.parse().unwrap()).await
                    }
                    _ => panic!("{path}"),
                }
            }
        })
    }

    fn attach(&self, request: &AttachRequest) -> Response<Body> {
        let transcript = request.transcript();
        let secret = self.home.key.join_secret(&request.token);
        let public_key: [u8; 32] = request.identity_key.0.as_slice().try_into().unwrap();
        if !verify_signature(&public_key, &transcript, &request.signature.0)
            || !verify_attach_proof(&secret, &transcript, &request.proof.0)
        {
            return problem(ProblemKind::Unauthenticated);
        }
        *self.hpke.lock().unwrap() = request.hpke_key.0.clone();
        let (certificate, certificate_expires) = self.certificate(&public_key, request.instance);
        json(&AttachResponse {
            terms: self.home.terms(),
            certificate,
            certificate_expires,
            revision: 2,
            receipt: self.record(Event::Attached {
                lease: self.home.lease,
                rank: 0,
                instance: request.instance,
                identity: Digest::from_bytes(public_key),
                facts: commit(&[0; 32], b"facts"),
                revision: 2,
            }),
            time: now_unix(),
        })
    }

    fn certificate(&self, public_key: &[u8; 32], instance: InstanceId) -> (String, u64) {
        let (lease, now) = (self.home.lease, now_unix());
        self.authority.issue_client(public_key, &lease, 0, &instance, now, now + 900).unwrap()
    }

    async fn keys(&self, request: &KeyRequest) -> Response<Body> {
        if let Some(kind) = *self.faults.no_keys.lock().unwrap() {
            return problem(kind);
        }
        drop(self.faults.gate.lock().await);
        let terms = self.home.terms();
        let window = request.first_block..request.end_block;
        assert!(window.len() <= terms.window_blocks as usize, "{window:?}");
        self.faults.released.lock().unwrap().push(window);
        let epoch = {
            let mut epoch = self.epoch.lock().unwrap();
            *epoch += 1;
            *epoch
        };
        let KeyRequest { first_block, end_block } = *request;
        let receipt = self.record(Event::KeysReleased {
            lease: self.home.lease,
            rank: 0,
            epoch,
            first_block,
            end_block,
            bytes: 0,
        });
        let mut grant = KeyGrant {
            lease: terms.lease,
            layout: terms.layout,
            rank: 0,
            epoch,
            first_block,
            end_block,
            expiry: *self.expiry.lock().unwrap(),
            sealed: Vec::new().into(),
            receipt,
            time: now_unix(),
        };
        let root = self.home.key.tree_root();
        let release = Release {
            manifest_key: self.home.key.manifest_key(0),
            cover: root.cover(depth(terms.blocks), first_block..end_block),
        };
        let secret = self.home.key.join_secret(&self.join.token);
        let public = self.hpke.lock().unwrap().clone();
        let rng = &mut UnwrapErr(SysRng);
        let sealed = seal_release(&public, &secret, &self.join.token, &grant.aad(), &release, rng);
        grant.sealed = sealed.unwrap().into();
        json(&grant)
    }

    async fn block(&self, number: u32) -> Response<Body> {
        let fault = self.faults.of(number);
        let salt = self.salt.fetch_add(1, Ordering::Relaxed);
        let mut sealed = self.home.sealed_block(number, salt);
        match fault {
            None => respond(200, Full::from(sealed)),
            Some(Fault::Flip(at)) => {
                sealed[at] ^= 1;
                respond(200, Full::from(sealed))
            }
            Some(Fault::Short) => {
                sealed.pop();
                respond(200, Full::from(sealed))
            }
            Some(Fault::Garbage) => {
                sealed.fill(0x55);
                respond(200, Full::from(sealed))
            }
            Some(Fault::Swap(other)) => {
                let mut other = self.home.sealed_block(other, salt);
                other.resize(sealed.len(), 0);
                respond(200, Full::from(other))
            }
            Some(Fault::Refuse(kind)) => problem(kind),
            Some(Fault::Late(delay, kind)) => {
                tokio::time::sleep(delay).await;
                problem(kind)
            }
            Some(Fault::Tear(at)) => {
                let sent = Bytes::from(sealed).slice(..at);
                let frames = [Ok(Frame::data(sent)), Err(io::Error::other("torn"))];
                streamed(number, &self.home, stream::iter(frames))
            }
            Some(Fault::Hold(at, go_on)) => self.held(number, sealed, at, go_on),
            Some(Fault::HoldAndFlip(at, bit, go_on)) => {
                sealed[bit] ^= 1;
                self.held(number, sealed, at, go_on)
            }
        }
    }

    fn held(&self, number: u32, sealed: Vec<u8>, at: usize, go_on: Arc<Notify>) -> Response<Body> {
        let mut rest = Bytes::from(sealed);
        let first = rest.split_to(at);
        let frames = stream::iter([Ok(Frame::data(first))]).chain(stream::once(async move {
            go_on.notified().await;
            Ok(Frame::data(rest))
        }));
        streamed(number, &self.home, frames)
    }

    fn record(&self, event: Event) -> Receipt {
        let mut ledger = self.ledger.lock().unwrap();
        let writer = InstanceId::from_bytes([6; 16]);
        let batch = ledger.propose([event], now_unix(), writer, &self.signer).unwrap();
        ledger.accept(&batch).unwrap();
        let receipt = ledger.receipt(batch.first, batch.entries[0].clone()).unwrap();
        Receipt {
            entry: receipt.entry,
            index: receipt.index,
            proof: receipt.proof.iter().map(|hash| hash.as_ref().into()).collect(),
            checkpoint: receipt.checkpoint,
        }
    }
}

pub(crate) fn from<T: DeserializeOwned>(body: &Bytes) -> T {
    serde_json::from_slice(body).unwrap()
}

pub(crate) fn json(value: &impl Serialize) -> Response<Body> {
    respond(200, Full::from(serde_json::to_vec(value).unwrap()))
}

pub(crate) fn problem(kind: ProblemKind) -> Response<Body> {
    respond(kind.status(), Full::from(serde_json::to_vec(&Problem::new(kind, "")).unwrap()))
}

pub(crate) fn respond(status: u16, body: Full<Bytes>) -> Response<Body> {
    let body = body.map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

/// With the block's true length announced, whatever comes.
fn streamed(
    number: u32,
    home: &Home,
    frames: impl stream::Stream<Item = Result<Frame<Bytes>, io::Error>> + Send + 'static,
) -> Response<Body> {
    let len = tidegate_plan::sealed_len(home.layout.block(number).unwrap().plain_len.into());
    let body = StreamBody::new(frames).boxed_unsync();
    Response::builder().header("content-length", len).body(body).unwrap()
}
