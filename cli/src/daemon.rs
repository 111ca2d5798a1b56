//! `tidegate gateway`: the gateway as a program of its own, until SIGINT or SIGTERM.

use anyhow::Result;
use tidegate_gateway::{Gateway, GatewayConfig};
use tidegate_kit::shutdown::Shutdown;
use tidegate_kit::telemetry;

use crate::args::GatewayArgs;
use crate::run::log_format;
use crate::{Usage, memory};

pub(crate) fn main(args: &GatewayArgs, json: bool) -> Result<u8> {
    telemetry::init(log_format(json), "info")?;
    memory::hide()?;
    memory::no_core_images()?;
    let config = GatewayConfig::load(&args.config).map_err(|error| Usage(error.to_string()))?;
    if args.check {
        eprintln!("tidegate: {} is good", args.config.display());
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
