//! Ovenbird's service accounts: the manifests of `deploy/`, applied as a user would, and a kubeconfig for each with its token.
//!
//! The daemons of the real lab run with exactly these. In: an API server that is ready. Out: two kubeconfigs. It must not grant
//! anything that the manifests do not.

use std::path::PathBuf;

use anyhow::{Context, Result};
use kube::config::AuthInfo;
use serde_json::{Value, json};

use super::pki::Pki;
use super::{api_address, control, pki_dir};
use crate::cluster;
use crate::layout::Layout;
use crate::process::write_atomic;

const NAMESPACE: &str = include_str!("../../../../deploy/namespace.yaml");
const CRDS: &str = include_str!("../../../../deploy/crds.yaml");
const RBAC: &str = include_str!("../../../../deploy/rbac.yaml");
const DAY: u32 = 24 * 60 * 60;

/// One of Ovenbird's service accounts, all in the namespace `ovenbird`.
#[derive(Clone, Copy, Debug)]
pub enum Account {
    /// `ovenbird-master`
    Master,
    /// `ovenbird-node`
    Node,
}

impl Account {
    fn name(self) -> &'static str {
        match self {
            Self::Master => "ovenbird-master",
            Self::Node => "ovenbird-node",
        }
    }

    /// The kubeconfig with the account's token.
    pub fn kubeconfig(self, layout: &Layout) -> PathBuf {
        pki_dir(layout).join(format!("{}.conf", self.name()))
    }
}

/// Applies the manifests and asks for the tokens.
///
/// # Errors
/// Names the object or the token that was refused.
pub async fn create(layout: &Layout) -> Result<()> {
    let client = cluster::connect(&layout.kubeconfig()).await?;
    cluster::apply(&client, NAMESPACE).await?;
    cluster::apply(&client, RBAC).await?;
    cluster::apply(&client, CRDS).await?;
    let pki = Pki::new(pki_dir(layout))?;
    let server = format!("https://{}", api_address(layout)?);
    for account in [Account::Master, Account::Node] {
        let name = account.name();
        let path = format!("/api/v1/namespaces/ovenbird/serviceaccounts/{name}/token");
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": DAY}});
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(body.to_string().into_bytes()).context("asking for a token")?;
        let answer: Value = client.request(request).await.with_context(|| format!("asking for the token of {name}"))?;
        let token = answer["status"]["token"].as_str().with_context(|| format!("no token for {name}"))?;
        let user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        let config = serialised(&control::kubeconfig(&pki, &server, user), token)?;
        write_atomic(&account.kubeconfig(layout), &config)?;
    }
    Ok(())
}

/// A kubeconfig with its token in clear, which the type hides when it is written.
fn serialised(config: &kube::config::Kubeconfig, token: &str) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(config)?;
    value["users"][0]["user"]["token"] = json!(token);
    Ok(serde_json::to_vec_pretty(&value)?)
}
