//! Starts every part, connects them, and stops them in the order that hands the lease over safely.
//!
//! Stop: the pipeline ends what is under way and writes no more; then the lease is given back; then the servers go.
//! Must not: hold logic of any part.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use kube::Api;
use ovenbird_daemon::access::{self, AccessError};
use ovenbird_daemon::http;
use ovenbird_schema::northbound;
use ovenbird_topology::{AdminKind, Interner, NetworkPolicyFact, ServiceCidrFact};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::annotate;
use crate::condition::Conditions;
use crate::config::{Config, Northbound};
use crate::event::Reporter;
use crate::lease::Election;
use crate::metrics::Metrics;
use crate::object::admin_policy::{Anp, Banp, Cnp, SlimAdmin};
use crate::object::network::{NetworkKind, Own, ProviderNetworkKind};
use crate::object::{NamespaceKind, NodeKind, PodKind, ServiceKind, Slim, SlimSlice};
use crate::pipeline::{Inputs, Outputs, Pipeline, Seen};
use crate::readiness::{Readiness, Shown};
use crate::{admin, monitor, watch};

/// Batches of changes that watches may be ahead of the pipeline.
const AHEAD: usize = 8;

/// Why the master does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No usable access to the API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The HTTP server does not start.
    #[error("cannot serve on --metrics-bind-address {address}; choose another, or \"\" for none")]
    Http {
        /// The address.
        address: std::net::SocketAddr,
        /// Cause.
        source: std::io::Error,
    },
    /// The admin socket does not start.
    #[error("cannot serve on --admin-socket {path}; choose another, or \"\" for none")]
    Admin {
        /// The path.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}

/// Runs the master until `stop`.
///
/// # Errors
/// When it cannot start. Servers that come and go later are waited for.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let client = access::connect(config.kubeconfig.as_deref()).await?;
    run_with(client, config, stop).await
}

/// Runs the master with a given client of the API server.
///
/// # Errors
/// As [`run`].
pub async fn run_with(client: kube::Client, config: Config, stop: CancellationToken) -> Result<(), RunError> {
    // First, because it takes longest: the whole contents come while the lists do.
    let (handle, northbound_events) = match &config.northbound {
        Some(servers) => ovsdb::Client::spawn(ovsdb_config(servers), &northbound::DATABASE, monitor::spec()),
        None => ovsdb::Handle::detached(&northbound::DATABASE),
    };
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::default());
    readiness.northbound.store(config.northbound.is_none(), Ordering::Relaxed);
    let servers = CancellationToken::new();
    let _stop_servers = servers.clone().drop_guard();
    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address).await.map_err(|source| RunError::Http { address, source })?;
        let serving =
            http::serve(listener, Shown { metrics: metrics.clone(), readiness: readiness.clone() }, servers.clone());
        tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
    }
    let (questions_tx, questions) = mpsc::channel(8);
    if let Some(path) = config.admin_socket.clone() {
        let listener = admin::bind(&path).map_err(|source| RunError::Admin { path: path.clone(), source })?;
        tokio::spawn(admin::serve(listener, path, questions_tx, servers.clone()));
    }
    let election = Election::start(client.clone(), config.lease.clone()).await;
    let (generation, seen) = spawn_watches(&client);
    let (requests, request_rx) = mpsc::unbounded_channel();
    let (outcome_tx, outcomes) = mpsc::unbounded_channel();
    let validity = election.validity.clone();
    tokio::spawn(annotate::run(client.clone(), validity.clone(), config.patch_concurrency, request_rx, outcome_tx));
    let conditions = Conditions::spawn(client.clone(), validity.clone());
    let reporter = Reporter::spawn(client, election.identity.clone(), validity.clone());
    let outputs = Outputs { requests, generation, handle, reporter, conditions, validity, metrics, readiness };
    let inputs = Inputs { seen, outcomes, northbound: northbound_events, leading: election.leading.clone(), questions };
    Pipeline::new(&config, election.identity.clone(), outputs).run(inputs, stop).await;
    election.release().await;
    Ok(())
}

fn ovsdb_config(servers: &Northbound) -> ovsdb::Config {
    let mut client = ovsdb::Config::new(servers.endpoints.clone());
    client.tls.clone_from(&servers.tls);
    // Only the leader of a cluster shows what it has committed at once.
    client.leader_only = servers.endpoints.len() > 1;
    client.backoff = (Duration::from_millis(100), Duration::from_secs(2));
    client
}

/// One watch for each kind. They end when the pipeline does.
fn spawn_watches(client: &kube::Client) -> (channel::Sender<u64>, mpsc::Receiver<Seen>) {
    let (generation, current) = channel::channel(0);
    let (tx, seen) = mpsc::channel(AHEAD);
    let watches = Watches { client, current, tx };
    watches.spawn(Slim::<PodKind>::tell, Seen::Pods);
    watches.spawn(|node: Slim<NodeKind>, _: &mut Interner| node.tell(), Seen::Nodes);
    watches.spawn(Slim::<NamespaceKind>::tell, Seen::Namespaces);
    watches.spawn(Slim::<ServiceKind>::tell, Seen::Services);
    watches.spawn(SlimSlice::tell, Seen::EndpointSlices);
    let policy = |policy: NetworkPolicy, texts: &mut Interner| NetworkPolicyFact::from_k8s(&policy, texts);
    watches.spawn(policy, Seen::NetworkPolicies);
    watches.spawn_optional(SlimAdmin::<Anp>::tell, |batch| Seen::AdminPolicies(AdminKind::AdminNetworkPolicy, batch));
    watches.spawn_optional(SlimAdmin::<Banp>::tell, |batch| {
        Seen::AdminPolicies(AdminKind::BaselineAdminNetworkPolicy, batch)
    });
    watches.spawn_optional(SlimAdmin::<Cnp>::tell, |batch| Seen::AdminPolicies(AdminKind::ClusterNetworkPolicy, batch));
    watches.spawn_optional(Own::<NetworkKind>::tell, Seen::Networks);
    watches.spawn_optional(Own::<ProviderNetworkKind>::tell, Seen::ProviderNetworks);
    watches.spawn(|cidr: ServiceCIDR, _: &mut Interner| ServiceCidrFact::from_k8s(&cidr), Seen::ServiceCidrs);
    (generation, seen)
}

/// What all watches share.
struct Watches<'a> {
    client: &'a kube::Client,
    current: channel::Receiver<u64>,
    tx: mpsc::Sender<Seen>,
}

impl Watches<'_> {
    fn spawn<O: watch::Object, T: watch::Keyed + Send + 'static>(
        &self,
        tell: impl FnMut(O, &mut Interner) -> T + Send + 'static,
        wrap: fn(watch::Batch<T>) -> Seen,
    ) {
        self.watch(false, tell, wrap);
    }

    /// Of a kind that the API server need not know.
    fn spawn_optional<O: watch::Object, T: watch::Keyed + Send + 'static>(
        &self,
        tell: impl FnMut(O, &mut Interner) -> T + Send + 'static,
        wrap: fn(watch::Batch<T>) -> Seen,
    ) {
        self.watch(true, tell, wrap);
    }

    fn watch<O: watch::Object, T: watch::Keyed + Send + 'static>(
        &self,
        optional: bool,
        mut tell: impl FnMut(O, &mut Interner) -> T + Send + 'static,
        wrap: fn(watch::Batch<T>) -> Seen,
    ) {
        let (api, mut texts) = (Api::all(self.client.clone()), Interner::default());
        let slim = move |object| tell(object, &mut texts);
        tokio::spawn(watch::run(api, optional, self.current.clone(), slim, wrap, self.tx.clone()));
    }
}
