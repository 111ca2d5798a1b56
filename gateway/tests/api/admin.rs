//! The admin socket.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
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

pub(crate) async fn start() -> Home {
    let dir = tempfile::tempdir().unwrap();
    crate::worker::tree(&dir.path().join("data"));
    let config = Home::config(dir.path(), |config| {
        config.embedded = false;
        config.limits = tidegate_gateway::Limits::default();
        config.admin_socket = Some(dir.path().join("admin"));
    });
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
