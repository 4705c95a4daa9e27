//! The control plane in the central namespace: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, with RBAC and
//! admission on.
//!
//! In: a layout. Out: an API server that is ready, `LAB_DIR/kubeconfig` of its administrator. It must not make objects.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{
    AuthInfo, Cluster, Context as ConfigContext, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};

use super::pki::{Pki, Usage};
use super::{api_address, pki_dir, spec};
use crate::components;
use crate::layout::Layout;
use crate::options::Family;
use crate::process::{wait_for, write_atomic};

const START_LIMIT: Duration = Duration::from_secs(90);
const ETCD: &str = "http://127.0.0.1:2379";

/// Starts the control plane and waits until the API server is ready.
///
/// # Errors
/// Names the process that does not come up.
pub fn start(layout: &Layout) -> Result<()> {
    let processes = layout.processes();
    processes.start(spec(layout, "central", "etcd", etcd(layout))?)?;
    let pki = Pki::new(pki_dir(layout))?;
    certificates(layout, &pki)?;
    processes.start(spec(layout, "central", "kube-apiserver", apiserver(layout, &pki)?)?)?;
    let local = format!("https://127.0.0.1:{}", layout.api_port);
    write_atomic(&layout.kubeconfig(), &serde_json::to_vec_pretty(&certified(&pki, &local, "admin"))?)?;
    processes.start(components::gate(layout, &api_address(layout)?))?;
    let kubectl = spec(layout, "central", "kubectl", vec![])?.argv.concat();
    let kubeconfig = format!("--kubeconfig={}", layout.kubeconfig().display());
    let ready = || layout.place("central").output(&[&kubectl, &kubeconfig, "get", "--raw", "/readyz"]).is_ok();
    wait_for("the API server to be ready", START_LIMIT, ready)
        .with_context(|| processes.log_tail("central/kube-apiserver"))?;
    processes.start(spec(layout, "central", "kube-controller-manager", controller_manager(layout, &pki))?)?;
    processes.start(spec(layout, "central", "kube-scheduler", controller_flags(&pki, "kube-scheduler"))?)?;
    Ok(())
}

/// A kubeconfig in the name of a client certificate.
pub fn certified(pki: &Pki, server: &str, name: &str) -> Kubeconfig {
    let user = AuthInfo {
        client_certificate: Some(pki.path(&format!("{name}.crt"))),
        client_key: Some(pki.path(&format!("{name}.key"))),
        ..AuthInfo::default()
    };
    kubeconfig(pki, server, user)
}

/// A kubeconfig for this cluster and any way to say who we are.
pub fn kubeconfig(pki: &Pki, server: &str, user: AuthInfo) -> Kubeconfig {
    let name = || "lab".to_owned();
    let cluster = Cluster {
        server: Some(server.to_owned()),
        certificate_authority: Some(pki.path("ca.crt")),
        ..Cluster::default()
    };
    let context = ConfigContext { cluster: name(), user: Some(name()), ..ConfigContext::default() };
    Kubeconfig {
        clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name: name(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(name()),
        api_version: Some("v1".into()),
        kind: Some("Config".into()),
        ..Kubeconfig::default()
    }
}

fn certificates(layout: &Layout, pki: &Pki) -> Result<()> {
    pki.authority("ca")?;
    pki.authority("front-proxy-ca")?;
    pki.signing_pair("accounts")?;
    pki.certificate("apiserver", "ca", "/CN=kube-apiserver", Usage::Server, &server_names(layout))?;
    let client =
        |name: &str, authority: &str, subject: &str| pki.certificate(name, authority, subject, Usage::Client, &[]);
    client("front-proxy", "front-proxy-ca", "/CN=front-proxy")?;
    client("apiserver-kubelet", "ca", "/O=system:masters/CN=kube-apiserver-kubelet")?;
    client("admin", "ca", "/O=system:masters/CN=admin")?;
    let server = format!("https://{}", api_address(layout)?);
    let mut users: Vec<(String, String)> = ["kube-controller-manager", "kube-scheduler", "kube-proxy"]
        .map(|name| (name.to_owned(), format!("/CN=system:{name}")))
        .into();
    for node in layout.options.node_names() {
        certify_node(layout, &node)?;
        users.push((node.clone(), format!("/O=system:nodes/CN=system:node:{node}")));
    }
    users.iter().try_for_each(|(name, subject)| {
        client(name, "ca", subject)?;
        let config = certified(pki, &server, name);
        write_atomic(pki.path(&format!("{name}.conf")).as_ref(), &serde_json::to_vec_pretty(&config)?)
    })
}

/// The certificate with which a kubelet serves at its node's addresses.
///
/// # Errors
/// When it cannot be made.
pub fn certify_node(layout: &Layout, node: &str) -> Result<()> {
    let index = layout.options.index_of(node)?;
    let names: Vec<_> = layout.options.node_addresses(index).iter().map(|ip| format!("IP:{ip}")).collect();
    Pki::new(pki_dir(layout))?.certificate(
        &format!("{node}-serving"),
        "ca",
        &format!("/CN={node}"),
        Usage::Server,
        &names,
    )
}

/// Everything the API server is called: on the fabric, through the gate, and by pods.
fn server_names(layout: &Layout) -> Vec<String> {
    let pods = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    let services = ["127.0.0.1", "10.96.0.1", "fd00:10:96::1"].iter().map(|ip| format!("IP:{ip}"));
    let fabric = layout.options.central_addresses().into_iter().map(|ip| format!("IP:{ip}"));
    pods.iter().map(|name| format!("DNS:{name}")).chain(services).chain(fabric).collect()
}

fn etcd(layout: &Layout) -> Vec<String> {
    let peer = "http://127.0.0.1:2380";
    vec![
        "--name=lab".into(),
        format!("--data-dir={}", layout.home("central").join("etcd").display()),
        // What a crash of this machine would lose, `down` throws away anyhow.
        "--unsafe-no-fsync".into(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
    ]
}

fn apiserver(layout: &Layout, pki: &Pki) -> Result<Vec<String>> {
    let address = *layout.options.central_addresses().first().context("the central namespace has no address")?;
    let any = if layout.options.family == Family::V6 { "::" } else { "0.0.0.0" };
    Ok(vec![
        format!("--etcd-servers={ETCD}"),
        format!("--bind-address={any}"),
        format!("--advertise-address={address}"),
        format!("--secure-port={}", super::API_PORT),
        format!("--tls-cert-file={}", pki.path("apiserver.crt")),
        format!("--tls-private-key-file={}", pki.path("apiserver.key")),
        format!("--client-ca-file={}", pki.path("ca.crt")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--service-cluster-ip-range={}", layout.options.service_cidrs()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", pki.path("accounts.pub")),
        format!("--service-account-signing-key-file={}", pki.path("accounts.key")),
        format!("--kubelet-client-certificate={}", pki.path("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki.path("apiserver-kubelet.key")),
        format!("--kubelet-certificate-authority={}", pki.path("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={}", pki.path("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--proxy-client-cert-file={}", pki.path("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki.path("front-proxy.key")),
        // There is no service proxy in the central namespace.
        "--enable-aggregator-routing=true".into(),
    ])
}

/// Pod networks are Ovenbird's to give out, so the controller allocates none.
fn controller_manager(layout: &Layout, pki: &Pki) -> Vec<String> {
    let mut flags = controller_flags(pki, "kube-controller-manager");
    flags.extend([
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={}", pki.path("accounts.key")),
        format!("--root-ca-file={}", pki.path("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki.path("ca.crt")),
        format!("--cluster-signing-key-file={}", pki.path("ca.key")),
        "--allocate-node-cidrs=false".into(),
        format!("--service-cluster-ip-range={}", layout.options.service_cidrs()),
    ]);
    flags
}

/// What controllers have in common. The default limits of requests would cost seconds at the start.
fn controller_flags(pki: &Pki, name: &str) -> Vec<String> {
    let config = pki.path(&format!("{name}.conf"));
    vec![
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ]
}
