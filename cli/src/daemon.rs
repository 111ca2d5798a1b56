//! `tidegate gateway`: the gateway as a program of its own, until SIGINT or SIGTERM.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_gateway::{ConfigError, Gateway, GatewayConfig};
use tidegate_kit::shutdown::Shutdown;
use tidegate_kit::telemetry::{self, Format};

use crate::args::{GatewayArgs, GatewayCommand};
use crate::{Usage, memory, restore};

pub(crate) fn main(args: &GatewayArgs, json: bool, format: Option<Format>) -> Result<u8> {
    if let Some(GatewayCommand::Restore(args)) = &args.command {
        return restore::main(args, json, format.unwrap_or_default());
    }
    memory::hide()?;
    memory::no_core_images()?;
    let file = args.config.as_deref().context("no --config")?;
    let wrong = |error: ConfigError| Usage(error.to_string());
    let config = GatewayConfig::load(file).map_err(wrong)?;
    telemetry::init_with_traces(format.unwrap_or(config.log.format), "info")?;
    if args.check {
        for doubt in config.inspect().map_err(wrong)? {
            eprintln!("tidegate: {doubt}");
        }
        eprintln!("tidegate: {} is good", file.display());
        return Ok(0);
    }
    raise_descriptor_limit(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let gateway = Gateway::start(config).await?;
        eprintln!("tidegate: gateway listens on {}", gateway.addr());
        if let Some(ops) = gateway.ops_addr() {
            eprintln!("tidegate: metrics and health on http://{ops}");
        }
        let (_trigger, mut shutdown) = Shutdown::on_signals()?;
        shutdown.wait().await;
        gateway.shutdown().await;
        Ok(0)
    })
}

/// Descriptors beside connections: state, sources, listeners.
const DESCRIPTORS_BESIDE: u64 = 4096;

/// Takes all descriptors that this process may have, since each connection is one: the usual soft
/// limit of 1024 is for programs that use select(2).
fn raise_descriptor_limit(config: &GatewayConfig) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let wanted = (config.limits.connections + config.limits.strangers) as u64 + DESCRIPTORS_BESIDE;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "few open files are allowed for the connections of `limits`; raise the limit or lower them"
        ),
        _ => {}
    }
}
