//! The node's way out: what the external bridge is, what it tells the cluster of itself, and how host and gateway router share it.
//!
//! ```text
//! Open_vSwitch, kernel, settings --> [discover] --> Gateway --> annotations, ovn-bridge-mappings  (written by `chassis`)
//!                                                   Gateway, [services] --> [flows] --> [openflow]  (by `task`)
//!                                                   --> [host] --> routes of the kernel; [nft] --> nftables
//!                              [services] --> [health]: answers to health checks     [cleanup] takes everything back
//! ```
//!
//! Each file's header says what it is for.

pub mod bridge;
pub mod cleanup;
pub mod discover;
pub mod endpoints;
pub mod flows;
pub mod health;
pub mod host;
pub mod nft;
pub mod openflow;
#[cfg(test)]
mod real_tests;
pub mod services;
pub mod settings;
pub mod task;

pub use bridge::{Bridge, BridgePort};
pub use discover::{Gateway, discover};
pub use settings::GatewaySettings;

use kube::Client;
use tokio::sync::watch::Receiver;

use crate::config::Config;
use endpoints::Local;
use services::Services;

/// Watches what gateway and health checks follow: Services, and those of their endpoints on this node that matter.
pub fn watch(client: &Client, config: &Config) -> (Receiver<Option<Services>>, Receiver<Option<Local>>) {
    let services = services::watch_services(client.clone());
    let local = endpoints::watch_local(client.clone(), config.node.clone(), services.clone());
    (services, local)
}
