//! What runs on a real node: containerd with the lab's images, and the kubelet.
//!
//! In: a layout, a node whose network is up. Out: running processes. It must not configure CNI: that is the node daemon's to do.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use ovenbird_kube::Cache;
use ovenbird_kube::version::{IMAGES, PAUSE};
use serde_json::json;

use super::dns::dns_address;
use super::{add_programs, cgroups, init, join, pki_dir, spec};
use crate::layout::Layout;
use crate::process::{Spec, wait_for, write_atomic};

const START_LIMIT: Duration = Duration::from_secs(60);
/// On the node, where its kubelet looks for pods of its own.
const STATIC_PODS: &str = "/etc/kubernetes/manifests";
/// More than the kubelet's own 110: room for what a node's subnet has addresses for.
const MAX_PODS: u16 = 250;
const SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Makes the node's namespaces, starts containerd in them and imports the images.
///
/// # Errors
/// Names the process that does not come up.
pub fn start_runtime(layout: &Layout, node: &str) -> Result<()> {
    pass_on(layout, node)?;
    cgroups::create(layout.prefix(), node)?;
    let (processes, home) = (layout.processes(), layout.home(node));
    fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
    processes.start(first_process(layout, node))?;
    let ready = home.join(init::READY);
    wait_for(&format!("the namespaces of {node}"), START_LIMIT, || ready.exists())
        .with_context(|| processes.log_tail(&format!("{node}/init")))?;
    let config = home.join("containerd.toml");
    write_atomic(&config, containerd_config(layout).as_bytes())?;
    processes.start(spec(layout, node, "containerd", vec![format!("--config={}", config.display())])?)?;
    let cache = Cache::ready()?;
    let ctr = cache.bin().join("ctr").display().to_string();
    let place = layout.inside(node);
    wait_for(&format!("containerd of {node}"), START_LIMIT, || place.output(&[&ctr, "version"]).is_ok())
        .with_context(|| processes.log_tail(&format!("{node}/containerd")))?;
    import(layout, node, IMAGES)
}

/// Gives archives of images to the node's containerd.
///
/// # Errors
/// When one cannot be imported.
pub fn import(layout: &Layout, node: &str, images: &[&str]) -> Result<()> {
    let cache = Cache::ready()?;
    let ctr = cache.bin().join("ctr").display().to_string();
    for image in images {
        let file = cache.images().join(image).display().to_string();
        layout.inside(node).output(&[&ctr, "--namespace=k8s.io", "images", "import", "--local", &file])?;
    }
    Ok(())
}

/// Passes packets of the API server on to the node's pods with the node's own address: `central` is no node, and a pod's answers to what is
/// outside leave by the gateway router.
fn pass_on(layout: &Layout, node: &str) -> Result<()> {
    let chain = "type nat hook postrouting priority srcnat; iifname br-ex oifname ovn-k8s-mp0 masquerade;";
    let table = format!("table inet lab {{ chain to-pods {{ {chain} }}; }}");
    layout.place(node).output(&["nft", &table]).with_context(|| format!("masquerading on {node}")).map(drop)
}

/// Starts the kubelet. Its API server must be ready and its node's addresses be there.
///
/// # Errors
/// When it cannot be started.
pub fn start_kubelet(layout: &Layout, node: &str, index: u16) -> Result<()> {
    layout
        .inside(node)
        .run(|| fs::create_dir_all(STATIC_PODS).context("creating the folder of static pods"))
        .with_context(|| format!("on {node}"))?;
    let config = layout.home(node).join("kubelet.json");
    write_atomic(&config, &serde_json::to_vec_pretty(&kubelet_config(layout, node)?)?)?;
    let args = vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", pki_dir(layout).join(format!("{node}.conf")).display()),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", join(&layout.options.node_addresses(index))),
        "--root-dir=/var/lib/kubelet".into(),
        "--cert-dir=/var/lib/kubelet/pki".into(),
    ];
    layout.processes().start(spec(layout, node, "kubelet", args)?).map(drop)
}

/// Starts kube-proxy, where Services are its.
///
/// # Errors
/// When it cannot be started.
pub fn start_kube_proxy(layout: &Layout, node: &str) -> Result<()> {
    if !layout.options.kube_proxy {
        return Ok(());
    }
    let networks: Vec<_> = layout
        .options
        .cluster_subnets()
        .split(',')
        .map(|net| {
            // CIDR/PREFIX-PER-NODE
            net.rsplit_once('/').map_or_else(|| net.to_owned(), |(cidr, _)| cidr.to_owned())
        })
        .collect();
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
        "clientConnection": {"kubeconfig": pki_dir(layout).join("kube-proxy.conf")},
        "clusterCIDR": networks.join(","), "detectLocalMode": "ClusterCIDR", "hostnameOverride": node,
        // The machine's own are not the lab's to set.
        "conntrack": {"maxPerCore": 0},
    });
    let file = layout.home(node).join("kube-proxy.json");
    write_atomic(&file, &serde_json::to_vec_pretty(&config)?)?;
    let args = vec![format!("--config={}", file.display())];
    layout.processes().start(spec(layout, node, "kube-proxy", args)?).map(drop)
}

/// `unshare` waits for the node's first process, and takes it along when it is killed.
fn first_process(layout: &Layout, node: &str) -> Spec {
    let program = layout.bin_dir.join("ovenbird-lab").display().to_string();
    let dir = layout.dir().display().to_string();
    let flags = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--"].map(str::to_owned);
    let init = [program, "--dir".into(), dir, "node-init".into(), "--node".into(), node.into()];
    Spec {
        name: format!("{node}/init"),
        argv: flags.into_iter().chain(init).collect(),
        env: layout.env(node),
        place: layout.place(node),
    }
}

fn containerd_config(layout: &Layout) -> String {
    let bin = layout.bin_dir.display();
    format!(
        "version = 3\n\
         disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.erofs', 'io.containerd.snapshotter.v1.blockfile']\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = '{PAUSE}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n\
         disable_apparmor = true\n\
         # Root may lack the right to lower it.\n\
         restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
         SystemdCgroup = false\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
         bin_dirs = ['{bin}', '/usr/lib/cni']\n\
         conf_dir = '/etc/cni/net.d'\n"
    )
}

fn kubelet_config(layout: &Layout, node: &str) -> Result<serde_json::Value> {
    let pki = pki_dir(layout);
    let dns = dns_address(layout)?;
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": pki.join("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("{node}-serving.crt")),
        "tlsPrivateKeyFile": pki.join(format!("{node}-serving.key")),
        "containerRuntimeEndpoint": SOCKET,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "cgroupRoot": cgroups::of_node(layout.prefix(), node),
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": false,
        // Benchmarks put 200 on a node.
        "maxPods": 250,
        "oomScoreAdj": 0,
        "staticPodPath": STATIC_PODS,
        "maxPods": MAX_PODS,
        "clusterDNS": [dns],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        // An image that is collected can never be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        // Readiness is seen soon after the CNI file appears.
        "nodeStatusUpdateFrequency": "1s",
        // As by default: a Node is written when something has changed, not every second.
        "nodeStatusReportFrequency": "5m",
    }))
}

/// Environment for commands on a real node: the cache's programs are found.
///
/// # Errors
/// When the cache is not whole.
pub fn environment(layout: &Layout, host: &str) -> Result<std::collections::BTreeMap<String, String>> {
    let mut env = layout.env(host);
    add_programs(&mut env, &Cache::ready()?.bin());
    Ok(env)
}
