//! What strangers and the careless can take up.

use std::time::Duration;

use tidegate_kit::tls::client_config;
use tidegate_wire::ProblemKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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
    let home = Home::start_with(|config| config.limits.buffers = 16 << 20).await;
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
