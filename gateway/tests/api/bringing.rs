//! A worker by hand that brings results home: it seals, sends and keeps what it is told.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{iter, once};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_gateway::source::SourceSpec;
use tidegate_gateway::{GatewayConfig, GrantRequest, ResultsRequest};
use tidegate_plan::{ContentId, RESULT_BLOCK_LEN, RESULT_PART_LEN};
use tidegate_seal::{BlockKey, Context, seal_content_key, seal_message};
use tidegate_wire::{
    Attributes, BeginReply, BeginRequest, Change, ChangeRequest, Changed, CommitRequest,
    PartReceipt, PartRequest, ResultsTerms, StoreRequest, Stored, frame_head,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::worker::{Answer, Home, Worker, random, rng, send};

/// Blocks of a whole part.
const BLOCKS: u64 = (RESULT_PART_LEN / RESULT_BLOCK_LEN) as u64;

pub(crate) const ATTRIBUTES: Attributes =
    Attributes { mode: 0o640, mtime_s: 1_700_000_001, mtime_ns: 5 };

/// Allows a directory beside the data for results.
pub(crate) fn allow(config: &mut GatewayConfig) {
    let home = config.state.with_file_name("results");
    config.allow_results(&SourceSpec::Directory(home));
}

pub(crate) fn place(home: &Home) -> PathBuf {
    home.dir.path().join("results")
}

pub(crate) fn wanted(home: &Home) -> ResultsRequest {
    ResultsRequest {
        home: SourceSpec::Directory(place(home)),
        resume: false,
        bytes: None,
        files: None,
        image: Some("sha256:0a1b".into()),
    }
}

pub(crate) fn request(home: &Home, results: ResultsRequest) -> GrantRequest {
    GrantRequest { results: Some(results), ..home.request() }
}

/// One content: its bytes and its key.
pub(crate) struct Content {
    pub(crate) id: ContentId,
    pub(crate) key: BlockKey,
    pub(crate) bytes: Vec<u8>,
}

impl Content {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            id: ContentId::from_bytes(random()),
            key: BlockKey::from_bytes(random()),
            bytes: bytes.into(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn part_bytes(&self, part: u32) -> &[u8] {
        let first = part as usize * RESULT_PART_LEN;
        &self.bytes[first..self.bytes.len().min(first + RESULT_PART_LEN)]
    }
}

/// What lies between a sender and a gateway that reads nothing is less: Linux gives a socket at most 4 MiB to
/// send, and as much to receive only to those who read.
const UNREAD: usize = 12 << 20;

/// A request of which the last byte is held back.
pub(crate) struct Held {
    go: oneshot::Sender<()>,
    answer: JoinHandle<Answer>,
}

impl Held {
    pub(crate) async fn finish(self) -> Answer {
        self.go.send(()).unwrap();
        self.answer.await.unwrap()
    }
}

/// A worker whose lease brings results home.
pub(crate) struct Bringer {
    pub(crate) worker: Worker,
    pub(crate) terms: ResultsTerms,
}

impl Bringer {
    pub(crate) async fn new(home: &Home, results: ResultsRequest) -> Self {
        let granted = home.gateway.grant(request(home, results)).await.unwrap();
        let mut worker = Worker::new(home, &granted.joins[0]);
        let terms = worker.attach().await.unwrap().terms.results.unwrap();
        Self { worker, terms }
    }

    pub(crate) async fn ask(&self, route: &str, body: Vec<u8>) -> Answer {
        self.worker.call("POST", &self.worker.path(&format!("results/{route}")), body).await
    }

    pub(crate) async fn post(&self, route: &str, body: &impl Serialize) -> Answer {
        self.ask(route, serde_json::to_vec(body).unwrap()).await
    }

    pub(crate) async fn posted<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
    ) -> T {
        self.post(route, body).await.json()
    }

    pub(crate) fn sealed_key(&self, content: &Content) -> Vec<u8> {
        let (public, lease) = (&self.terms.public_key.0, &self.worker.join.lease);
        seal_content_key(public, lease, &content.id, &content.key, &mut rng()).unwrap()
    }

    /// The blocks of one part, sealed one after the other.
    pub(crate) fn sealed(&self, content: &Content, part: u32) -> Vec<u8> {
        let bytes = content.part_bytes(part);
        let blocks: Vec<_> =
            if bytes.is_empty() { vec![bytes] } else { bytes.chunks(RESULT_BLOCK_LEN).collect() };
        let blocks = (u64::from(part) * BLOCKS..).zip(blocks).map(|(number, block)| {
            let context = Context::result(self.worker.join.lease, &content.id, number);
            seal_message(&content.key, &context, random(), block)
        });
        blocks.flatten().collect()
    }

    pub(crate) fn store_request(&self, path: &str, seq: u64, content: &Content) -> StoreRequest {
        StoreRequest {
            path: path.to_owned(),
            seq,
            attributes: ATTRIBUTES,
            content: content.id,
            key: self.sealed_key(content).into(),
            len: content.len(),
        }
    }

    pub(crate) fn store_body(&self, path: &str, seq: u64, content: &Content) -> Vec<u8> {
        let head = frame_head(&self.store_request(path, seq, content)).unwrap();
        [head, self.sealed(content, 0)].concat()
    }

    pub(crate) async fn send_store(&self, path: &str, seq: u64, content: &Content) -> Answer {
        self.ask("store", self.store_body(path, seq, content)).await
    }

    pub(crate) async fn store(&self, path: &str, seq: u64, bytes: &[u8]) -> Stored {
        self.send_store(path, seq, &Content::new(bytes)).await.json()
    }

    pub(crate) async fn begin(&self, path: &str, content: &Content) -> String {
        let request = BeginRequest { path: path.to_owned(), content: content.id };
        self.posted::<BeginReply>("begin", &request).await.upload
    }

    pub(crate) fn part_body(&self, upload: &str, content: &Content, part: u32) -> Vec<u8> {
        let head = PartRequest {
            upload: upload.to_owned(),
            content: content.id,
            key: self.sealed_key(content).into(),
            part,
            len: u32::try_from(content.part_bytes(part).len()).unwrap(),
        };
        [frame_head(&head).unwrap(), self.sealed(content, part)].concat()
    }

    pub(crate) async fn send_part(&self, upload: &str, content: &Content, part: u32) -> Answer {
        self.ask("part", self.part_body(upload, content, part)).await
    }

    /// Sends a body without its last byte. It is of so many bytes that they are only sent when the gateway has
    /// taken up the request, and waits for the rest.
    pub(crate) async fn hold(&self, route: &str, mut body: Vec<u8>) -> Held {
        assert!(body.len() > UNREAD);
        let last = Bytes::from(body.split_off(body.len() - 1));
        let (sent, is_sent) = oneshot::channel();
        let (go, gone) = oneshot::channel::<()>();
        let last = once(async move {
            let _ = sent.send(());
            let _ = gone.await;
            Ok(last)
        });
        let chunks: Vec<_> = body.chunks(64 << 10).map(Bytes::copy_from_slice).collect();
        let body = Body::from_stream(iter(chunks).map(Ok::<_, Infallible>).chain(last));
        let mut connection = self.worker.connect().await.unwrap();
        let path = self.worker.path(&format!("results/{route}"));
        let answer =
            tokio::spawn(async move { send(&mut connection, "POST", &path, body).await.unwrap() });
        is_sent.await.unwrap();
        Held { go, answer }
    }

    pub(crate) async fn part(&self, upload: &str, content: &Content, part: u32) -> PartReceipt {
        self.send_part(upload, content, part).await.json()
    }

    pub(crate) fn commit_request(
        &self,
        upload: &str,
        (path, seq): (&str, u64),
        content: &Content,
        parts: Vec<PartReceipt>,
    ) -> CommitRequest {
        CommitRequest {
            upload: upload.to_owned(),
            path: path.to_owned(),
            seq,
            attributes: ATTRIBUTES,
            content: content.id,
            len: content.len(),
            parts,
        }
    }

    /// A file of several parts, begun, sent and committed.
    pub(crate) async fn bring(
        &self,
        path: &str,
        seq: u64,
        content: &Content,
    ) -> (Stored, CommitRequest) {
        let upload = self.begin(path, content).await;
        let parts = u32::try_from(content.bytes.chunks(RESULT_PART_LEN).len()).unwrap();
        let mut receipts = Vec::new();
        for part in 0..parts {
            receipts.push(self.part(&upload, content, part).await);
        }
        let commit = self.commit_request(&upload, (path, seq), content, receipts);
        (self.posted("commit", &commit).await, commit)
    }

    pub(crate) async fn change(&self, seq: u64, change: Change) -> Changed {
        self.posted("change", &ChangeRequest { seq, change }).await
    }
}
