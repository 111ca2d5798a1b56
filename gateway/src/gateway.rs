//! A running gateway: started, asked, shut down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_kit::ledger_log::LedgerLog;
use tidegate_kit::telemetry;
use tidegate_kit::telemetry::exposition::Exposition;
use tidegate_kit::tls::server_config;
use tidegate_lease::Event;
use tidegate_plan::LeaseId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::admin;
use crate::bringing;
use crate::closing::{self, CloseError, Closed};
use crate::config::GatewayConfig;
use crate::granting::{GrantError, GrantRequest, Granted, grant};
use crate::live::Live;
use crate::meters;
use crate::office::Office;
use crate::ops::Ops;
use crate::premises::{Premises, StartError};
use crate::reaper;
use crate::recovery::{Alive, recover};
use crate::server::Door;
use crate::service;
use crate::status::{LeaseStatus, status};

/// A gateway that serves until it is [shut down](Self::shutdown) or its process ends.
pub struct Gateway {
    office: Arc<Office>,
    addr: SocketAddr,
    alive: Alive,
    stop: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    ops: Option<Arc<Ops>>,
    /// Address of the operators' listener; it answers until this value is dropped.
    ops_addr: Option<SocketAddr>,
    _ops_task: JoinSet<()>,
}

/// How long requests under way may take at the end: less than the half minute after which
/// Kubernetes, and others, kill.
const SHUTDOWN_TIME: Duration = Duration::from_secs(20);

impl Gateway {
    /// Opens state, keyring and ledger, takes over or withdraws what an earlier process left, and
    /// listens. Needs a multi-threaded tokio runtime.
    pub async fn start(config: GatewayConfig) -> Result<Self, StartError> {
        config.check()?;
        let mut ops_task = JoinSet::new();
        let (mut ops, mut ops_addr) = (None, None);
        if let Some(address) = config.ops_listen {
            // First of all, so that it can be asked how the start goes.
            let listener = telemetry::ops::listen(address).await?;
            ops_addr = listener.local_addr().ok();
            let exposition = Exposition::begin(&[meters::ALL, tidegate_kit::meters::ALL])?;
            let made = Arc::new(Ops::new(exposition));
            ops_task.spawn(telemetry::ops::serve(listener, Arc::clone(&made)));
            ops = Some(made);
        }
        let premises = Premises::open(config).await?;
        let log = LedgerLog::open(premises.store.clone(), premises.ledger()).await?;
        let authority = premises.authority()?;

        let config = &premises.config;
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let admin = match &config.admin_socket {
            Some(path) => Some((admin::bind(path).await?, path.clone())),
            None => None,
        };
        let names = config.host_names();
        let urls = if config.gateways.is_empty() {
            names.iter().map(|name| url(name, addr.port())).collect()
        } else {
            config.gateways.clone()
        };
        let tls = server_config(&authority, &names)?;
        let limits = config.limits.clone();
        let (office, alive) = premises.office(log, authority, urls)?;
        recover(&office).await?;

        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let door = Door::new(service::router(Arc::clone(&office)), tls, &limits);
        tasks.spawn(door.keep(listener, stopped.clone()));
        tasks.spawn(reaper::keep(Arc::clone(&office), stopped.clone()));
        tasks.spawn(reaper::go_round(Arc::clone(&office), stopped.clone()));
        tasks.spawn(reaper::tidy_up(Arc::clone(&office), stopped.clone()));
        if let Some((listener, path)) = admin {
            let router = admin::router(Arc::clone(&office));
            tasks.spawn(admin::keep(router, listener, path, stopped));
        }
        if office.config.sources.allow.is_empty() {
            tracing::warn!("`sources.allow` is empty: nothing can be leased from this gateway");
        }
        tracing::info!(%addr, "the gateway listens");
        if let Some(ops) = &ops {
            ops.started(Arc::clone(&office));
        }
        let tasks = tokio::sync::Mutex::new(tasks);
        Ok(Self { office, addr, alive, stop, tasks, ops, ops_addr, _ops_task: ops_task })
    }

    /// Address of the workers' listener.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Address of the operators' listener, if there is one.
    pub fn ops_addr(&self) -> Option<SocketAddr> {
        self.ops_addr
    }

    /// Verifier key of the ledger, in signed-note form.
    pub fn ledger_key(&self) -> String {
        self.office.record.vkey()
    }

    /// The ledger's newest signed head.
    pub fn checkpoint(&self) -> String {
        self.office.record.checkpoint()
    }

    /// Lists the source, selects, cuts and grants; the grant is in the ledger when this returns.
    pub async fn grant(&self, request: GrantRequest) -> Result<Granted, GrantError> {
        if *self.stop.borrow() {
            return Err(GrantError::ShuttingDown);
        }
        grant(&self.office, request).await
    }

    /// Closes a lease whatever its workers did. One that is closed already tells how it ended.
    pub async fn close(&self, lease: LeaseId) -> Result<Closed, CloseError> {
        let live = self.office.find(lease).ok_or(CloseError::NoSuchLease)?;
        self.finish(&live).await
    }

    async fn finish(&self, live: &Live) -> Result<Closed, CloseError> {
        let _turn = live.turn.lock().await;
        closing::finish(&self.office, live, Event::Abandon, self.office.now()).await
    }

    /// Destroys a lease's keys now. A worker that is not taken for gone is waited for, to wipe and say so:
    /// `None` until then.
    pub async fn revoke(&self, lease: LeaseId) -> Result<Option<Closed>, CloseError> {
        let live = self.office.find(lease).ok_or(CloseError::NoSuchLease)?;
        closing::cut_off(&self.office, &live, Event::Revoke).await
    }

    /// Asks a lease's workers to finish and wipe; what they have open they may still read.
    pub async fn drain(&self, lease: LeaseId) -> Result<(), CloseError> {
        let live = self.office.find(lease).ok_or(CloseError::NoSuchLease)?;
        closing::drain(&self.office, &live).await
    }

    /// A lease as it stands; `None` when this gateway does not know it.
    pub fn status(&self, lease: LeaseId) -> Option<LeaseStatus> {
        Some(status(&self.office, &*self.office.find(lease)?))
    }

    /// Stops listening, lets requests under way finish for a while. An embedded gateway withdraws what is still
    /// open; a daemon's leases go on at its next start.
    pub async fn shutdown(&self) {
        if let Some(ops) = &self.ops {
            ops.stopping();
        }
        self.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        let last = Instant::now() + SHUTDOWN_TIME;
        if timeout_at(last, ended).await.is_err() {
            tracing::warn!("requests that did not end in time are cut off");
            tasks.shutdown().await;
        }
        // A grant that is being made is known afterwards.
        let _none_is_made = timeout_at(last, self.office.granting.write()).await;
        // What was done at home, for whomever, is written down.
        drop(timeout_at(last, self.office.steps.write()).await);
        let mut clean = true;
        for live in self.office.all() {
            if self.office.owner.is_some()
                && let Err(error) = self.finish(&live).await
            {
                clean = false;
                tracing::error!(lease = %live.id, %error, "a lease stays to be withdrawn by the next start");
            }
            self.office.keyring.forget(live.id);
        }
        // Later than the leases' ends, which do not wait for it.
        let _tidied = timeout_at(last, bringing::tidy(&self.office)).await;
        let sums = self.office.refusals.due(None);
        if !sums.is_empty()
            && let Err(error) = self.office.record.append(sums).await
        {
            tracing::error!(%error, "sums of refusals could not be recorded");
        }
        if clean {
            self.alive.leave();
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("addr", &self.addr).finish_non_exhaustive()
    }
}

fn url(name: &str, port: u16) -> String {
    if name.contains(':') {
        format!("https://[{name}]:{port}")
    } else {
        format!("https://{name}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use tidegate_plan::SelectionSpec;

    use super::*;
    use crate::keepers::write_down;
    use crate::source::SourceSpec;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_heard_is_written_down_once_for_all_ranks() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), b"content").unwrap();
        let config = GatewayConfig::embedded(dir.path().join("state"), data.to_str().unwrap());
        let gateway = Gateway::start(config).await.unwrap();
        let request = GrantRequest {
            source: SourceSpec::Directory(data),
            selection: SelectionSpec::default(),
            ranks: 1,
            only_rank: None,
            duration: Duration::from_secs(3600),
            subject: "somebody".to_owned(),
            dataset: "set".to_owned(),
            results: None,
        };
        let granted = gateway.grant(request).await.unwrap();
        let (office, live) = (&gateway.office, gateway.office.find(granted.lease).unwrap());
        let now = office.now();
        let revision_at = async |now| {
            write_down(office, &live, now).await.unwrap();
            live.view().revision
        };
        let first = revision_at(now).await;
        assert_eq!(revision_at(now + 224).await, first);
        assert_eq!(revision_at(now + 225).await, first + 1);
        gateway.shutdown().await;
    }
}
