//! `tidegate gateway`: the gateway as a program of its own, until SIGINT or SIGTERM.

use anyhow::{Context as _, Result};
use tidegate_gateway::{ConfigError, Gateway, GatewayConfig};
use tidegate_kit::shutdown::Shutdown;
use tidegate_kit::telemetry;

use crate::args::{GatewayArgs, GatewayCommand};
use crate::run::log_format;
use crate::{Usage, memory, restore};

pub(crate) fn main(args: &GatewayArgs, json: bool) -> Result<u8> {
    if let Some(GatewayCommand::Restore(args)) = &args.command {
        return restore::main(args, json);
    }
    telemetry::init(log_format(json), "info")?;
    memory::hide()?;
    memory::no_core_images()?;
    let file = args.config.as_deref().context("no --config")?;
    let wrong = |error: ConfigError| Usage(error.to_string());
    let config = GatewayConfig::load(file).map_err(wrong)?;
    if args.check {
        for doubt in config.inspect().map_err(wrong)? {
            eprintln!("tidegate: {doubt}");
        }
        eprintln!("tidegate: {} is good", file.display());
        return Ok(0);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let gateway = Gateway::start(config).await?;
        eprintln!("tidegate: gateway listens on {}", gateway.addr());
        let (_trigger, mut shutdown) = Shutdown::on_signals()?;
        shutdown.wait().await;
        gateway.shutdown().await;
        Ok(0)
    })
}
