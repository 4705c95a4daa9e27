//! The unix socket on which the shim is served: only root can reach it, each connection is its own task, each request has a
//! deadline. The protocol on it is JSON-RPC 2.0 over HTTP/1.1 (jsonrpsee): method `cni` with the parameters [`Call`],
//! result [`Reply`].
//!
//! ```text
//! accept -> peer is root? -> jsonrpsee -> parse_request -> Attach (with deadline) -> Reply { stdout, code }
//! ```
//!
//! ADD, CHECK and STATUS end when the caller goes away; DEL and GC run to their end.
//!
//! [`Call`]: crate::request::Call

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::server::{RpcModule, ServerConfig as RpcConfig, serve_with_graceful_shutdown, stop_channel};
use jsonrpsee::types::ErrorObjectOwned;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attach::Attach;
use crate::error::{CniError, Code};
use crate::request::{Action, Request, parse_request};
use crate::result::{add_json, version_json};

/// Longest request: the shim sends at most 1 MiB of stdin, escaped.
const MAX_REQUEST: u32 = 8 << 20;
/// Requests served at once; a node has a few hundred pods.
const MAX_CONNECTIONS: u32 = 4096;
/// An `Attach` that does not keep its deadline is cut off this much later.
const GRACE: Duration = Duration::from_secs(1);

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Path of the socket; its folder is made with mode 0700.
    pub socket: PathBuf,
    /// Time that one request may take.
    pub deadline: Duration,
}

/// The server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The folder of the socket.
    #[error("making the folder {0} of the CNI socket, for root only")]
    Folder(PathBuf, #[source] io::Error),
    /// The folder is somebody else's.
    #[error("the folder {0} of the CNI socket belongs to user {1}: remove it or choose another with --cni-socket")]
    Foreign(PathBuf, u32),
    /// The socket.
    #[error("listening on the CNI socket {0}")]
    Listen(PathBuf, #[source] io::Error),
    /// The RPC method.
    #[error("registering the CNI method")]
    Method(#[from] jsonrpsee::core::RegisterMethodError),
}

/// Result of the method `cni`: what the shim prints and exits with.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    /// Text for standard output.
    pub stdout: String,
    /// Exit status.
    pub code: u8,
}

/// A bound socket, not served yet.
pub struct Server {
    listener: UnixListener,
    config: ServerConfig,
}

impl Server {
    /// Binds the socket: folder 0700, socket 0600, both root's. A socket left behind by an earlier process is replaced.
    ///
    /// # Errors
    /// When the folder cannot be made safe or the socket cannot be bound.
    pub fn bind(config: ServerConfig) -> Result<Server, ServerError> {
        let folder = config.socket.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        let listen = |e| ServerError::Listen(config.socket.clone(), e);
        match std::fs::remove_file(&config.socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(listen(e)),
            _ => {}
        }
        // The folder admits nobody else, so the moment before the mode is set is nobody's chance.
        let listener = UnixListener::bind(&config.socket).map_err(listen)?;
        std::fs::set_permissions(&config.socket, PermissionsExt::from_mode(0o600)).map_err(listen)?;
        Ok(Server { listener, config })
    }

    /// Serves until `stop` is cancelled; then no new request is taken and those under way are finished.
    ///
    /// # Errors
    /// When the RPC module cannot be built.
    pub async fn serve<A: Attach>(self, attach: Arc<A>, stop: CancellationToken) -> Result<(), ServerError> {
        let deadline = self.config.deadline;
        let mut module = RpcModule::new(attach);
        module.register_async_method("cni", move |params, attach, _| async move {
            let call = params.as_str().unwrap_or("null").as_bytes().to_vec();
            Ok::<_, ErrorObjectOwned>(answer(Arc::clone(&*attach), &call, deadline).await)
        })?;
        let rpc = RpcConfig::builder()
            .http_only()
            .max_request_body_size(MAX_REQUEST)
            .max_connections(MAX_CONNECTIONS)
            .build();
        let (rpc_stop, rpc_handle) = stop_channel();
        let service =
            jsonrpsee::server::Server::builder().set_config(rpc).to_service_builder().build(module, rpc_stop.clone());
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if peer_is_root(&stream) => {
                    let (service, stop) = (service.clone(), rpc_stop.clone());
                    connections.spawn(async move {
                        if let Err(e) = serve_with_graceful_shutdown(stream, service, stop.shutdown()).await {
                            tracing::debug!("CNI connection: {e}");
                        }
                    });
                }
                Ok(_) => tracing::warn!("CNI connection of another user than root refused"),
                Err(e) => {
                    // Out of file descriptors, most likely: those in use come free as requests end.
                    tracing::warn!("CNI socket accept: {e}");
                    tokio::task::yield_now().await;
                }
            }
        }
        drop(rpc_handle);
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

fn make_folder(folder: &Path) -> Result<(), ServerError> {
    let failed = |e| ServerError::Folder(folder.to_owned(), e);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let owner = std::fs::metadata(folder).map_err(failed)?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return Err(ServerError::Foreign(folder.to_owned(), owner));
    }
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).map_err(failed)
}

/// The kernel vouches for the peer's user. (The daemon's own user is let in too, so that tests need no root.)
fn peer_is_root(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw())
}

/// One request, from bytes to what the shim prints.
async fn answer<A: Attach>(attach: Arc<A>, call: &[u8], deadline: Duration) -> Reply {
    let start = Instant::now();
    let (command, version, result) = match parse_request(call) {
        Ok(Request { version, action }) => {
            let command = action.name();
            (command, version, run(&attach, action, version, start + deadline).await)
        }
        Err(rejection) => ("?", rejection.version, Err(rejection.error)),
    };
    let code = result.as_ref().err().map_or(0, |e| e.code as u32);
    attach.observe(command, start.elapsed(), code);
    match result {
        Ok(stdout) => Reply { stdout, code: 0 },
        Err(error) => {
            tracing::warn!(command, code, "CNI request failed: {error}");
            Reply { stdout: error.to_json(version), code: 1 }
        }
    }
}

async fn run<A: Attach>(
    attach: &Arc<A>,
    action: Action,
    version: crate::Version,
    deadline: Instant,
) -> Result<String, CniError> {
    let cut = deadline + GRACE;
    match action {
        Action::Version => Ok(version_json(version)),
        Action::Status => attach.status().map(|()| String::new()),
        Action::Add(add) => {
            let attached = within(cut, attach.add(add, deadline)).await?;
            Ok(add_json(&attached, version))
        }
        Action::Find(attachment) => match attach.find(&attachment) {
            Some(attached) => Ok(add_json(&attached, version)),
            None => Err(CniError::new(Code::UnknownContainer, format!("{} is not attached", attachment.container_id))),
        },
        Action::Check(check) => within(cut, attach.check(check, deadline)).await.map(|()| String::new()),
        Action::Del(del) => {
            let attach = Arc::clone(attach);
            to_the_end(async move { within(cut, attach.del(del, deadline)).await }).await
        }
        Action::Gc(valid) => {
            let attach = Arc::clone(attach);
            to_the_end(async move { within(cut, attach.gc(valid, deadline)).await }).await
        }
    }
}

async fn within<T>(cut: Instant, work: impl Future<Output = Result<T, CniError>>) -> Result<T, CniError> {
    tokio::time::timeout_at(cut, work).await.unwrap_or_else(|_| {
        Err(CniError::new(Code::TryAgainLater, "the request took longer than its deadline")
            .details("see the log of ovenbird-node on this node"))
    })
}

/// Runs in a task of its own, which goes on when the caller's connection is closed.
async fn to_the_end(work: impl Future<Output = Result<(), CniError>> + Send + 'static) -> Result<String, CniError> {
    match tokio::spawn(work).await {
        Ok(result) => result.map(|()| String::new()),
        Err(e) => Err(CniError::new(Code::Internal, "the request was aborted").details(e.to_string())),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
