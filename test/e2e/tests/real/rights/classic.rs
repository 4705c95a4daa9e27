//! The rights that a node needs in network mode classic alone, where it enforces policies itself, and the one to say that Open vSwitch lacks what the
//! network needs, which is easily shown there.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api as KubeApi;
use kube::runtime::conditions::is_pod_running;
use ovenbird_e2e::real::await_object;
use ovenbird_lab::{Api, Family, Mode, Options, testing};
use serde_json::json;

use super::{AtomicU32, NAMESPACE, Right, World, custom, rights};

/// Annotation of a Namespace: which verdicts are logged.
const LOGGING: &str = "k8s.ovn.org/acl-logging";
/// What Open vSwitch says that it makes (`Open_vSwitch:iface_types`), without what the network needs.
const TYPES: &str = "iface_types=geneve,internal,vxlan";
/// How often that is said: ovs-vswitchd says at once what it really can, and both may come to the daemon as one.
const TIMES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_in_the_classic_network() -> Result<()> {
    let options = Options { nodes: 1, family: Family::V4, api: Api::Real, mode: Mode::Classic, ..Options::default() };
    let Some(lab) = testing::lab("e2e-rights-kbr", options).await? else { return Ok(()) };
    lab.namespace(NAMESPACE).await?;
    let world = World { client: lab.client().await?, lab: &lab, made: AtomicU32::new(0) };
    // Whom policies are about.
    world.pod("subject", "node1", json!({})).await?;
    await_object(&lab, NAMESPACE, "subject", is_pod_running()).await?;
    let rights = rights()?;
    let rights: Vec<_> = rights.iter().filter(|right| right.is_of_classic()).collect();
    ensure!(rights.len() >= 11, "{rights:?}");
    for right in rights {
        let outcome = world.without(right).await.with_context(|| format!("without {right:?}"));
        outcome.with_context(|| testing::complaints(lab.layout().dir()))?;
    }
    Ok(())
}

impl Right {
    /// It has its scenario here.
    pub(super) fn is_of_classic(&self) -> bool {
        let policies = self.resource == "networkpolicies" || self.group == "policy.networking.k8s.io";
        self.account == "ovenbird-node" && (policies || ["namespaces", "nodes/status"].contains(&&*self.resource))
    }

    fn is_of_condition(&self) -> bool {
        self.resource == "nodes/status"
    }
}

impl World<'_> {
    pub(super) fn provoke_in_classic(&self, right: &Right) -> Result<()> {
        if right.is_of_condition() {
            return (0..TIMES).try_for_each(|_| self.say_types());
        }
        self.lab.stop(right.component())?;
        self.lab.start(right.component())
    }

    /// What is new of the kind comes to the node's nftables: an allowed port, or a namespace's wish for a log.
    pub(super) async fn mended_in_classic(&self, right: &Right) -> Result<()> {
        if right.is_of_condition() {
            return self.condition_is_told().await;
        }
        let number = 1000 + u32::from(self.number()?);
        let (from, port) = (json!([{"namespaces": {}}]), json!({"protocol": "TCP", "port": number}));
        let wanted = match custom::Kind::of(right) {
            Some(kind) => {
                let old = kind.name() != "ClusterNetworkPolicy";
                let mut rule = json!({"action": if old { "Allow" } else { "Accept" }, "from": from});
                if old {
                    rule["ports"] = json!([{"portNumber": port}]);
                } else {
                    rule["protocols"] = json!([{"tcp": {"destinationPort": {"number": number}}}]);
                }
                let mut spec = json!({"subject": {"namespaces": {}}, "ingress": [rule]});
                let baseline = kind.name() == "BaselineAdminNetworkPolicy";
                if !baseline {
                    spec["priority"] = json!(number - 1000);
                }
                if !old {
                    spec["tier"] = json!("Admin");
                }
                let name = if baseline { "default".to_owned() } else { self.name() };
                self.apply_custom(&kind, &name, &spec).await?;
                format!("dport {number} ")
            }
            None if right.resource == "namespaces" => {
                let level = ["alert", "info", "debug", "notice"][number as usize % 4];
                self.allow(number).await?;
                let namespace = json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": NAMESPACE, "annotations": {LOGGING: json!({"allow": level}).to_string()}},
                });
                self.lab.apply(&namespace.to_string()).await?;
                format!("level {level}")
            }
            None => {
                self.allow(number).await?;
                format!("dport {number} ")
            }
        };
        let table = ["nft", "list", "table", "inet", "ovenbird-policy"];
        self.until(&format!("{wanted:?} in nftables"), async || {
            Ok(self.lab.exec_node("node1", &table)?.contains(&wanted))
        })
        .await
    }

    /// Lets all come in by a port.
    async fn allow(&self, port: u32) -> Result<()> {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": self.name(), "namespace": NAMESPACE},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]},
        });
        self.lab.apply(&policy.to_string()).await.map(drop)
    }

    /// The Node says that something is missing, or, a moment later, that it is there again.
    async fn condition_is_told(&self) -> Result<()> {
        let nodes = KubeApi::<Node>::all(self.client.clone());
        self.until("the condition NetworkUnavailable", async || {
            self.say_types()?;
            let node = nodes.get("node1").await.context("reading the Node")?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|c| c.type_ == "NetworkUnavailable"))
        })
        .await
    }

    fn say_types(&self) -> Result<()> {
        let db = format!("--db={}", self.lab.layout().ovs("node1"));
        self.lab.exec_node("node1", &["ovs-vsctl", "--no-wait", &db, "set", "Open_vSwitch", ".", TYPES]).map(drop)
    }
}
