//! The operators' listener of an embedded gateway.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::worker::{Home, Worker};

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_shown_and_an_end_is_told_before_it_comes() {
    let home =
        Home::start_with(|config| config.ops_listen = Some(([127, 0, 0, 1], 0).into())).await;
    let address = home.gateway.ops_addr().unwrap();
    let granted = home.grant().await;
    let worker = Worker::attached(&home, &granted.joins[0]).await;
    assert_eq!(worker.get("blocks/0").await.status, 200);
    assert_eq!(worker.get("blocks/4000000").await.status, 403);
    let text = ask(address, "/metrics").await;
    // The gateways of other tests count in the same process.
    for name in [
        "tidegate_gateway_leases{phase=\"active\"} ",
        "tidegate_gateway_refusals_total{reason=\"outside-share\"} ",
        "tidegate_gateway_requests_total{route=\"/v1/leases/{lease}/blocks/{block}\",status=\"200\"} ",
        "tidegate_gateway_served_total{what=\"block\"} ",
    ] {
        let shown = text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok());
        assert!(shown.is_some_and(|value| value >= 1.0), "no {name}in:\n{text}");
    }
    assert!(ask(address, "/readyz").await.contains(" 200 "));
    home.gateway.shutdown().await;
    assert!(ask(address, "/readyz").await.contains("stopping"));
    assert!(ask(address, "/livez").await.contains(" 200 "));
}
