//! Answers about policies, as they go over the admin socket.
//!
//! Field names are a contract with `cli` and with scripts: add, do not rename. Lists are bounded; what they leave out is counted. Must
//! not: hold logic.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of a pod and another end.
    Decision(Decision),
    /// Of a pod alone.
    Overview(Overview),
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that was asked for passes.
    Allowed,
    /// Nothing of it passes.
    Denied,
    /// Some passes: some ports, or between some addresses.
    Partly,
}

/// Who enforces what is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcer {
    /// OVN, by ACLs: ovn-trace(8) can be asked.
    #[default]
    Ovn,
    /// Each node, by nftables of its own (network mode classic).
    Nodes,
}

/// What becomes of traffic between two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Of all paths together.
    pub verdict: Verdict,
    /// Who sends: `web/a`, `node n1`, `10.0.0.7`.
    pub source: String,
    /// Who receives.
    pub destination: String,
    /// What is sent, `tcp/80`; none for whatever may be.
    pub port: Option<String>,
    /// Each pair of addresses of one family.
    pub paths: Vec<Path>,
    /// What a reader should know of the ends and the policies.
    pub notes: Vec<String>,
    /// Who enforces it.
    #[serde(default)]
    pub enforced_by: Enforcer,
}

/// Traffic from one address to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Source address, after load balancing.
    pub source: IpAddr,
    /// Destination address, after load balancing.
    pub destination: IpAddr,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What passes, as `tcp/80`, `tcp/8000-8080`, `udp`, `other` for what has no ports, `everything`.
    pub passes: Vec<String>,
    /// The source's policies; none when it is no pod.
    pub egress: Option<Judgement>,
    /// The destination's policies; none when it is no pod.
    pub ingress: Option<Judgement>,
    /// The packet that ovn-trace can follow; none of a pod to itself.
    pub microflow: Option<Microflow>,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// In a word.
    pub state: State,
    /// Rules of admin policies that decide some of the traffic, in the order in which they are asked.
    #[serde(default)]
    pub admin: Vec<AdminRule>,
    /// The NetworkPolicies that isolate the pod in this direction, `namespace/name`; none when nothing gets to them.
    pub isolated_by: Vec<String>,
    /// Their rules that let traffic pass that gets to them.
    pub rules: Vec<Rule>,
    /// Their rules that do not, at the first reason.
    pub others: Vec<Other>,
    /// What no rule of any policy decides, and so passes; as in [`Path::passes`].
    #[serde(default)]
    pub undecided: Vec<String>,
    /// Policies and rules that the lists leave out.
    pub left_out: usize,
}

/// See [`Judgement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No policy isolates the pod, and no rule of an admin policy decides.
    Open,
    /// No policy can stop it: it comes from the pod's own node.
    OwnNode,
    /// No policy can stop it: it comes from the pod itself.
    Itself,
    /// Policies let it pass.
    Allowed,
    /// Policies let some of it pass.
    Partly,
    /// Policies let nothing of it pass.
    Denied,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The policy, `namespace/name`.
    pub policy: String,
    /// In which list of `spec` it stands.
    pub direction: Direction,
    /// Its index there.
    pub index: usize,
    /// Its peers, in words: of a decision those that fit.
    pub peers: Vec<String>,
    /// What it lets pass, as in [`Path::passes`]: of a decision with names replaced by the destination's ports.
    pub ports: Vec<String>,
}

/// A rule of an admin policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRule {
    /// `AdminNetworkPolicy`, `ClusterNetworkPolicy` or `BaselineAdminNetworkPolicy`.
    pub kind: String,
    /// When it is asked.
    pub tier: Tier,
    /// `name` of the rule.
    pub name: Option<String>,
    /// What becomes of the traffic.
    pub action: Action,
    /// The rule; `policy` is the policy's name, and `ports` of a decision is the traffic that it decides.
    #[serde(flatten)]
    pub rule: Rule,
}

/// When an admin policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After them, of pods that none of them isolates.
    Baseline,
}

/// What a rule of an admin policy comes to: where after its tier there is none, Pass allows; what cannot be read denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It passes.
    Allow,
    /// It is stopped.
    Deny,
    /// It goes on to NetworkPolicies.
    Pass,
}

/// Which of a policy's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// `spec.ingress`.
    Ingress,
    /// `spec.egress`.
    Egress,
}

/// A rule that does not let traffic pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// The rule, with all its peers and ports.
    #[serde(flatten)]
    pub rule: Rule,
    /// `peer` or `port`: what does not fit.
    pub misses: Miss,
}

/// What of a rule does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    /// The other end is none of its peers.
    Peer,
    /// The port is none of its ports, or never gets to NetworkPolicies.
    Port,
}

/// A packet for ovn-trace(8) on its way from one logical port to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Microflow {
    /// Logical switch on which it starts.
    pub switch: String,
    /// Logical port by which it enters the switch: the source's own, or the router's for who is outside.
    pub inport: String,
    /// Source MAC.
    pub eth_src: String,
    /// Destination MAC: the destination's own on one switch, else the router's.
    pub eth_dst: String,
    /// Logical port to which it is output when it passes: the destination's own, or the router's for who is outside.
    pub outport: String,
    /// `tcp`, `udp`, `sctp`, `icmp`; `ip` when nothing certain was asked for.
    pub protocol: String,
    /// Destination port, if there are ports.
    pub port: Option<u16>,
}

/// All that isolates a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// Its node.
    pub node: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What comes in.
    pub ingress: Isolation,
    /// What goes out.
    pub egress: Isolation,
    /// What a reader should know of the pod and the policies.
    pub notes: Vec<String>,
}

/// What isolates a pod in a direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The NetworkPolicies that isolate it; when there is none, everything passes that no admin policy stops.
    pub isolated_by: Vec<String>,
    /// All their rules.
    pub rules: Vec<Rule>,
    /// All rules of admin policies whose subject it is, in the order in which they are asked.
    #[serde(default)]
    pub admin: Vec<AdminRule>,
    /// Policies and rules that the lists leave out.
    pub left_out: usize,
}
