//! A results home in memory, behind the real routes: it opens what comes with the lease's key, checks
//! every hash and proof, and fails on demand.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_plan::{
    ContentId, LeaseId, PartHash, RESULT_BLOCK_LEN, RESULT_PART_LEN, result_blocks, result_parts,
    sealed_len,
};
use tidegate_seal::{
    BlockKey, Context, ResultsKey, open_content_key, open_message, results_proof,
    verify_results_proof,
};
use tidegate_wire::{
    AbandonRequest, Attributes, BeginReply, BeginRequest, Change, ChangeRequest, Changed,
    CommitRequest, CopyRequest, Found, ListReply, ListRequest, PartReceipt, PartRequest,
    ProblemKind, ReadRequest, StoreRequest, Stored, head_len,
};
use tokio::sync::Notify;

use crate::blocks::tests::gateway::{Body, from, json, problem, respond};

/// What goes wrong with a request.
#[derive(Clone)]
pub(super) enum Fault {
    /// The connection ends, and nothing was done.
    Cut,
    /// It was done, but nobody hears of it.
    Unheard,
    Refuse(ProblemKind),
    /// Answered once notified.
    Hold(Arc<Notify>),
    Superseded,
    /// Done at once, but nobody hears of it until notified.
    Late(Arc<Notify>),
}

#[derive(Clone, Debug)]
pub(super) struct AtHome {
    pub(super) bytes: Vec<u8>,
    pub(super) version: String,
    pub(super) attributes: Attributes,
    pub(super) content: ContentId,
    /// Of the upload that made it.
    upload: String,
}

#[derive(Default)]
struct Upload {
    path: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) files: BTreeMap<String, AtHome>,
    pub(super) directories: BTreeMap<String, u32>,
    uploads: HashMap<String, Upload>,
    seqs: HashMap<String, u64>,
    /// Which version was renamed to become that one.
    renamed: HashMap<String, String>,
    next: u64,
    faults: VecDeque<(&'static str, Fault)>,
    always: Vec<(&'static str, Fault)>,
    left: Option<usize>,
    ended: Arc<Notify>,
    /// Routes in the order in which they were asked.
    pub(super) asked: Vec<String>,
    /// Requests being answered now, and the most there were.
    now: usize,
    pub(super) most: usize,
}

pub(super) struct ResultsHome {
    lease: LeaseId,
    key: ResultsKey,
    inner: Mutex<Inner>,
    commits: Mutex<()>,
}

enum Answer {
    Json(Vec<u8>),
    Bytes(Vec<u8>),
}

type Outcome = Result<Answer, ProblemKind>;

fn say(value: &impl Serialize) -> Outcome {
    Ok(Answer::Json(serde_json::to_vec(value).unwrap()))
}

impl ResultsHome {
    pub(super) fn new(lease: LeaseId, key: ResultsKey) -> Arc<Self> {
        Arc::new(Self { lease, key, inner: Mutex::default(), commits: Mutex::default() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// For the next request of that route.
    pub(super) fn once(&self, route: &'static str, fault: Fault) {
        self.lock().faults.push_back((route, fault));
    }

    pub(super) fn always(&self, route: &'static str, fault: Fault) {
        self.lock().always.push((route, fault));
    }

    pub(super) fn heal(&self) {
        let mut inner = self.lock();
        inner.always.clear();
        inner.faults.clear();
        inner.left = None;
    }

    pub(super) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().files.get(path).map(|file| file.bytes.clone())
    }

    pub(super) fn asked(&self, route: &str) -> usize {
        self.lock().asked.iter().filter(|asked| *asked == route).count()
    }

    /// Uploads that nobody committed or gave up.
    pub(super) fn open_uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    /// So many requests are served from now on, and no more until it is healed.
    pub(super) fn end_after(&self, many: usize) {
        let mut inner = self.lock();
        inner.left = Some(many);
        inner.ended = Arc::default();
    }

    /// A request was not served because of that.
    pub(super) async fn has_ended(&self) {
        let ended = Arc::clone(&self.lock().ended);
        ended.notified().await;
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let mut inner = self.lock();
        let version = inner.number();
        let attributes = Attributes { mode: 0o640, mtime_s: 1_700_000_000, mtime_ns: 5 };
        let content = ContentId::from_bytes([0; 32]);
        let file =
            AtHome { bytes: bytes.into(), version, attributes, content, upload: String::new() };
        inner.files.insert(path.into(), file);
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        route: String,
        body: Bytes,
    ) -> io::Result<Response<Body>> {
        let fault = {
            let mut inner = self.lock();
            inner.asked.push(route.clone());
            inner.now += 1;
            inner.most = inner.most.max(inner.now);
            match &mut inner.left {
                Some(0) => {
                    inner.now -= 1;
                    inner.ended.notify_one();
                    return Err(io::Error::other("ended"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            let next = inner.faults.iter().position(|(of, _)| *of == route);
            let next = next.and_then(|at| inner.faults.remove(at)).map(|(_, fault)| fault);
            let always = inner.always.iter().find(|(of, _)| *of == route);
            next.or_else(|| always.map(|(_, fault)| fault.clone()))
        };
        let answer = self.faulty(&route, &body, fault).await;
        self.lock().now -= 1;
        answer
    }

    async fn faulty(
        &self,
        route: &str,
        body: &[u8],
        fault: Option<Fault>,
    ) -> io::Result<Response<Body>> {
        match fault {
            None => {}
            Some(Fault::Cut) => return Err(io::Error::other("cut")),
            Some(Fault::Refuse(kind)) => return Ok(problem(kind)),
            Some(Fault::Hold(go_on)) => go_on.notified().await,
            Some(Fault::Unheard) => {
                let _nobody_hears = self.serve(route, body);
                return Err(io::Error::other("unheard"));
            }
            Some(Fault::Late(go_on)) => {
                let answer = self.serve(route, body);
                go_on.notified().await;
                return Ok(respond_with(answer));
            }
            Some(Fault::Superseded) => {
                let none =
                    Stored { version: String::new(), blake3: Vec::new().into(), superseded: true };
                return Ok(json(&none));
            }
        }
        Ok(respond_with(self.serve(route, body)))
    }

    fn serve(&self, route: &str, body: &[u8]) -> Outcome {
        let whole = Bytes::copy_from_slice(body);
        match route {
            "store" => self.store(body),
            "begin" => self.begin(&from(&whole)),
            "part" => self.part(body),
            "copy" => self.copy(&from(&whole)),
            "commit" => self.commit(from(&whole)),
            "abandon" => {
                let request: AbandonRequest = from(&whole);
                self.lock().uploads.remove(&request.upload);
                Ok(Answer::Json(b"{}".to_vec()))
            }
            "change" => self.change(from(&whole)),
            "list" => self.list(&from(&whole)),
            "read" => self.read(&from(&whole)),
            other => panic!("{other}"),
        }
    }

    /// Opens sealed blocks one behind the other.
    fn open(
        &self,
        content: &ContentId,
        key: &BlockKey,
        first: u64,
        len: u64,
        sealed: &[u8],
    ) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut rest = sealed;
        for block in 0..result_blocks(len) {
            let many = (len - plain.len() as u64).min(RESULT_BLOCK_LEN as u64);
            let (this, behind) = rest.split_at(usize::try_from(sealed_len(many)).unwrap());
            let context = Context::result(self.lease, content, first + block);
            plain.extend_from_slice(&open_message(key, &context, this).expect("a block opens"));
            rest = behind;
        }
        assert!(rest.is_empty(), "nothing comes behind the last block");
        assert_eq!(plain.len() as u64, len);
        plain
    }

    fn key(&self, content: &ContentId, sealed: &[u8]) -> BlockKey {
        open_content_key(&self.key, &self.lease, content, sealed).expect("the content's key opens")
    }

    fn store(&self, body: &[u8]) -> Outcome {
        let (request, sealed): (StoreRequest, _) = unframed(body);
        assert!(request.len <= RESULT_PART_LEN as u64);
        let key = self.key(&request.content, &request.key.0);
        let bytes = self.open(&request.content, &key, 0, request.len, sealed);
        let (attributes, content) = (request.attributes, request.content);
        self.lock().appear(&request.path, request.seq, bytes, attributes, content, String::new())
    }

    fn begin(&self, request: &BeginRequest) -> Outcome {
        let mut inner = self.lock();
        let upload = inner.number();
        let path = request.path.clone();
        inner.uploads.insert(upload.clone(), Upload { path, parts: BTreeMap::new() });
        say(&BeginReply { upload })
    }

    fn part(&self, body: &[u8]) -> Outcome {
        let (request, sealed): (PartRequest, _) = unframed(body);
        let key = self.key(&request.content, &request.key.0);
        let first = u64::from(request.part) * (RESULT_PART_LEN / RESULT_BLOCK_LEN) as u64;
        let bytes = self.open(&request.content, &key, first, request.len.into(), sealed);
        self.keep(&request.upload, request.part, bytes)
    }

    fn keep(&self, upload: &str, part: u32, bytes: Vec<u8>) -> Outcome {
        let receipt = self.receipt(upload, part, &bytes);
        let mut inner = self.lock();
        let open = inner.uploads.get_mut(upload).ok_or(ProblemKind::Absent)?;
        open.parts.insert(part, bytes);
        say(&receipt)
    }

    fn receipt(&self, upload: &str, part: u32, bytes: &[u8]) -> PartReceipt {
        let hash = PartHash::of(part, bytes).unwrap().0;
        let len = u32::try_from(bytes.len()).unwrap();
        let proof = results_proof(&self.key, &proved(upload, part, len, &hash));
        PartReceipt {
            part,
            len,
            hash: hash.as_slice().into(),
            tag: String::new(),
            proof: proof.as_slice().into(),
        }
    }

    fn check(&self, upload: &str, receipt: &PartReceipt) {
        let message = proved(upload, receipt.part, receipt.len, &receipt.hash.0);
        assert!(verify_results_proof(&self.key, &message, &receipt.proof.0), "a receipt is ours");
    }

    fn copy(&self, request: &CopyRequest) -> Outcome {
        let file = self.lock().files.get(&request.path).cloned().ok_or(ProblemKind::Absent)?;
        if file.version != request.version {
            return Err(ProblemKind::Absent);
        }
        self.check(&file.upload, &request.receipt);
        let start = request.receipt.part as usize * RESULT_PART_LEN;
        let bytes = file.bytes[start..start + request.receipt.len as usize].to_vec();
        self.keep(&request.upload, request.receipt.part, bytes)
    }

    fn commit(&self, request: CommitRequest) -> Outcome {
        // One at a time: whoever asks again while it is done finds that it was.
        let _turn = self.commits.lock().unwrap();
        let upload = {
            let mut inner = self.lock();
            if let Some(file) = inner.files.get(&request.path)
                && file.content == request.content
            {
                let stored = stored(file);
                inner.uploads.remove(&request.upload);
                return say(&stored);
            }
            inner.uploads.remove(&request.upload).ok_or(ProblemKind::Absent)?
        };
        assert_eq!(upload.path, request.path, "an upload is of one path");
        assert_eq!(request.parts.len() as u64, result_parts(request.len));
        let mut bytes = Vec::new();
        let mut hashes = Vec::new();
        for (number, receipt) in (0..).zip(&request.parts) {
            assert_eq!(receipt.part, number);
            self.check(&request.upload, receipt);
            let part = &upload.parts[&number];
            assert_eq!(
                *receipt,
                self.receipt(&request.upload, number, part),
                "the part that is there"
            );
            hashes.push(PartHash(receipt.hash.0.as_slice().try_into().unwrap()));
            bytes.extend_from_slice(part);
        }
        assert_eq!(bytes.len() as u64, request.len);
        assert_eq!(PartHash::combine(&hashes), Some(*blake3::hash(&bytes).as_bytes()));
        let (attributes, content) = (request.attributes, request.content);
        self.lock().appear(&request.path, request.seq, bytes, attributes, content, request.upload)
    }

    fn change(&self, request: ChangeRequest) -> Outcome {
        let mut inner = self.lock();
        let mut version = String::new();
        match request.change {
            Change::Rename { from, to, version: of } => {
                let number = inner.number();
                if let Some(file) = inner.files.get(&from).cloned() {
                    if of.is_some_and(|of| of != file.version) {
                        return Err(ProblemKind::SourceChanged);
                    }
                    inner.files.remove(&from);
                    inner.renamed.insert(number.clone(), file.version.clone());
                    inner.files.insert(to.clone(), AtHome { version: number, ..file });
                } else {
                    let there = &inner.files.get(&to).ok_or(ProblemKind::Absent)?.version;
                    if of.is_some() && inner.renamed.get(there) != of.as_ref() {
                        return Err(ProblemKind::Absent);
                    }
                }
                inner.seqs.insert(from, request.seq);
                inner.seqs.insert(to.clone(), request.seq);
                version.clone_from(&inner.files.get(&to).ok_or(ProblemKind::Absent)?.version);
            }
            Change::RenameDirectory { from, to } => {
                let below = format!("{from}/");
                let is_below = |path: &&String| path.starts_with(&below);
                for path in inner.files.keys().filter(is_below).cloned().collect::<Vec<_>>() {
                    let file = inner.files.remove(&path).unwrap();
                    inner.files.insert(format!("{to}/{}", &path[below.len()..]), file);
                }
                let moves = |path: &&String| **path == from || path.starts_with(&below);
                for path in inner.directories.keys().filter(moves).cloned().collect::<Vec<_>>() {
                    let mode = inner.directories.remove(&path).unwrap();
                    inner.directories.insert(format!("{to}{}", &path[from.len()..]), mode);
                }
            }
            Change::Unlink { path } => {
                inner.seqs.insert(path.clone(), request.seq);
                inner.files.remove(&path);
            }
            Change::MakeDirectory { path, mode } => {
                inner.directories.insert(path, mode);
            }
            Change::RemoveDirectory { path } => {
                let below = format!("{path}/");
                if inner.files.keys().any(|path| path.starts_with(&below)) {
                    return Err(ProblemKind::Occupied);
                }
                inner.directories.remove(&path);
            }
            Change::SetAttributes { path, attributes } => {
                inner.files.get_mut(&path).ok_or(ProblemKind::Absent)?.attributes = attributes;
            }
        }
        say(&Changed { version })
    }

    fn list(&self, request: &ListRequest) -> Outcome {
        let inner = self.lock();
        let files = inner.files.iter().map(|(path, file)| Found {
            path: path.clone(),
            directory: false,
            len: file.bytes.len() as u64,
            attributes: file.attributes,
            version: file.version.clone(),
        });
        let after = |found: &Found| request.after.as_ref().is_none_or(|after| found.path > *after);
        // Two a page, so that pages are turned.
        let found: Vec<_> = files.filter(after).take(2).collect();
        let next = found.last().filter(|_| found.len() == 2).map(|last| last.path.clone());
        say(&ListReply { found, next })
    }

    fn read(&self, request: &ReadRequest) -> Outcome {
        let inner = self.lock();
        let file = inner.files.get(&request.path).ok_or(ProblemKind::Absent)?;
        if file.version != request.version {
            return Err(ProblemKind::Absent);
        }
        let start = usize::try_from(request.offset).unwrap();
        Ok(Answer::Bytes(file.bytes[start..start + request.len as usize].to_vec()))
    }
}

impl Inner {
    fn number(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }

    fn appear(
        &mut self,
        path: &str,
        seq: u64,
        bytes: Vec<u8>,
        attributes: Attributes,
        content: ContentId,
        upload: String,
    ) -> Outcome {
        let last = self.seqs.entry(path.to_owned()).or_default();
        if seq < *last {
            let (version, blake3) = (String::new(), Vec::new().into());
            return say(&Stored { version, blake3, superseded: true });
        }
        *last = seq;
        let version = self.number();
        let file = AtHome { bytes, version, attributes, content, upload };
        let stored = stored(&file);
        self.files.insert(path.to_owned(), file);
        say(&stored)
    }
}

fn respond_with(outcome: Outcome) -> Response<Body> {
    match outcome {
        Ok(Answer::Json(text)) => respond(200, Full::from(text)),
        Ok(Answer::Bytes(bytes)) => respond(200, Full::from(bytes)),
        Err(kind) => problem(kind),
    }
}

fn stored(file: &AtHome) -> Stored {
    let blake3 = blake3::hash(&file.bytes).as_bytes().as_slice().into();
    Stored { version: file.version.clone(), blake3, superseded: false }
}

fn proved(upload: &str, part: u32, len: u32, hash: &[u8]) -> Vec<u8> {
    [upload.as_bytes(), &part.to_be_bytes(), &len.to_be_bytes(), hash].concat()
}

fn unframed<T: DeserializeOwned>(body: &[u8]) -> (T, &[u8]) {
    let (prefix, rest) = body.split_first_chunk().unwrap();
    let (head, sealed) = rest.split_at(head_len(*prefix).unwrap());
    (serde_json::from_slice(head).unwrap(), sealed)
}
