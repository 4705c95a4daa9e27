//! Every right that `deploy/rbac.yaml` grants is taken away in turn: the daemon that needs it says so once, naming account, verb,
//! resource and what for, lives on, and does what it left undone when the right is back.
//!
//! ```text
//! take away --> provoke --> one line in the log --> give back --> mended
//! ```
//! A right that is granted later fails here until it has a scenario. Master and node rights run side by side.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use kube::api::{Api as KubeApi, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_pod_running;
use kube::{Client, ResourceExt};
use ovenbird_e2e::real::{await_object, kubectl};
use ovenbird_e2e::{LIMIT, master};
use ovenbird_kube::version::BUSYBOX;
use ovenbird_lab::{Api, Family, Lab, Options, testing};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

mod classic;
mod custom;

const RBAC: &str = include_str!("../../../../deploy/rbac.yaml");
const NAMESPACE: &str = "rights";
/// A Node without a kubelet: what is done about its pods is the master's alone.
const GHOST: &str = "ghost";
const SUBNETS: &str = "k8s.ovn.org/node-subnets";
const SCHEDULER: &str = "ovenbird.io/scheduler";
const LEASE: &str = "ovenbird.io/lease";
/// A Network with a DHCP server, its namespace, and the pod there.
const LEASED: &str = "leased";
const NETWORKS: &str = "k8s.ovn.org/pod-networks";
const CIDRS: &str = "k8s.ovn.org/host-cidrs";
/// How the addresses of pods begin.
const POD_NETWORK: &str = "10.244";
/// So many exceptions of a block that no one set holds what is left of it.
const MANY: u32 = 2000;
/// How often a condition is looked at that nothing announces.
const PERIOD: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_and_is_all_that_is_missing() -> Result<()> {
    let options = Options { nodes: 1, family: Family::V4, api: Api::Real, ..Options::default() };
    let Some(lab) = testing::lab("e2e-rights", options).await? else { return Ok(()) };
    lab.namespace(NAMESPACE).await?;
    let world = World { client: lab.client().await?, lab: &lab, made: AtomicU32::new(0) };
    world.node(GHOST, json!({})).await?;
    world.annotated::<Node>(&KubeApi::all(world.client.clone()), GHOST, SUBNETS).await?;
    let rights = rights()?;
    ensure!(rights.len() > 20, "{} rights in deploy/rbac.yaml", rights.len());
    let of = |account: &'static str| {
        let (world, rights) = (&world, rights.iter().filter(move |right| right.account == account));
        async move {
            for right in rights.filter(|right| !right.is_of_classic()) {
                world.without(right).await.with_context(|| format!("without {right:?}"))?;
            }
            anyhow::Ok(())
        }
    };
    let outcome = tokio::try_join!(of("ovenbird-master"), of("ovenbird-node"));
    outcome.map(drop).with_context(|| testing::complaints(lab.layout().dir()))
}

/// One verb on one resource, as a role grants it to an account.
#[derive(Clone, Debug)]
struct Right {
    account: String,
    group: String,
    resource: String,
    verb: String,
    names: Vec<String>,
    /// The role, without its rules.
    role: Value,
}

/// What `deploy/rbac.yaml` grants. Each account's role and binding bear its name, as the test of the manifests sees to.
fn rights() -> Result<Vec<Right>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(RBAC).context("reading deploy/rbac.yaml")?;
    let mut rights = Vec::new();
    for mut role in objects.into_iter().filter(|object| !object["rules"].is_null()) {
        let account = role["metadata"]["name"].as_str().context("a role without a name")?.to_owned();
        let rules = role["rules"].take();
        for rule in rules.as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    rights.extend(texts(&rule["verbs"]).into_iter().map(|verb| Right {
                        account: account.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb,
                        names: texts(&rule["resourceNames"]),
                        role: role.clone(),
                    }));
                }
            }
        }
    }
    Ok(rights)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

impl Right {
    fn is(&self, other: &Right) -> bool {
        (&self.group, &self.resource, &self.verb) == (&other.group, &other.resource, &other.verb)
            && self.role == other.role
    }

    fn rule(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }

    /// By it a node tells what others have on a Network.
    fn is_of_addresses_in_use(&self) -> bool {
        (&*self.account, &*self.resource) == ("ovenbird-node", "networks/status")
    }

    fn component(&self) -> &'static str {
        if self.account == "ovenbird-master" { "central/master" } else { "node1/ovenbird-node" }
    }

    fn full_resource(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}/{}", self.group, self.resource) }
    }
}

struct World<'a> {
    client: Client,
    lab: &'a Lab,
    /// Names given out.
    made: AtomicU32,
}

impl World<'_> {
    async fn without(&self, right: &Right) -> Result<()> {
        let before = self.log(right)?.len();
        self.grant(right, false).await?;
        self.provoke(right).await.context("provoking its use")?;
        let said = format!(
            "forbidden: system:serviceaccount:ovenbird:{} may not {} {} ",
            right.account,
            right.verb,
            right.full_resource()
        );
        let lines = || {
            anyhow::Ok(
                self.log(right)?[before..].lines().filter(|line| line.contains(&said)).map(str::to_owned).collect(),
            )
        };
        let mut found: Vec<String> = Vec::new();
        self.until(&said, async || {
            found = lines()?;
            Ok(!found.is_empty())
        })
        .await?;
        ensure!(found[0].contains(" ERROR ") && found[0].contains("which is needed for: "), "{found:?}");
        self.grant(right, true).await?;
        self.mended(right).await.context("with the right given back")?;
        let found: Vec<String> = lines()?;
        ensure!(found.len() == 1, "said more than once: {found:?}");
        ensure!(self.lab.component(right.component())?.alive(), "{} has ended", right.component());
        eprintln!("{}", found[0]);
        Ok(())
    }

    /// Makes the daemon need the right.
    async fn provoke(&self, right: &Right) -> Result<()> {
        if right.is_of_classic() {
            return self.provoke_in_classic(right);
        }
        if let Some(kind) = custom::Kind::of(right) {
            if right.is_of_addresses_in_use() {
                return self.pod_with_anothers_address(&kind).await;
            }
            if right.verb == "get" || right.verb == "patch" {
                return self.custom_object(&kind).await.map(drop);
            }
            self.lab.stop(right.component())?;
            return self.lab.start(right.component());
        }
        match (&*right.account, &*right.resource, &*right.verb) {
            (
                "ovenbird-master",
                "nodes" | "pods" | "namespaces" | "services" | "endpointslices" | "networkpolicies" | "servicecidrs"
                | "leases",
                "list" | "watch",
            )
            | ("ovenbird-master", "leases", "get")
            | ("ovenbird-node", "nodes" | "pods" | "services" | "servicecidrs", "list" | "watch") => {
                self.lab.stop(right.component())?;
                self.lab.start(right.component())
            }
            // It is watched for Services that want it.
            ("ovenbird-node", "endpointslices", "list" | "watch") => {
                self.health_checked().await?;
                self.lab.stop(right.component())?;
                self.lab.start(right.component())
            }
            ("ovenbird-master", "nodes", "patch") => self.node(&format!("{GHOST}2"), json!({})).await,
            ("ovenbird-master", "pods", "patch") => self.pod("unnamed", GHOST, json!({})).await,
            ("ovenbird-master", "nodes", "get") => self.node(&self.name(), json!({SUBNETS: "nonsense"})).await,
            ("ovenbird-master", "services", "get") => self.service(&self.name(), json!({SCHEDULER: "nonsense"})).await,
            ("ovenbird-master", "servicecidrs", "get") => self.cidr(POD_NETWORK).await.map(drop),
            ("ovenbird-master", "networkpolicies", "get") => self.policy(&self.name(), MANY).await,
            ("ovenbird-master", "namespaces", "get") => self.logging("nonsense").await.map(drop),
            ("ovenbird-master", "pods", "get") | ("ovenbird-master", "events", "create") => {
                self.pod(&self.name(), GHOST, json!({NETWORKS: "nonsense"})).await
            }
            ("ovenbird-master", "leases", "create") => {
                self.leases().delete("ovenbird-master", &DeleteParams::default()).await?;
                Ok(())
            }
            // It is renewed every few seconds.
            ("ovenbird-master", "leases", "update") => Ok(()),
            ("ovenbird-node", "nodes", "patch") => self.forget_cidrs().await,
            ("ovenbird-node", "pods", "get") => self.attach_unknown().map(drop),
            ("ovenbird-node", "pods/status", "patch") => self.pod_with_an_ended_lease().await,
            ("ovenbird-node", "events", "create") => self.limited_pod(&self.name()).await,
            ("ovenbird-node", "events", "patch") => {
                self.limited_pod("twice").await?;
                self.attach_again("twice").await
            }
            _ => {
                bail!("a new right: say here how to make the daemon need it, and below how to see that it has it again")
            }
        }
    }

    /// Waits until the daemon has done what it could not do before.
    async fn mended(&self, right: &Right) -> Result<()> {
        if right.is_of_classic() {
            return self.mended_in_classic(right).await;
        }
        if let Some(kind) = custom::Kind::of(right) {
            return self.custom_mended(right, &kind).await;
        }
        let (nodes, pods) = (KubeApi::<Node>::all(self.client.clone()), self.pods());
        match (&*right.account, &*right.resource, &*right.verb) {
            (
                "ovenbird-master",
                "nodes" | "pods" | "namespaces" | "services" | "endpointslices" | "networkpolicies" | "servicecidrs",
                "list" | "watch",
            ) => self.master_sees(right).await,
            ("ovenbird-master", "leases", _) => {
                let leads = async || Ok(master::status(self.lab, "master1").is_ok_and(|s| s["leader"] == true));
                self.until("the master to lead", leads).await
            }
            ("ovenbird-master", "nodes", "patch") => self.annotated(&nodes, &format!("{GHOST}2"), SUBNETS).await,
            ("ovenbird-master", "pods", "patch") => self.annotated(&pods, "unnamed", NETWORKS).await,
            // An Event that was refused is not tried again.
            ("ovenbird-master", "nodes", "get") => {
                let name = self.name();
                self.node(&name, json!({SUBNETS: "nonsense"})).await?;
                self.told(&name).await
            }
            ("ovenbird-master", "servicecidrs", "get") => self.told(&self.cidr(POD_NETWORK).await?.0).await,
            ("ovenbird-master", "networkpolicies", "get") => {
                let name = self.name();
                self.policy(&name, MANY).await?;
                self.told(&name).await
            }
            ("ovenbird-master", "namespaces", "get") => self.told(&self.logging("louder").await?).await,
            ("ovenbird-master", "services", "get") => {
                let name = self.name();
                self.service(&name, json!({SCHEDULER: "nonsense"})).await?;
                self.told(&name).await
            }
            ("ovenbird-master", "pods", "get") | ("ovenbird-master", "events", "create") => {
                let name = self.name();
                self.pod(&name, GHOST, json!({NETWORKS: "nonsense"})).await?;
                self.told(&name).await
            }
            ("ovenbird-node", "nodes", "list" | "watch") => {
                self.forget_cidrs().await?;
                self.annotated(&nodes, "node1", CIDRS).await
            }
            ("ovenbird-node", "nodes", "patch") => self.annotated(&nodes, "node1", CIDRS).await,
            ("ovenbird-node", "pods", "list" | "watch") => {
                let name = self.name();
                self.pod(&name, "node1", json!({})).await?;
                await_object(self.lab, NAMESPACE, &name, is_pod_running()).await
            }
            ("ovenbird-node", "endpointslices", "list" | "watch") => self.health_is_answered().await,
            ("ovenbird-node", "services", "list" | "watch") => self.node_port_is_served().await,
            ("ovenbird-node", "servicecidrs", "list" | "watch") => {
                let (_, net) = self.cidr("10.200").await?;
                let routes = async || Ok(self.lab.exec_node("node1", &["ip", "route", "show"])?.contains(&net));
                self.until("a route to the network", routes).await
            }
            ("ovenbird-node", "pods", "get") => {
                let said = self.attach_unknown()?;
                ensure!(said.contains("does not exist"), "{said}");
                Ok(())
            }
            ("ovenbird-node", "pods/status", "patch") => self.lease_is_removed().await,
            ("ovenbird-node", "events", "create") => {
                let name = self.name();
                self.limited_pod(&name).await?;
                self.told(&name).await
            }
            ("ovenbird-node", "events", "patch") => {
                self.attach_again("twice").await?;
                let series = async || Ok(self.events("twice").await?.iter().any(|event| event.series.is_some()));
                self.until("an Event that counts", series).await
            }
            _ => bail!("a new right"),
        }
    }

    /// Applies the role with or without the right, and waits until the API server goes by it.
    async fn grant(&self, right: &Right, granted: bool) -> Result<()> {
        let of_role = rights()?.into_iter().filter(|other| other.role == right.role && (granted || !other.is(right)));
        let mut role = right.role.clone();
        role["rules"] = of_role.map(|other| other.rule()).collect();
        self.lab.apply(&role.to_string()).await?;
        let reviews = KubeApi::<SubjectAccessReview>::all(self.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:ovenbird:{}", right.account)),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(right.group.clone()),
                    resource: right.resource.split('/').next().map(str::to_owned),
                    subresource: right.resource.split_once('/').map(|(_, sub)| sub.to_owned()),
                    verb: Some(right.verb.clone()),
                    namespace: right.role["metadata"]["namespace"].as_str().map(str::to_owned),
                    name: right.names.first().cloned(),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        self.until("the API server to know the role", async || {
            let answer = reviews.create(&PostParams::default(), &review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed == granted))
        })
        .await
    }

    /// A new object of the kind reaches the master, and with it all there are.
    async fn master_sees(&self, right: &Right) -> Result<()> {
        let (name, all) = (self.name(), ListParams::default());
        let admin = custom::Kind::of(right);
        let kind = match (&admin, &*right.resource) {
            (Some(kind), _) => {
                self.custom_object(kind).await?;
                kind.name()
            }
            (None, "nodes") => self.node(&name, json!({})).await.map(|()| "Node")?,
            (None, "pods") => self.pod(&name, GHOST, json!({})).await.map(|()| "Pod")?,
            (None, "services") => self.service(&name, json!({})).await.map(|()| "Service")?,
            (None, "endpointslices") => self.slice(&name).await.map(|()| "EndpointSlice")?,
            (None, "servicecidrs") => self.cidr("10.200").await.map(|_| "ServiceCIDR")?,
            (None, "networkpolicies") => self.policy(&name, 0).await.map(|()| "NetworkPolicy")?,
            (None, _) => self.lab.namespace(&name).await.map(|()| "Namespace")?,
        };
        self.until("the master to have seen all", async || {
            let client = self.client.clone();
            let count = match (&admin, kind) {
                (Some(kind), _) => self.count_custom(kind).await?,
                (None, "Node") => KubeApi::<Node>::all(client).list_metadata(&all).await?.items.len(),
                (None, "Pod") => KubeApi::<Pod>::all(client).list_metadata(&all).await?.items.len(),
                (None, "Service") => KubeApi::<Service>::all(client).list_metadata(&all).await?.items.len(),
                (None, "EndpointSlice") => KubeApi::<EndpointSlice>::all(client).list_metadata(&all).await?.items.len(),
                (None, "NetworkPolicy") => KubeApi::<NetworkPolicy>::all(client).list_metadata(&all).await?.items.len(),
                (None, "ServiceCIDR") => KubeApi::<ServiceCIDR>::all(client).list_metadata(&all).await?.items.len(),
                (None, _) => KubeApi::<Namespace>::all(client).list_metadata(&all).await?.items.len(),
            };
            let Ok(status) = master::status(self.lab, "master1") else { return Ok(false) };
            let watches = status["watches"].as_array().into_iter().flatten();
            let wanted = json!({"kind": kind, "complete": true, "objects": count, "error": null});
            Ok(watches.into_iter().any(|watch| *watch == wanted))
        })
        .await
    }

    /// A Service with a health check port and an endpoint on node 1.
    async fn health_checked(&self) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "healthy", "namespace": NAMESPACE},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 80}],
            "metadata": {"name": "healthy", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "healthy"}},
            "endpoints": [{"addresses": ["192.0.2.1"], "nodeName": "node1"}],
        });
        self.lab.apply(&service.to_string()).await?;
        self.lab.apply(&slice.to_string()).await.map(drop)
    }

    async fn health_is_answered(&self) -> Result<()> {
        let services = KubeApi::<Service>::namespaced(self.client.clone(), NAMESPACE);
        let port = services.get("healthy").await?.spec.and_then(|spec| spec.health_check_node_port);
        let port = port.context("no health check port was given")?;
        let script = format!(r#"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"#);
        self.until("the health check to find the endpoint", async || {
            let answer = self.lab.exec_node("node1", &["bash", "-c", &script]);
            Ok(answer.is_ok_and(|text| text.contains(r#""localEndpoints":1"#)))
        })
        .await
    }

    /// A new NodePort comes to the node's external bridge.
    async fn node_port_is_served(&self) -> Result<()> {
        let name = self.name();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        });
        self.lab.apply(&service.to_string()).await?;
        let services = KubeApi::<Service>::namespaced(self.client.clone(), NAMESPACE);
        let spec = services.get(&name).await?.spec.unwrap_or_default();
        let port = spec.ports.unwrap_or_default()[0].node_port.context("no NodePort was given")?;
        self.until("flows for the NodePort", async || {
            let flows = self.lab.exec_node("node1", &["ovs-ofctl", "-OOpenFlow14", "dump-flows", "br-ex"])?;
            Ok(flows.contains(&format!("tp_dst={port} ")))
        })
        .await
    }

    /// What the runtime is told about a pod that nobody has made.
    fn attach_unknown(&self) -> Result<String> {
        let layout = self.lab.layout();
        let shim = layout.bin_dir.join("ovenbird-cni").display().to_string();
        let socket = layout.home("node1").join("cni/ovenbird.sock").display().to_string();
        let conf = json!({"cniVersion": "1.1.0", "name": "ovenbird", "type": "ovenbird-cni", "socket": socket});
        let args = format!("K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME=nobody;K8S_POD_INFRA_CONTAINER_ID=c1");
        let script = format!(
            "echo '{conf}' | CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0 CNI_PATH=/ \
             CNI_ARGS='{args}' {shim} || true"
        );
        self.lab.exec_node("node1", &["sh", "-c", &script])
    }

    /// Takes away the sandbox of a pod whose Event was told, so that the kubelet makes another.
    async fn attach_again(&self, pod: &str) -> Result<()> {
        self.told(pod).await?;
        let ready = ["crictl", "pods", "--quiet", "--state=ready", "--namespace", NAMESPACE, "--name", pod];
        let mut sandbox = String::new();
        self.until("a sandbox", async || {
            self.lab.exec_node("node1", &ready)?.trim().clone_into(&mut sandbox);
            Ok(!sandbox.is_empty())
        })
        .await?;
        self.lab.exec_node("node1", &["crictl", "stopp", &sandbox]).map(drop)
    }

    /// A pod whose limit cannot be held on a node that forwards in user space: the node daemon tells it so by an Event.
    async fn limited_pod(&self, name: &str) -> Result<()> {
        self.pod(name, "node1", json!({"kubernetes.io/egress-bandwidth": "10M"})).await
    }

    /// A pod whose address a DHCP server has given long ago: its node asks for another, and takes back what it has written.
    async fn pod_with_an_ended_lease(&self) -> Result<()> {
        self.lab.namespace(LEASED).await?;
        let spec = json!({
            "providerNetwork": "none", "vlan": 4000, "addresses": "DHCP", "subnets": ["10.79.0.0/24"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": LEASED}},
        });
        let meta = json!({"name": LEASED});
        let network = json!({"apiVersion": "ovenbird.io/v1alpha1", "kind": "Network", "metadata": meta, "spec": spec});
        self.lab.apply(&network.to_string()).await?;
        let lease = json!({"address": "10.79.0.9/24", "server": "10.79.0.1", "expires": "2020-01-01T00:00:00Z"});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": LEASED, "namespace": LEASED, "annotations": {LEASE: lease.to_string()}},
            "spec": {"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "idle", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}]},
        });
        self.lab.apply(&pod.to_string()).await.map(drop)
    }

    async fn lease_is_removed(&self) -> Result<()> {
        let pods = KubeApi::<Pod>::namespaced(self.client.clone(), LEASED);
        let is_gone = async || Ok(!pods.get(LEASED).await?.annotations().contains_key(LEASE));
        self.until("the lease to be removed", is_gone).await?;
        pods.delete(LEASED, &DeleteParams::default()).await.map(drop).context("deleting the pod")
    }

    async fn forget_cidrs(&self) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {CIDRS: null}}});
        let nodes = KubeApi::<Node>::all(self.client.clone());
        nodes.patch_metadata("node1", &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn node(&self, name: &str, annotations: Value) -> Result<()> {
        let metadata = json!({"name": name, "annotations": annotations});
        self.lab.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}).to_string()).await.map(drop)
    }

    async fn pod(&self, name: &str, node: &str, annotations: Value) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "idle", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}]},
        });
        self.lab.apply(&pod.to_string()).await.map(drop)
    }

    async fn service(&self, name: &str, annotations: Value) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": {"ports": [{"port": 80}]},
        });
        self.lab.apply(&service.to_string()).await.map(drop)
    }

    async fn slice(&self, name: &str) -> Result<()> {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": NAMESPACE}, "addressType": "IPv4", "endpoints": [],
        });
        self.lab.apply(&slice.to_string()).await.map(drop)
    }

    /// Makes a ServiceCIDR with one of the networks that begin so. Returns its name and the network.
    /// A policy that lets a block in, less a number of addresses.
    async fn policy(&self, name: &str, exceptions: u32) -> Result<()> {
        let except: Vec<String> = (0..exceptions).map(|i| format!("fd00:{i:x}::1/128")).collect();
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0", "except": except}}]}, {}]},
        });
        self.lab.apply(&policy.to_string()).await.map(drop)
    }

    /// Asks for logging in a way that cannot be read; returns the namespace's name.
    async fn logging(&self, how: &str) -> Result<String> {
        self.policy("logged", 0).await?;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "annotations": {"k8s.ovn.org/acl-logging": how}},
        });
        self.lab.apply(&namespace.to_string()).await?;
        Ok(NAMESPACE.to_owned())
    }

    async fn cidr(&self, first: &str) -> Result<(String, String)> {
        let name = self.name();
        let net = format!("{first}.{}.0/24", name.trim_start_matches("made-"));
        let cidr = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name}, "spec": {"cidrs": [net]},
        });
        self.lab.apply(&cidr.to_string()).await?;
        Ok((name, net))
    }

    async fn annotated<K>(&self, api: &KubeApi<K>, name: &str, key: &str) -> Result<()>
    where
        K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        self.until(&format!("annotation {key} on {name}"), async || {
            Ok(api.get_metadata(name).await?.annotations().contains_key(key))
        })
        .await
    }

    /// Waits for an Event about an object.
    async fn told(&self, name: &str) -> Result<()> {
        let any = async || Ok(!self.events(name).await?.is_empty());
        self.until(&format!("an Event about {name}"), any).await
    }

    /// Ovenbird's Events about an object.
    async fn events(&self, name: &str) -> Result<Vec<Event>> {
        let all = KubeApi::<Event>::all(self.client.clone());
        let of_object = all.list(&ListParams::default().fields(&format!("regarding.name={name}"))).await?;
        let ours = |event: &Event| event.reporting_controller.as_deref().is_some_and(|who| who.contains("ovenbird"));
        Ok(of_object.items.into_iter().filter(ours).collect())
    }

    fn pods(&self) -> KubeApi<Pod> {
        KubeApi::namespaced(self.client.clone(), NAMESPACE)
    }

    fn leases(&self) -> KubeApi<Lease> {
        KubeApi::namespaced(self.client.clone(), "ovenbird")
    }

    /// A name that no object has.
    fn name(&self) -> String {
        format!("made-{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// A number from 1 that no object has.
    fn number(&self) -> Result<u8> {
        (self.made.fetch_add(1, Ordering::Relaxed) + 1).try_into().context("too many objects")
    }

    fn log(&self, right: &Right) -> Result<String> {
        let path = self.lab.layout().processes().log_path(right.component());
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    async fn until(&self, what: &str, mut met: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !met().await? {
            if Instant::now() > deadline {
                let pods = kubectl(self.lab, &["get", "pods", "-A", "-o", "wide"]).unwrap_or_default();
                bail!("waited {LIMIT:?} in vain for {what}\n{pods}");
            }
            sleep(PERIOD).await;
        }
        Ok(())
    }
}
