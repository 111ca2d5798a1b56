//! A bucket as the home of results, on a store that says what objects are and keeps no bytes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_LENGTH, ETAG};
use tempfile::TempDir;
use tidegate_plan::{ContentId, SelectionId, SnapshotId};
use tidegate_wire::Attributes;

use super::*;

/// An object, or what an upload is to become.
#[derive(Clone, Debug, Default)]
struct Object {
    len: u64,
    etag: String,
    /// Headers, by their whole names.
    metadata: HashMap<String, String>,
    /// As they were put.
    tags: String,
}

#[derive(Debug, Default)]
struct Store {
    objects: HashMap<String, Object>,
    upload: Option<Object>,
    /// What is answered when an upload is completed, and whether it is done all the same.
    refusal: Option<(u16, &'static str, bool)>,
    etags: u32,
}

fn answer(status: u16, text: String) -> Response {
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

fn etag_within(element: &str, etag: &str) -> Response {
    answer(200, format!("<{element}><ETag>\"{etag}\"</ETag></{element}>"))
}

async fn serve(State(store): State<Arc<Mutex<Store>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let key = head.uri.path().strip_prefix("/bucket/").unwrap().to_owned();
    let query = head.uri.query().unwrap_or_default();
    let names = |name: &str| query.split('&').any(|field| field.split('=').next() == Some(name));
    let header = |name: &str| Some(head.headers.get(name)?.to_str().unwrap().to_owned());
    let metadata: HashMap<String, String> = head
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-amz-meta-"))
        .map(|name| (name.to_string(), header(name.as_str()).unwrap()))
        .collect();
    let from = header("x-amz-copy-source");
    let from = from.as_deref().and_then(|from| from.strip_prefix("bucket/"));
    let mut store = store.lock().unwrap();
    store.etags += 1;
    let etag = format!("etag-{}", store.etags);
    match (head.method.as_str(), from) {
        ("HEAD", _) => {
            let Some(object) = store.objects.get(&key) else { return answer(404, String::new()) };
            let mut response = Response::builder()
                .header(ETAG, format!("\"{}\"", object.etag))
                .header(CONTENT_LENGTH, object.len);
            for (name, value) in &object.metadata {
                response = response.header(name, value);
            }
            response.body(Body::empty()).unwrap()
        }
        ("GET", _) if names("tagging") => match store.objects[&key].tags.as_str() {
            "" => answer(200, "<Tagging><TagSet></TagSet></Tagging>".to_owned()),
            tags => answer(200, tags.to_owned()),
        },
        ("PUT", _) if names("tagging") => {
            let tags = String::from_utf8(body.to_vec()).unwrap();
            store.objects.get_mut(&key).unwrap().tags = tags;
            answer(200, String::new())
        }
        ("PUT", Some(_)) if names("partNumber") => {
            let range = header("x-amz-copy-source-range").unwrap();
            let last: u64 = range.rsplit('-').next().unwrap().parse().unwrap();
            let upload = store.upload.as_mut().unwrap();
            upload.len = upload.len.max(last + 1);
            etag_within("CopyPartResult", &etag)
        }
        ("PUT", Some(from)) => {
            let copy = Object { etag: etag.clone(), metadata, ..store.objects[from].clone() };
            store.objects.insert(key, copy);
            etag_within("CopyObjectResult", &etag)
        }
        ("POST", _) if names("uploads") => {
            store.upload = Some(Object { metadata, ..Object::default() });
            let id = "<UploadId>upload</UploadId>";
            answer(
                200,
                format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"),
            )
        }
        ("POST", _) => {
            let is_done = store.refusal.is_none_or(|(_, _, is_done)| is_done);
            if is_done && let Some(upload) = store.upload.take() {
                store.objects.insert(key, Object { etag: etag.clone(), ..upload });
            }
            match store.refusal {
                Some((status, code, _)) => {
                    answer(status, format!("<Error><Code>{code}</Code></Error>"))
                }
                None => etag_within("CompleteMultipartUploadResult", &etag),
            }
        }
        ("DELETE", _) if names("uploadId") => {
            store.upload = None;
            answer(204, String::new())
        }
        ("DELETE", _) => {
            store.objects.remove(&key);
            answer(204, String::new())
        }
        (method, _) => panic!("{method} {key} {query}"),
    }
}

/// A bucket of such a store.
struct Home {
    bucket: Bucket,
    store: Arc<Mutex<Store>>,
    _credentials: TempDir,
}

impl Home {
    async fn start() -> Self {
        let store = Arc::<Mutex<Store>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(serve).with_state(Arc::clone(&store));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let dir = TempDir::new().unwrap();
        let credentials = dir.path().join("credentials");
        let text = "[some]\naws_access_key_id = a\naws_secret_access_key = b\n";
        std::fs::write(&credentials, text).unwrap();
        let options = S3Options {
            endpoint: Some(endpoint),
            region: None,
            profile: Some("some".to_owned()),
            credentials_file: Some(credentials),
        };
        let (client, _) = connect(&options).await.unwrap();
        let bucket = Bucket { client, name: "bucket".to_owned(), prefix: String::new() };
        Self { bucket, store, _credentials: dir }
    }

    fn place(&self, key: &str, etag: &str, len: u64) {
        let object = Object { len, etag: etag.to_owned(), ..Object::default() };
        self.store.lock().unwrap().objects.insert(key.to_owned(), object);
    }

    fn etag(&self, key: &str) -> Option<String> {
        Some(self.store.lock().unwrap().objects.get(key)?.etag.clone())
    }

    fn refuse(&self, refusal: Option<(u16, &'static str, bool)>) {
        self.store.lock().unwrap().refusal = refusal;
    }
}

fn arrival(path: &str) -> Arrival {
    Arrival {
        path: path.to_owned(),
        attributes: Attributes { mode: 0o100_640, mtime_s: 1_700_000_001, mtime_ns: 5 },
        content: ContentId::from_bytes([4; 32]),
        len: 5,
        blake3: [5; 32],
    }
}

#[tokio::test]
async fn a_rename_is_of_the_version_that_it_names() {
    let home = Home::start().await;
    let rename = async |version: &str| home.bucket.rename("tmp", "best", Some(version), None).await;
    home.place("tmp", "first", 1);
    let best = rename("first").await.unwrap().version;
    assert_eq!((home.etag("tmp"), home.etag("best")), (None, Some(best.clone())));
    // Its answer was lost, and another object has the old name by now.
    home.place("tmp", "second", 2);
    assert_eq!(rename("first").await.unwrap().version, best);
    assert_eq!(home.etag("tmp").as_deref(), Some("second"));
    let other = rename("other").await;
    assert!(matches!(other, Err(HomeError::Changed)), "{other:?}");
    assert_eq!(home.etag("best"), Some(best.clone()));
    assert_ne!(rename("second").await.unwrap().version, best);
    assert_eq!(home.etag("tmp"), None);
}

#[tokio::test]
async fn a_copy_in_parts_that_was_done_before_is_done() {
    let home = Home::start().await;
    home.place("tmp", "large", 6 << 30);
    home.refuse(Some((404, "NoSuchUpload", false)));
    let gone = home.bucket.rename("tmp", "best", None, None).await;
    assert!(matches!(gone, Err(HomeError::Absent)), "{gone:?}");
    assert_eq!((home.etag("tmp").as_deref(), home.etag("best")), (Some("large"), None));
    home.refuse(Some((404, "NoSuchUpload", true)));
    let done = home.bucket.rename("tmp", "best", None, None).await.unwrap();
    assert_eq!((home.etag("tmp"), home.etag("best")), (None, Some(done.version)));
    assert_eq!(done.len, 6 << 30);
}

#[tokio::test]
async fn an_object_that_came_in_parts_says_what_it_is_in_tags() {
    let home = Home::start().await;
    let made = Provenance {
        lease: LeaseId::from_bytes([1; 16]),
        snapshot: SnapshotId::from_bytes([2; 32]),
        selection: SelectionId::from_bytes([3; 32]),
        image: None,
    };
    let store = home.bucket.begin(&made, "file", "id").await.unwrap();
    let ticket = Ticket { id: "id".to_owned(), path: "file".to_owned(), store };
    // Neither of these ends the upload.
    let other = home.bucket.commit(&ticket, &arrival("other"), &[]).await;
    assert!(matches!(other, Err(HomeError::Unfit(_))), "{other:?}");
    home.refuse(Some((400, "InvalidPart", false)));
    let torn = home.bucket.commit(&ticket, &arrival("file"), &[]).await;
    assert!(matches!(torn, Err(HomeError::Torn)), "{torn:?}");
    home.refuse(None);
    let file = arrival("file");
    home.bucket.commit(&ticket, &file, &[]).await.unwrap();

    let object = home.store.lock().unwrap().objects["file"].clone();
    let mut names: Vec<_> = object.metadata.keys().map(String::as_str).collect();
    names.sort_unstable();
    let at_the_start = ["lease", "selection", "snapshot", "upload"];
    assert_eq!(names, at_the_start.map(|name| format!("x-amz-meta-tidegate-{name}")));
    for (name, value) in [
        ("blake3", hex::encode(file.blake3)),
        ("content", file.content.to_string()),
        ("mode", "640".to_owned()),
        ("mtime", "1700000001".to_owned()),
    ] {
        let tag = format!("<Key>tidegate-{name}</Key><Value>{value}</Value>");
        assert!(object.tags.contains(&tag), "{name}: {}", object.tags);
    }
}
