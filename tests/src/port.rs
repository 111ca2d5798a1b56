//! Free TCP ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Below the kernel's ephemeral range, so that no outgoing connection takes one in between.
const FIRST_BLOCK: u16 = 20_000;
const BLOCKS: u16 = 120;
/// Ports of one block.
pub const BLOCK: u16 = 100;

/// A port that was free a moment ago.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// The first of [`BLOCK`] ports in a row that were free a moment ago.
pub fn free_block() -> Result<u16> {
    let mut seed = [0_u8; 2];
    getrandom::fill(&mut seed).context("no randomness")?;
    let seed = u16::from_le_bytes(seed);
    (0..BLOCKS)
        .map(|n| FIRST_BLOCK + (seed % BLOCKS + n) % BLOCKS * BLOCK)
        .find(|first| (*first..first + BLOCK).all(is_free))
        .context("no block of free ports")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
