//! Connections between requests, and the certificate that new ones show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;

use super::connection::Connection;

/// Connections kept open while nothing goes over them.
const MOST: usize = 20;

pub(super) struct Idle(Mutex<State>);

struct State {
    config: Arc<ClientConfig>,
    /// Counts the certificates.
    generation: u64,
    connections: Vec<Connection>,
}

impl Idle {
    pub(super) fn new(config: Arc<ClientConfig>) -> Self {
        Self(Mutex::new(State { config, generation: 0, connections: Vec::new() }))
    }

    /// New connections use this from now on, and those of before are used no more.
    pub(super) fn renew(&self, config: Arc<ClientConfig>) {
        let mut state = self.lock();
        state.config = config;
        state.generation += 1;
        state.connections.clear();
    }

    /// Forgets those that lead to a gateway.
    pub(super) fn drop_all_to(&self, endpoint: usize) {
        self.lock().connections.retain(|connection| connection.endpoint != endpoint);
    }

    /// How to connect, and the generation of that.
    pub(super) fn config(&self) -> (Arc<ClientConfig>, u64) {
        let state = self.lock();
        (Arc::clone(&state.config), state.generation)
    }

    pub(super) fn take(&self) -> Option<Connection> {
        let mut state = self.lock();
        while let Some(connection) = state.connections.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// A connection whose answer was read to its end.
    pub(super) fn put_back(&self, connection: Connection) {
        let mut state = self.lock();
        let current = connection.generation == state.generation;
        if current && connection.is_open() && state.connections.len() < MOST {
            state.connections.push(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
