//! The way to the master's admin socket (JSON-RPC 2.0 on a unix socket), for all subcommands that ask it.
//!
//! Must not: know what is asked.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Where the master answers.
#[derive(Debug, clap::Args)]
pub struct Admin {
    /// Admin socket of the master.
    #[arg(
        long,
        visible_alias = "admin-socket",
        env = "OVENBIRD_ADMIN_SOCKET",
        default_value = "/run/ovenbird/master.sock",
        value_name = "PATH"
    )]
    socket: PathBuf,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Admin {
    /// A connection.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(&self) -> anyhow::Result<WsClient> {
        let advice = || {
            format!(
                "cannot reach a master at {}; is it running here, is --socket its --admin-socket, and are you root?",
                self.socket.display()
            )
        };
        let stream = UnixStream::connect(&self.socket).await.with_context(advice)?;
        WsClientBuilder::new().build_with_stream("ws://localhost/", stream).await.with_context(advice)
    }
}

/// What runs one request after the other.
///
/// # Errors
/// When the host has no file descriptors left.
pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}
