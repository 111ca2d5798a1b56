//! Somebody before a store who makes trouble for a while: answers 503, takes its time, or says nothing.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::http::Message;
use crate::wan::Namespace;

const AWAY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                    <Message>Please reduce your request rate.</Message></Error>";

/// Carries every connection to one port of loopback; ends with the process.
#[derive(Debug)]
pub struct Trouble {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of a hundred requests, how many get a 503; every second of those was done nevertheless.
    refuse: AtomicU64,
    /// Milliseconds before each request goes on.
    slow: AtomicU64,
    asked: AtomicU64,
    refused: AtomicUsize,
    /// Uploads in parts that were begun, of which nobody heard.
    orphans: AtomicUsize,
}

impl Trouble {
    /// Before a store on a port of loopback, on loopback there or in a namespace; makes none at first.
    pub fn before(store: u16, namespace: Option<&Namespace>) -> Result<Self> {
        let listen = || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let listener = namespace.map_or_else(listen, |namespace| namespace.within(listen))?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // Ends that break are the peers' business.
                thread::spawn(move || carry(client, store, &state));
            }
        });
        Ok(Self { port, state })
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Of a hundred requests, `percent` get a 503 from now on.
    pub fn refuse(&self, percent: u64) {
        self.state.refuse.store(percent, Ordering::Relaxed);
    }

    /// Every request takes so much longer from now on.
    pub fn slow(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.state.slow.store(millis, Ordering::Relaxed);
    }

    /// No more of it.
    pub fn end(&self) {
        self.refuse(0);
        self.slow(Duration::ZERO);
    }

    /// How many uploads in parts the store has begun so far without anybody having heard of it.
    pub fn orphans(&self) -> usize {
        self.state.orphans.load(Ordering::Relaxed)
    }

    /// How many requests got a 503 so far.
    pub fn refused(&self) -> usize {
        self.state.refused.load(Ordering::Relaxed)
    }
}

impl State {
    /// Whether the next request gets a 503, and whether it is done nevertheless.
    fn draw(&self) -> Option<bool> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        // 37 and 100 have no common divisor: every hundred requests see each number once.
        if asked.wrapping_mul(37) % 100 >= self.refuse.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.refused.fetch_add(1, Ordering::Relaxed) % 2 == 1)
    }

    /// In steps, so that a delay that ends does not go on for those who wait.
    fn delay(&self) {
        const STEP: u64 = 20;
        let mut waited = 0;
        while waited < self.slow.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(STEP));
            waited += STEP;
        }
    }
}

fn carry(mut client: TcpStream, store: u16, state: &State) -> Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, store))?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    while let Some(request) = Message::read(&mut client, false)? {
        state.delay();
        let refused = state.draw();
        if refused != Some(false) {
            request.write(&mut server)?;
            let to_head = request.head.starts_with("HEAD ");
            let answer = loop {
                let answer = Message::read(&mut server, to_head)?.context("no answer")?;
                // "Go on", to a client that asked before it sent its body, which is here already.
                if answer.status() != 100 {
                    break answer;
                }
            };
            if refused.is_none() {
                answer.write(&mut client)?;
                continue;
            }
            let begins = request
                .head
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("POST ") && line.contains("?uploads"));
            state.orphans.fetch_add(usize::from(begins), Ordering::Relaxed);
        }
        let body = if request.head.starts_with("HEAD ") { "" } else { AWAY };
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/xml\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        Message { head, body: body.into() }.write(&mut client)?;
    }
    Ok(())
}
