//! What strangers and the careless can take up.

use std::time::Duration;

use tidegate_gateway::{GrantError, GrantRequest};
use tidegate_kit::tls::{ClientIdentity, client_config};
use tidegate_plan::SelectionSpec;
use tidegate_wire::ProblemKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::worker::{Home, Worker, eventually};

/// A connection whose handshake is done and that then says nothing; an error when it was closed before.
async fn try_idle(worker: &Worker) -> std::io::Result<TlsStream<TcpStream>> {
    let config = client_config(&worker.join.ca, None).unwrap();
    let stream = TcpStream::connect(worker.addr).await?;
    let name = "127.0.0.1".try_into().unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await
}

async fn idle(worker: &Worker) -> TlsStream<TcpStream> {
    try_idle(worker).await.unwrap()
}

/// Whether the gateway answers on the connection at all.
async fn answers(stream: &mut TlsStream<TcpStream>) -> bool {
    let request = b"POST /v1/challenge HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return false;
    }
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.is_ok() && head == *b"HTTP/1.1 200"
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_no_place_of_a_worker() {
    let home = Home::start_with(|config| config.limits.strangers = 2).await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    // The connections that it came by give their places back first.
    let place = async || {
        let mut stream = try_idle(&worker).await.ok()?;
        answers(&mut stream).await.then_some(stream)
    };
    let (_first, _second) = (eventually(place).await, eventually(place).await);
    if let Ok(mut third) = try_idle(&worker).await {
        assert!(!answers(&mut third).await, "there are two places for strangers");
    }
    assert_eq!(worker.heartbeat().await.status, 200);
    assert_eq!(worker.get("blocks/0").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_long_or_not_http_ends_the_connection() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::new(&home, &granted.joins[0]);
    let mut long = b"GET / HTTP/1.1\r\nx: ".to_vec();
    long.resize(1 << 20, b'x');
    for bytes in [long, b"\x00\x01\x02 nonsense\r\n\r\n".to_vec()] {
        let mut stream = idle(&worker).await;
        // The gateway may close while we still write.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 1024, "no more than a refusal");
    }
    assert_eq!(worker.challenge().await.nonce.0.len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_framework_refuses_is_a_problem_document_too() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    let answer = worker.call("GET", "/v1/leases/%ff/manifest", Vec::new()).await;
    assert_eq!(answer.problem(), ProblemKind::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_holds_over_all_blocks() {
    let home = Home::start_with(|config| config.rate_limit = Some(8_000_000)).await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    let start = std::time::Instant::now();
    let mut bytes = 0;
    for block in 0..terms.blocks {
        bytes += worker.get(&format!("blocks/{block}")).await.body.len();
    }
    // At 8 MB/s with a tenth of a second of burst, and never faster however slow the machine.
    let least = Duration::from_secs_f64(bytes as f64 / 8e6 - 0.2);
    assert!(start.elapsed() >= least, "{bytes} bytes in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn buffers_are_given_back() {
    let home = Home::start_with(|config| config.limits.buffers = 32 << 20).await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let terms = worker.attach().await.unwrap().terms;
    let worker = std::sync::Arc::new(worker);
    let mut reads = tokio::task::JoinSet::new();
    for n in 0..24 {
        let worker = std::sync::Arc::clone(&worker);
        let block = n % terms.blocks;
        reads.spawn(async move { worker.get(&format!("blocks/{block}")).await.status });
    }
    while let Some(status) = reads.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_no_more_ranks_than_the_config_says() {
    let home = Home::start_with(|config| config.limits.ranks = 3).await;
    let refused = home.gateway.grant(GrantRequest { ranks: 4, ..home.request() }).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, GrantError::Ranks { ranks: 4, max: 3 }), "{error:?}");
    assert!(error.to_string().contains("limits.ranks"), "{error}");
    assert_eq!(home.grant_ranks(3).await.joins.len(), 3);
}

/// A connection on which a block was asked for and begins to come; the kernel takes little of it.
async fn asks_and_does_not_read(worker: &Worker) -> TlsStream<TcpStream> {
    let certificate = worker.certificate.clone().unwrap();
    let identity = ClientIdentity { certificate, key: worker.identity.clone() };
    let config = client_config(&worker.join.ca, Some(&identity)).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let stream = socket.connect(worker.addr).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nhost: g\r\n\r\n", worker.path("blocks/0"));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

/// A worker that takes none of its answers holds its own part of the buffers, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_read_leaves_buffers_for_others() {
    let home = Home::start_with(|config| config.limits.buffers = 32 << 20).await;
    for n in 0..12 {
        // Four to a block, so that each is gathered whole before any of it is sent.
        let path = home.dir.path().join(format!("data/a/million-{n:02}"));
        std::fs::write(path, vec![n; 1_040_000]).unwrap();
    }
    let selection = SelectionSpec { include: vec!["a/million-*".to_owned()], ..<_>::default() };
    let request = || GrantRequest { selection: selection.clone(), ..home.request() };
    let slow = home.gateway.grant(request()).await.unwrap();
    let other = home.gateway.grant(request()).await.unwrap();
    let (slow, other) = (
        Worker::attached(&home, &slow.joins[0]).await,
        Worker::attached(&home, &other.joins[0]).await,
    );
    let mut unread = Vec::new();
    let kept_waiting = loop {
        match tokio::time::timeout(Duration::from_secs(3), asks_and_does_not_read(&slow)).await {
            Ok(connection) => unread.push(connection),
            Err(_) => break true,
        }
        if unread.len() == 60 {
            break false;
        }
    };
    assert!(kept_waiting, "it is made to wait for what it took before");
    assert!(!unread.is_empty(), "it was given something");
    let block = tokio::time::timeout(Duration::from_secs(30), other.get("blocks/0"));
    assert_eq!(block.await.expect("another worker's block comes").status, 200);
    drop(unread);
    assert_eq!(slow.get("blocks/0").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_connection_is_good_for_a_few_requests() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let mut worker = Worker::new(&home, &granted.joins[0]);
    let mut stream = idle(&worker).await;
    let mut answered = 0;
    while answered < 100 && answers(&mut stream).await {
        answered += 1;
        let mut rest = [0; 1024];
        // The body, and whatever is left of the head.
        let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut rest)).await;
    }
    assert!((2..100).contains(&answered), "{answered} answers");
    // That is nobody else's loss.
    worker.attach().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_the_api_is_for_everybody_and_tells_of_nobody() {
    let home = Home::start().await;
    let granted = home.grant().await;
    let answer =
        Worker::new(&home, &granted.joins[0]).call("GET", "/openapi.json", Vec::new()).await;
    assert_eq!(answer.status, 200);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    assert_eq!(answer.body, std::fs::read(path).unwrap());
}
