//! The node's way out: what the external bridge is, what it tells the cluster of itself, and how host and gateway router share it.
//!
//! ```text
//! Open_vSwitch, kernel, settings --> [discover] --> Gateway --> annotations, ovn-bridge-mappings  (written by `chassis`)
//!                                                   Gateway, [services] --> [flows] --> [openflow]  (by `task`)
//!             VLANs of physical networks --> [physical] --^
//!                                                   --> [host] --> routes of the kernel; [nft] --> nftables
//!                              [services] --> [health]: answers to health checks     [cleanup] takes everything back
//! ```
//!
//! Each file's header says what it is for.

pub mod bridge;
pub mod cleanup;
pub mod conntrack;
pub mod discover;
pub mod endpoints;
pub mod flows;
pub mod health;
pub mod host;
pub mod nft;
pub mod openflow;
pub mod physical;
#[cfg(test)]
mod real_tests;
pub mod services;
pub mod settings;
pub mod task;

pub use bridge::{Bridge, BridgePort};
pub use discover::{Gateway, discover};
pub use settings::GatewaySettings;

use std::net::SocketAddr;

use anyhow::Context as _;
use kube::Client;
use ovenbird_api::name::INTEGRATION_BRIDGE;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch::Receiver;

use crate::config::Config;
use services::Services;

/// Watches what gateway and health checks follow: Services, and what matters of their endpoints.
pub fn watch(client: &Client, config: &Config) -> (Receiver<Option<Services>>, endpoints::Told) {
    let services = services::watch_services(client.clone());
    let told = endpoints::watch_endpoints(client.clone(), config.node.clone(), services.clone());
    (services, told)
}

/// Answers health checks, and has UDP connections that lead nowhere forgotten, until the daemon stops.
///
/// # Errors
/// When one of the daemon's other parts has ended.
pub async fn serve_endpoints(
    config: Config,
    services: Receiver<Option<Services>>,
    local: Receiver<Option<endpoints::Local>>,
    stale: UnboundedReceiver<SocketAddr>,
) -> anyhow::Result<()> {
    let bridge = openflow::socket(&config.ovs, INTEGRATION_BRIDGE);
    tokio::try_join!(async { health::serve(services, local).await.context("answering health checks") }, async {
        conntrack::run(bridge.as_deref(), stale).await.context("forgetting connections")
    },)?;
    Ok(())
}
