//! A mount as its operators see it. The holder answers, which has no keys; the figures are the worker's.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tidegate_fuse_cache::meters;
use tidegate_fuse_cache::supervisor::Watch;
use tidegate_kit::telemetry::meter::line;
use tidegate_kit::telemetry::ops::{self, Daemon};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The address, taken before anything is mounted.
pub(crate) struct Ops(TcpListener);

impl Ops {
    pub(crate) async fn listen(address: SocketAddr) -> Result<Self> {
        let listener = ops::listen(address).await?;
        eprintln!("tidegate: metrics and health on http://{}", listener.local_addr()?);
        Ok(Self(listener))
    }

    /// Answers until what it returns is dropped.
    pub(crate) fn serve(self, watch: Watch) -> JoinSet<()> {
        let mut task = JoinSet::new();
        task.spawn(ops::serve(self.0, Arc::new(Mounted(watch))));
        task
    }
}

struct Mounted(Watch);

impl Daemon for Mounted {
    fn is_started(&self) -> bool {
        self.0.is_started()
    }

    async fn ready(&self) -> Result<(), String> {
        match self.0.figures().await {
            Some(figures) if figures.ready => Ok(()),
            Some(_) => {
                Err("no gateway was heard within the grace, or the lease is over".to_owned())
            }
            None => Err("no worker answers".to_owned()),
        }
    }

    async fn metrics(&self) -> String {
        match self.0.figures().await {
            Some(figures) => figures.text,
            None => line(&meters::UP, 0) + &line(&meters::READY, 0),
        }
    }
}
