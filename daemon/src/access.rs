//! Access to the API server: from a kubeconfig, or from where the process runs.
//!
//! Must not: speak to it yet; that it is away is no reason not to start.

use std::path::Path;

// kube leaves the version of the Kubernetes API to its users.
use k8s_openapi as _;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// There is no usable access to the API server.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the API server; give --kubeconfig, set KUBECONFIG, or run as a pod with a service account")]
pub struct AccessError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A client as `kubeconfig` says; without it as $KUBECONFIG, ~/.kube/config or the pod's service account say.
///
/// # Errors
/// When these are missing or wrong.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, AccessError> {
    fn fail(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AccessError {
        AccessError(error.into())
    }
    let mut access = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(fail)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(fail)?
        }
        None => kube::Config::infer().await.map_err(fail)?,
    };
    if access.cluster_url.scheme_str() == Some("http") {
        // Nobody to trust; otherwise all root certificates of the system are parsed at every start.
        access.root_cert.get_or_insert_default();
    }
    kube::Client::try_from(access).map_err(fail)
}
