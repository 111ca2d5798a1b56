//! Somebody who may reach the gateway's port and has nothing else; from any address of loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tidegate_wire::{Challenge, JoinFile};

/// A connection whose handshake is done.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// How long anything may take that is answered at all.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Stranger {
    gateway: SocketAddrV4,
    tls: Arc<ClientConfig>,
    from: Ipv4Addr,
}

impl Stranger {
    /// Knows of a join file where the gateway is, and its authority's certificate: both are public.
    pub fn new(join: &Path, from: Ipv4Addr) -> Result<Self> {
        let join = JoinFile::parse(&std::fs::read(join)?)?;
        let url = join.gateways.first().context("no gateway")?;
        let gateway = url.trim_start_matches("https://").parse()?;
        let tls = tidegate_kit::tls::client_config(&join.ca, None)?;
        Ok(Self { gateway, tls, from })
    }

    /// A connection that says nothing yet.
    pub fn knock(&self) -> Result<TcpStream> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddr::from((self.from, 0)))?;
        rustix::net::connect(&socket, &SocketAddr::V4(self.gateway))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A connection with its handshake done.
    pub fn connect(&self) -> Result<Tls> {
        let mut stream = self.knock()?;
        let name = ServerName::from(IpAddr::V4(*self.gateway.ip()));
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(tls, stream))
    }

    /// One request on a connection of its own: status and body.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        post(&mut self.connect()?, path, body)
    }

    pub fn challenge(&self, connection: &mut Tls) -> Result<Challenge> {
        let (status, body) = post(connection, "/v1/challenge", b"")?;
        ensure!(status == 200, "the challenge: {status}");
        Ok(serde_json::from_slice(&body)?)
    }
}

/// One request on a connection that may be used again.
pub fn post(connection: &mut Tls, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    connection.flush()?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.context("no length")?.trim().parse()?];
    connection.read_exact(&mut body)?;
    Ok((status, body))
}

/// Whether the gateway has closed a connection: nothing more can be read from it.
pub fn is_closed(stream: &mut impl Read) -> bool {
    let mut byte = [0; 1024];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
}
