//! Somebody between two parts, who sees each request with its answer before the answer goes on, and may
//! change it or hold it back. Between worker and gateway he ends TLS on both sides, with what nobody
//! has outside the two processes: the gateway's authority, and the worker's identity key.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tidegate_kit::clock::now_unix;
use tidegate_kit::tls::{
    Authority, ClientIdentity, IdentityKey, MAX_CLIENT_LIFE, PeerIdentity, client_config,
    server_config,
};

use crate::http::Message;

/// Called with a request and its answer.
pub type Look = Arc<dyn Fn(&Message, &mut Message) + Send + Sync>;

/// Carries every connection to one port of loopback; ends with the process.
#[derive(Debug)]
pub struct Between {
    port: u16,
    to: u16,
}

impl Between {
    /// Before a store that speaks plain HTTP.
    pub fn plain(to: u16, look: Look) -> Result<Self> {
        Self::listen(to, move |client| exchange(client, dial(to)?, &look))
    }

    /// Before a gateway, whose authority (`ca/authority.pem` of its secrets) is there.
    pub fn tls(to: u16, authority: &Path, look: Look) -> Result<Self> {
        let authority = Arc::new(Authority::load_or_create(authority)?);
        let ours = server_config(&authority, &[Ipv4Addr::LOCALHOST.to_string()])?;
        Self::listen(to, move |mut tcp| {
            let mut server = ServerConnection::new(Arc::clone(&ours))?;
            while server.is_handshaking() {
                server.complete_io(&mut tcp)?;
            }
            let peer = PeerIdentity::of(&server)?;
            let identity = peer.map(|peer| impersonate(&authority, &peer)).transpose()?;
            let theirs = client_config(authority.certificate_pem(), identity.as_ref())?;
            let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let gateway = StreamOwned::new(ClientConnection::new(theirs, name)?, dial(to)?);
            exchange(StreamOwned::new(server, tcp), gateway, &look)
        })
    }

    fn listen(
        to: u16,
        carry: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let carry = Arc::new(carry);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let carry = Arc::clone(&carry);
                // Ends that break are the peers' business.
                thread::spawn(move || carry(client));
            }
        });
        Ok(Self { port, to })
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A copy of a join file that leads here in place of the gateway.
    pub fn join(&self, join: &Path) -> Result<PathBuf> {
        let text = fs::read_to_string(join)?;
        let path = join.with_extension("between");
        let (gateway, here) =
            (format!("127.0.0.1:{}", self.to), format!("127.0.0.1:{}", self.port));
        fs::write(&path, text.replace(&gateway, &here))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

fn dial(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request after the other. A client that leaves does not end what it had asked for.
fn exchange(
    mut client: impl Read + Write,
    mut server: impl Read + Write,
    look: &Look,
) -> Result<()> {
    while let Some(request) = Message::read(&mut client, false)? {
        request.write(&mut server)?;
        let to_head = request.head.starts_with("HEAD ");
        let answer = Message::read(&mut server, to_head)?;
        let mut answer = answer.context("no answer")?;
        look(&request, &mut answer);
        answer.write(&mut client)?;
    }
    Ok(())
}

/// The identity of a worker of this machine, as its holder keeps it, under a certificate made here.
fn impersonate(authority: &Authority, peer: &PeerIdentity) -> Result<ClientIdentity> {
    let key = kept_identities()
        .find(|key| key.public_key() == peer.public_key)
        .context("no process keeps the worker's identity")?;
    let now = now_unix();
    let (certificate, _) = authority.issue_client(
        &peer.public_key,
        &peer.lease,
        peer.rank,
        &peer.instance,
        now,
        now + MAX_CLIENT_LIFE,
    )?;
    Ok(ClientIdentity { certificate, key })
}

fn kept_identities() -> impl Iterator<Item = IdentityKey> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let open = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    open.flatten().flatten().filter_map(|open| {
        let kept = fs::read_link(open.path()).ok()?;
        if !kept.to_string_lossy().starts_with("/memfd:tidegate-identity") {
            return None;
        }
        let mut seed = [0; 32];
        File::open(open.path()).ok()?.read_exact_at(&mut seed, 0).ok()?;
        Some(IdentityKey::from_seed(&seed))
    })
}
