//! The admin socket.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tidegate_gateway::GatewayConfig;
use tidegate_wire::JoinFile;
use tokio::net::UnixStream;

use crate::worker::{Home, Worker};

pub(crate) async fn ask(home: &Home, method: &str, path: &str, body: Value) -> (u16, Value) {
    let stream = UnixStream::connect(home.dir.path().join("admin")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// A daemon's configuration over `dir`.
pub(crate) fn with_admin(dir: &std::path::Path) -> tidegate_gateway::GatewayConfig {
    Home::config(dir, |config| {
        config.embedded = false;
        config.limits = tidegate_gateway::Limits::default();
        config.admin_socket = Some(dir.join("admin"));
    })
}

pub(crate) async fn start() -> Home {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Home {
    let dir = tempfile::tempdir().unwrap();
    crate::worker::tree(&dir.path().join("data"));
    let mut config = with_admin(dir.path());
    change(&mut config);
    let gateway = tidegate_gateway::Gateway::start(config).await.unwrap();
    Home { dir, gateway }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_granted_seen_and_revoked() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = start().await;
    let socket = home.dir.path().join("admin");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let source = home.dir.path().join("data");
    let grant = json!({
        "source": source, "ranks": 2, "duration_s": 60, "subject": "an administrator",
        "selection": { "include": ["a/**"] },
    });
    let (status, granted) = ask(&home, "POST", "/v1/admin/leases", grant).await;
    assert_eq!(status, 200, "{granted}");
    let joins: Vec<JoinFile> = serde_json::from_value(granted["joins"].clone()).unwrap();
    assert_eq!(joins.iter().map(|join| join.rank).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(granted["files"], 42);

    let worker = Worker::attached(&home, &joins[1]).await;
    let (_, list) = ask(&home, "GET", "/v1/admin/leases", Value::Null).await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert!(!list.to_string().contains("secret"), "no secret of a token is listed");
    let path = format!("/v1/admin/leases/{}", joins[0].lease);
    let (status, shown) = ask(&home, "GET", &path, Value::Null).await;
    assert_eq!((status, &shown), (200, &list[0]));
    assert_eq!((&shown["phase"], &shown["workers"][0]["rank"]), (&json!("active"), &json!(1)));

    let (status, ended) = ask(&home, "POST", &format!("{path}/revoke"), json!({})).await;
    assert_eq!((status, &ended["status"]["phase"]), (200, &json!("draining")), "{ended}");
    worker.wipe().await;
    let (_, shown) = ask(&home, "GET", &path, Value::Null).await;
    assert_eq!(shown["phase"], "wiped");

    let (_, status) = ask(&home, "GET", "/v1/admin/status", Value::Null).await;
    assert_eq!((&status["open_leases"], &status["strangers"]), (&json!(0), &json!(0)));
    let (_, ledger) = ask(&home, "GET", "/v1/admin/ledger", Value::Null).await;
    assert_eq!(ledger["checkpoint"], home.gateway.checkpoint());
    assert_eq!(ledger, status["ledger"]);
    let (_, document) = ask(&home, "GET", "/openapi.json", Value::Null).await;
    assert!(document["paths"]["/v1/admin/leases"].is_object());
    home.gateway.shutdown().await;
    assert!(!socket.exists());
}

/// A list as a script makes it: far more than any other request holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_many_paths_is_taken() {
    const LISTED: usize = 200_000;
    let home = start().await;
    let data = home.dir.path().join("data/many");
    std::fs::create_dir(&data).unwrap();
    let name = |n: usize| format!("an-image-with-a-name-of-some-length-{n:06}");
    for n in 0..=LISTED {
        std::fs::File::create(data.join(name(n))).unwrap();
    }
    let list: Vec<_> = (0..LISTED).map(name).collect();
    let request = json!({ "source": data, "duration_s": 60, "selection": { "list": list } });
    assert!(request.to_string().len() > 8 << 20);
    let (status, granted) = ask(&home, "POST", "/v1/admin/leases", request).await;
    assert_eq!((status, &granted["files"]), (200, &json!(LISTED)), "{granted}");

    // Past the limit, and on any other route, it is said what to do or what is the most.
    let huge = json!({ "source": "x".repeat(256 << 20), "duration_s": 60 });
    let (status, problem) = ask(&home, "POST", "/v1/admin/leases", huge).await;
    assert_eq!(status, 413);
    assert!(problem["detail"].as_str().unwrap().contains("select with globs"), "{problem}");
    let path = format!("/v1/admin/leases/{}/tokens", granted["lease"].as_str().unwrap());
    let long = json!({ "rank": 0, "pad": "x".repeat(300 << 10) });
    let (status, problem) = ask(&home, "POST", &path, long).await;
    assert_eq!(status, 413);
    assert!(problem["detail"].as_str().unwrap().contains("256 KiB"), "{problem}");
}

/// Listings that would take more memory than may be are refused; one that is there already costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn listings_in_memory_have_a_limit() {
    let home = start_with(|config| config.limits.snapshots = 1 << 20).await;
    let data = home.dir.path().join("data");
    for folder in ["one", "two"] {
        std::fs::create_dir(data.join(folder)).unwrap();
        for n in 0..4_000 {
            std::fs::File::create(data.join(format!("{folder}/{n:0100}"))).unwrap();
        }
    }
    let request = |folder: &str| json!({ "source": data.join(folder), "duration_s": 60 });
    let (status, first) = ask(&home, "POST", "/v1/admin/leases", request("one")).await;
    assert_eq!(status, 200, "{first}");
    let (status, again) = ask(&home, "POST", "/v1/admin/leases", request("one")).await;
    assert_eq!(status, 200, "{again}");
    let (status, problem) = ask(&home, "POST", "/v1/admin/leases", request("two")).await;
    assert_eq!(status, 429, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("raise `limits.snapshots`"), "{problem}");
    for granted in [first, again] {
        let path = format!("/v1/admin/leases/{}/revoke", granted["lease"].as_str().unwrap());
        assert_eq!(ask(&home, "POST", &path, json!({})).await.0, 200);
    }
    let (status, second) = ask(&home, "POST", "/v1/admin/leases", request("two")).await;
    assert_eq!(status, 200, "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_its_cause() {
    let home = start().await;
    let data = home.dir.path().join("data");
    let table = [
        (json!({ "source": "/nowhere", "duration_s": 60 }), 400, "/nowhere"),
        (json!({ "source": "/", "duration_s": 60 }), 403, "sources.allow"),
        (json!({ "source": data, "duration_s": 0 }), 400, "at least 1 second"),
        (
            json!({ "source": data, "duration_s": 60, "selection": { "include": ["nothing"] } }),
            400,
            "empty",
        ),
        (json!({ "source": data, "duration_s": 60, "ranks": 0 }), 400, "rank"),
        (json!({ "source": data, "duration_s": 60, "ranks": 257 }), 400, "limits.ranks"),
        (json!({ "source": data, "duration": 60 }), 400, ""),
        (json!({ "source": "gs://bucket", "duration_s": 60 }), 400, "gs://bucket"),
    ];
    for (request, status, word) in table {
        let (got, problem) = ask(&home, "POST", "/v1/admin/leases", request.clone()).await;
        assert_eq!(got, status, "{request}: {problem}");
        assert!(problem["detail"].as_str().unwrap_or_default().contains(word), "{problem}");
    }
    let absent = format!("/v1/admin/leases/{}", "0".repeat(32));
    for (method, path, status) in [
        ("GET", absent.as_str(), 404),
        ("GET", "/v1/admin/leases/x", 400),
        ("POST", &format!("{absent}/revoke"), 404),
        ("GET", "/v1/challenge", 404),
        ("DELETE", "/v1/admin/leases", 405),
    ] {
        let (got, problem) = ask(&home, method, path, Value::Null).await;
        assert_eq!(got, status, "{path}: {problem}");
    }
}
