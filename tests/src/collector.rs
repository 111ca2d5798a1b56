//! A collector of spans: takes what is posted to `/v1/traces`, and answers as it is told to.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use crate::http::Message;

/// In place of a status: takes the request and never answers.
pub const SILENT: u16 = 0;

#[derive(Clone, Debug)]
pub struct Collector {
    port: u16,
    answer: Arc<AtomicU16>,
    taken: Arc<Mutex<Vec<Message>>>,
}

impl Collector {
    /// Answers with a status, or is [`SILENT`]. Ends with the process.
    pub fn start(answer: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let collector =
            Self { port, answer: Arc::new(AtomicU16::new(answer)), taken: Arc::default() };
        let serving = collector.clone();
        thread::spawn(move || {
            for sender in listener.incoming().flatten() {
                let collector = serving.clone();
                // A sender that leaves is the sender's business.
                thread::spawn(move || collector.take_from(sender));
            }
        });
        Ok(collector)
    }

    fn take_from(&self, mut sender: TcpStream) -> Result<()> {
        while let Some(message) = Message::read(&mut sender, false)? {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            let head = match self.answer.load(Ordering::Relaxed) {
                SILENT => {
                    // The sender's patience ends, not ours.
                    Message::read(&mut sender, false)?;
                    break;
                }
                status => format!("HTTP/1.1 {status} as told\r\ncontent-length: 0\r\n\r\n"),
            };
            Message { head, body: Vec::new() }.write(&mut sender)?;
        }
        Ok(())
    }

    /// What the sender's environment is to say.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// First lines of what was posted so far.
    pub fn lines(&self) -> Vec<String> {
        self.with(|taken| taken.iter().map(|message| message.line().to_owned()).collect())
    }

    /// Whether a text stands in what was posted so far, headers included.
    pub fn has(&self, text: &str) -> bool {
        self.with(|taken| {
            taken.iter().any(|message| message.head.contains(text) || message.body_has(text))
        })
    }

    fn with<T>(&self, look: impl FnOnce(&[Message]) -> T) -> T {
        look(&self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
