//! An embedded stand-in for the Kubernetes API server: it speaks the REST protocol (discovery, list, watch, create,
//! update, the patches, delete) well enough for unmodified clients and kubectl, and says of itself that it is a stand-in.
//!
//! ```text
//! client --HTTP--> server --> verbs --> store --> log file
//!                    |                    |
//!                    +--- list, watch <---+   (bytes as stored)
//! ```
//!
//! It must not grow controllers: nothing is scheduled, garbage collected or defaulted beyond what clients wait for. In
//! tests, start it in the process with [`ApiServer::start`].
//!
//! What a real API server does otherwise:
//! - authentication, authorisation, admission, quotas, schemas (every field is accepted; `kubectl explain` finds none);
//! - defaults and allocations (a Service gets no cluster IP); `/scale`, `/log`, `/exec`, `/token`;
//! - protobuf, but for the bodies of `kubectl create namespace|configmap|secret|serviceaccount`, deletions and evictions;
//! - field ownership from an object's first write on: here from its first server-side apply on;
//! - a bounded database: the log is compacted at start only.

mod discovery;
mod error;
mod faults;
mod form;
mod history;
mod list;
mod log;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod resource;
mod route;
mod selector;
mod server;
mod store;
mod table;
mod verbs;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::log::LogError;

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// TCP address to serve on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// File that keeps the objects across restarts; none keeps them in memory only.
    pub data: Option<PathBuf>,
    /// How many events per resource are kept for watches that resume; older ones get 410 Gone.
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), data: None, history: 20_000 }
    }
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be served on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The data file cannot be used.
    #[error("cannot load the stored objects")]
    Data(#[source] LogError),
    /// The namespaces that every cluster has cannot be stored.
    #[error("cannot store the initial namespaces: {0}")]
    Seed(String),
}

/// Everything that requests share.
pub(crate) struct App {
    pub(crate) state: RwLock<store::State>,
    pub(crate) faults: faults::Faults,
    pub(crate) stop: CancellationToken,
}

/// A running server. Dropping it stops it.
pub struct ApiServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Loads the data file, listens and serves in the background of the present tokio runtime.
    ///
    /// # Errors
    /// When the address is taken or the data file is damaged.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let state = store::State::open(options.data.as_deref(), options.history).map_err(StartError::Data)?;
        let listen_error = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let stop = CancellationToken::new();
        let app = App { state: RwLock::new(state), faults: faults::Faults::new(), stop: stop.clone() };
        verbs::seed(&app).map_err(|error| StartError::Seed(error.to_string()))?;
        let task = tokio::spawn(server::serve(Arc::new(app), listener));
        Ok(Self { address, stop, task: Some(task) })
    }

    /// The address served on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS:PORT`, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for this server (YAML), whose only context is `ovenbird`.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "# A stand-in for a Kubernetes API server: plain HTTP, no authentication.\n\
             apiVersion: v1\nkind: Config\ncurrent-context: ovenbird\n\
             clusters:\n- name: ovenbird\n  cluster:\n    server: {}\n\
             contexts:\n- name: ovenbird\n  context:\n    cluster: ovenbird\n    user: ovenbird\n\
             users:\n- name: ovenbird\n  user: {{}}\n",
            self.url()
        )
    }

    /// Cuts every connection and waits until nothing is served any more. Objects in the data file stay.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // The task only ends when stopped; a panic in it was reported by the runtime.
            let _ = task.await;
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
