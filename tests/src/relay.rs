//! A relay between worker and gateway that damages what it carries.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Bytes of a connection from the gateway that pass before one bit of it is flipped: behind the
/// handshake, inside a block.
const CLEAN: usize = 300 << 10;

/// Carries every connection to one port; ends with the process.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    damage: Arc<Damage>,
}

#[derive(Debug)]
struct Damage {
    /// Bits still to flip, at most one a connection.
    left: AtomicUsize,
    done: AtomicUsize,
}

impl Relay {
    /// To a gateway on loopback; flips `bits` bits on their way from it.
    pub fn start(gateway: u16, bits: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let damage = Arc::new(Damage { left: AtomicUsize::new(bits), done: AtomicUsize::new(0) });
        let shared = Arc::clone(&damage);
        thread::spawn(move || {
            for worker in listener.incoming().flatten() {
                let Ok(gateway) = TcpStream::connect((Ipv4Addr::LOCALHOST, gateway)) else {
                    continue;
                };
                let damage = Arc::clone(&shared);
                // Ends that break are the peers' business.
                let _ = carry(worker, gateway, damage);
            }
        });
        Ok(Self { port, damage })
    }

    /// Bits flipped so far.
    pub fn flipped(&self) -> usize {
        self.damage.done.load(Ordering::Relaxed)
    }

    /// A copy of a join file that leads through the relay.
    pub fn join(&self, join: &Path) -> Result<PathBuf> {
        let mut file: Value = serde_json::from_slice(&fs::read(join)?)?;
        let gateways = file["gateways"].as_array_mut().context("no gateways in the join file")?;
        *gateways = vec![format!("https://127.0.0.1:{}", self.port).into()];
        let path = join.with_extension("relayed");
        fs::write(&path, serde_json::to_vec(&file)?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

/// Starts the two threads of a connection.
fn carry(worker: TcpStream, gateway: TcpStream, damage: Arc<Damage>) -> Result<()> {
    let (from_worker, to_gateway) = (worker.try_clone()?, gateway.try_clone()?);
    thread::spawn(move || pass(from_worker, to_gateway, None));
    thread::spawn(move || pass(gateway, worker, Some(&damage)));
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut damage: Option<&Damage>) {
    let mut buffer = vec![0; 64 << 10];
    let mut carried = 0;
    while let Ok(len) = from.read(&mut buffer)
        && len > 0
    {
        carried += len;
        if carried > CLEAN
            && let Some(damage) = damage.take()
            && damage
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        {
            buffer[len / 2] ^= 0x10;
            damage.done.fetch_add(1, Ordering::Relaxed);
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    // Both ways, so that the other thread ends as well.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
