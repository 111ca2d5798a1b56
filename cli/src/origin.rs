//! Where `run` has its lease from: a gateway in this very process, or one elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tidegate_gateway::source::SourceSpec;
use tidegate_gateway::{
    Allowed, CutError, Gateway, GatewayConfig, GrantError, GrantRequest, Granted, ResultsRequest,
    SurveyError,
};
use tidegate_wire::JoinFile;

use crate::args::{RunArgs, SourceArgs};
use crate::receipt::{Receipt, ReceiptResults};
use crate::signals::Signals;
use crate::{Usage, home, paths, source};

/// Where the lease comes from.
pub(crate) enum Origin {
    /// A gateway in this very process, on loopback.
    Embedded {
        gateway: Box<Gateway>,
        granted: Box<Granted>,
        spec: SourceSpec,
        /// Where results go.
        home: Option<SourceSpec>,
    },
    /// A gateway elsewhere, which granted already.
    Elsewhere(JoinFile),
}

impl Origin {
    /// Opens the gateway and takes a lease; the inner error is a signal that came meanwhile.
    pub(crate) async fn open(
        args: &RunArgs,
        signals: &mut Signals,
    ) -> Result<Result<Self, Signal>> {
        if let Some(file) = &args.join {
            return Ok(Ok(Self::Elsewhere(read_join(file, args.gateway.as_deref())?)));
        }
        let from = &args.source;
        let beside = args.results_at.is_some()
            || args.spool.results_async
            || args.spool.results_spool.is_some();
        if args.results.results.is_none() && beside {
            let why = "say with --results where results go, or join a lease that knows";
            return Err(Usage(why.into()).into());
        }
        if from.from.is_none() {
            return Err(Usage("name the data with --from, or a lease with --join".into()).into());
        }
        let spec = source::source(from)?;
        let results = home::request(&args.results, &from.s3, &spec)?;
        let home = results.as_ref().map(|results| results.home.clone());
        if let (Some(SourceSpec::Directory(home)), Some(at)) = (&home, &args.results_at) {
            apart(home, at)?;
        }
        let request = request(args, from, &spec, results)?;
        let gateway = start_gateway(args, &spec, home.as_ref()).await?;
        let granted = tokio::select! {
            granted = gateway.grant(request) => granted,
            signal = signals.next() => {
                gateway.shutdown().await;
                return Ok(Err(signal));
            }
        };
        match granted {
            Ok(granted) => Ok(Ok(Self::Embedded {
                gateway: Box::new(gateway),
                granted: Box::new(granted),
                spec,
                home,
            })),
            Err(error) => {
                gateway.shutdown().await;
                // As `plan` says it.
                Err(match error {
                    GrantError::Survey(SurveyError::Cut(CutError::Selection(error))) => {
                        Usage(error.to_string()).into()
                    }
                    error => error.into(),
                })
            }
        }
    }

    pub(crate) fn join(&self) -> Result<JoinFile> {
        match self {
            Self::Embedded { granted, .. } => {
                granted.joins.first().cloned().context("the gateway made no token")
            }
            Self::Elsewhere(join) => Ok(join.clone()),
        }
    }

    /// The gateway of this process has credentials that are none of the command's business.
    pub(crate) fn reaches_a_store(&self) -> bool {
        let is_store = |spec: &SourceSpec| matches!(spec, SourceSpec::S3 { .. });
        match self {
            Self::Embedded { spec, home, .. } => {
                is_store(spec) || home.as_ref().is_some_and(is_store)
            }
            Self::Elsewhere(_) => false,
        }
    }

    /// Nothing was staged: the lease goes at once.
    pub(crate) async fn give_up(self) {
        if let Self::Embedded { gateway, granted, .. } = self {
            if let Err(error) = gateway.close(granted.lease).await {
                eprintln!("tidegate: the lease stays open until its deadline: {error}");
            }
            gateway.shutdown().await;
        }
    }

    /// The receipt of a lease whose worker did not certify its wipe.
    pub(crate) async fn withdrawn(
        &self,
        ready: &tidegate_fuse_cache::Ready,
        last: &tidegate_fuse_cache::Progress,
    ) -> Result<Option<Receipt>> {
        let Self::Embedded { gateway, granted, .. } = self else { return Ok(None) };
        let closed = gateway.close(granted.lease).await?;
        let certificate = closed.certificates.first();
        Ok(Some(Receipt {
            lease: closed.lease,
            source: None,
            selected_files: ready.files,
            selected_bytes: ready.bytes,
            blocks: ready.blocks,
            unshown: Vec::new(),
            left_bytes: closed.sent_bytes.unwrap_or(closed.released_bytes),
            read_bytes: last.bytes_read,
            read_errors: last.read_errors,
            first_byte_ms: last.first_byte_ms,
            results: last.results.as_ref().map(ReceiptResults::last_seen),
            workers_replaced: 0,
            outcome: closed.outcome,
            certificate: certificate
                .map(|text| tidegate_ledger::WipeCertificate::parse(text))
                .transpose()?,
            checkpoint: closed.checkpoint,
        }))
    }

    /// Adds what only the embedded gateway knows.
    pub(crate) fn annotate(&self, receipt: &mut Receipt) {
        if let Self::Embedded { granted, spec, .. } = self {
            receipt.source = Some(spec.to_string());
            receipt.unshown.clone_from(&granted.unshown);
        }
    }

    pub(crate) async fn shutdown(self) {
        if let Self::Embedded { gateway, .. } = self {
            gateway.shutdown().await;
        }
    }
}

async fn start_gateway(
    args: &RunArgs,
    spec: &SourceSpec,
    home: Option<&SourceSpec>,
) -> Result<Gateway> {
    let state = std::path::absolute(paths::state(args.ledger.ledger.clone())?)?;
    // Beside the ledger, not in it: a ledger that was set back alone is noticed at the next start.
    let copy = state.join("checkpoint");
    let mut config = GatewayConfig::embedded(state, allowed(spec)?);
    config.checkpoint_copy = Some(copy);
    if let Some(home) = home {
        config.allow_results(home);
    }
    config.rate_limit = args.limit.map(|rate| rate.0);
    Ok(Gateway::start(config).await?)
}

/// The one source that an embedded gateway may serve: the real path, as the gateway compares it.
fn allowed(spec: &SourceSpec) -> Result<Allowed> {
    match spec {
        SourceSpec::Directory(path) => {
            let real = fs::canonicalize(path).map_err(|error| {
                anyhow::Error::new(error).context(format!("--from: cannot open {}", path.display()))
            })?;
            Ok(SourceSpec::Directory(real).into())
        }
        SourceSpec::S3 { .. } => Ok(spec.clone().into()),
    }
}

/// The gateway writes to the home by its path, which a mount must not hide.
fn apart(home: &Path, at: &Path) -> Result<()> {
    let at = fs::canonicalize(at)
        .map_err(|error| Usage(format!("--results-at {}: {error}", at.display())))?;
    if at.starts_with(home) || home.starts_with(&at) {
        let why = format!("--results-at {}: would hide the results' home", at.display());
        return Err(Usage(why).into());
    }
    Ok(())
}

fn request(
    args: &RunArgs,
    from: &SourceArgs,
    spec: &SourceSpec,
    results: Option<ResultsRequest>,
) -> Result<GrantRequest> {
    let (rank, ranks) = source::rank(from);
    Ok(GrantRequest {
        source: spec.clone(),
        selection: source::selection(from)?,
        ranks,
        only_rank: Some(rank),
        duration: args.duration.0,
        subject: subject(),
        dataset: String::new(),
        results,
    })
}

/// Under whose name data leaves: the user and the host that ask.
fn subject() -> String {
    let user = rustix::process::getuid().as_raw();
    let host = rustix::system::uname();
    format!("uid {user} on {}", host.nodename().to_string_lossy())
}

/// Reads a join file and, when asked, puts another gateway first.
pub(crate) fn read_join(file: &PathBuf, gateway: Option<&str>) -> Result<JoinFile> {
    let bytes =
        fs::read(file).map_err(|error| Usage(format!("--join {}: {error}", file.display())))?;
    let mut join = JoinFile::parse(&bytes)
        .map_err(|error| Usage(format!("--join {}: {error}", file.display())))?;
    if let Some(gateway) = gateway {
        join.gateways.retain(|known| known != gateway);
        join.gateways.insert(0, gateway.to_owned());
    }
    Ok(join)
}
