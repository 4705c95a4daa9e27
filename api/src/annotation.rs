//! Annotation keys, the error of parsing them, and the JSON helpers that the typed annotations (`node`, `pod`) share.
//!
//! Keys and JSON forms are those of ovn-kubernetes, so that tools and habits carry over; legacy forms (a plain string where
//! an array is meant) are read and never written. Must not: know what an annotation is used for.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Node: subnets of the node's switch, `{"default":["10.128.0.0/23","fd01::/64"]}`; written by the master.
pub const NODE_SUBNETS: &str = "k8s.ovn.org/node-subnets";
/// Node: small unique number, `"2"`; written by the master.
pub const NODE_ID: &str = "k8s.ovn.org/node-id";
/// Node: OVS system-id, the name of the node's Chassis; written by the node.
pub const NODE_CHASSIS_ID: &str = "k8s.ovn.org/node-chassis-id";
/// Node: address of the default-route interface, `{"ipv4":"172.18.0.4/16","ipv6":"..."}`; written by the node.
pub const NODE_PRIMARY_IFADDR: &str = "k8s.ovn.org/node-primary-ifaddr";
/// Node: tunnel endpoints, `["172.18.0.4"]`; written by the node.
pub const NODE_ENCAP_IPS: &str = "k8s.ovn.org/node-encap-ips";
/// Node: MAC of the management port, `{"default":"0a:58:0a:80:00:02"}`; written by the node.
pub const NODE_MGMT_PORT_MACS: &str = "k8s.ovn.org/node-mgmt-port-mac-addresses";
/// Node: all addresses of the host, `["172.18.0.4/16"]`; written by the node.
pub const HOST_CIDRS: &str = "k8s.ovn.org/host-cidrs";
/// Node: how the node's gateway router reaches the outside (see [`crate::L3Gateway`]); written by the node.
pub const L3_GATEWAY_CONFIG: &str = "k8s.ovn.org/l3-gateway-config";
/// Node: MTU of its pods in bytes, `1442`: what the gateway router lets in; written by the node.
pub const POD_MTU: &str = "ovenbird.io/pod-mtu";
/// Node: datapath of the node's integration bridge, `system` or `netdev`; written by the node.
pub const DATAPATH_TYPE: &str = "ovenbird.io/datapath-type";
/// Node: it is a VM on an OVN hypervisor, and this is the name of the VM's Logical_Switch_Port (see [`crate::nested`]); written by whoever made
/// the VM.
pub const PARENT_PORT: &str = "ovenbird.io/parent-port";
/// Service: how connections are spread, `rr`, `wrr` or `sh`; written by the user.
pub const SCHEDULER: &str = "ovenbird.io/scheduler";
/// Pod: addresses, MAC, gateways and routes (see [`crate::PodNetwork`]); written by the master.
pub const POD_NETWORKS: &str = "k8s.ovn.org/pod-networks";
/// Pod: name of the `Network` that the pod is on, absent for the cluster's own; written by the master, with [`POD_NETWORKS`].
pub const NETWORK: &str = "ovenbird.io/network";
/// Pod: the lease of its address, on a Network whose addresses are a DHCP server's (see [`crate::Lease`]); written by the pod's node.
pub const LEASE: &str = "ovenbird.io/lease";
/// Pod: its share of the connections to Services whose scheduler is `wrr`, from 1 (default) to 20; written by the user.
pub const WEIGHT: &str = "ovenbird.io/weight";
/// Namespace: how verdicts of its policies are logged, e.g. `{"deny":"alert","allow":"notice"}`; written by the user.
pub const ACL_LOGGING: &str = "k8s.ovn.org/acl-logging";
/// Pod: the UID under which a kubelet runs its static pod, of which this one is the mirror; written by the kubelet.
pub const STATIC_POD_UID: &str = "kubernetes.io/config.mirror";
/// Pod: limit of traffic to the pod, in bits per second, e.g. `10M`; written by the user.
pub const INGRESS_BANDWIDTH: &str = "kubernetes.io/ingress-bandwidth";
/// Pod: limit of traffic from the pod, in bits per second; written by the user.
pub const EGRESS_BANDWIDTH: &str = "kubernetes.io/egress-bandwidth";

/// An annotation that cannot be used. The text names the annotation, the field in it, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {}{problem}; {remedy}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct AnnotationError {
    /// Key of the annotation.
    pub annotation: &'static str,
    /// Path inside its JSON, e.g. `default.ip_addresses`; empty when the text as a whole is wrong.
    pub field: String,
    /// What is wrong, with the offending text.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Where a value stands: the annotation, the path inside it and the advice for its errors.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub annotation: &'static str,
    pub field: &'static str,
    pub remedy: &'static str,
}

/// Advice for annotations that one of our daemons writes.
pub(crate) const REMOVE_IT: &str = "remove the annotation and it is written anew";
/// Longest part of a bad text that an error repeats.
const QUOTE_LIMIT: usize = 80;

impl At {
    /// The annotation as a whole, written by one of our daemons.
    pub const fn whole(annotation: &'static str) -> At {
        At { annotation, field: "", remedy: REMOVE_IT }
    }

    /// A field of it.
    pub const fn field(self, field: &'static str) -> At {
        At { field, ..self }
    }

    /// An error here.
    pub fn error(self, problem: impl Into<String>) -> AnnotationError {
        AnnotationError {
            annotation: self.annotation,
            field: self.field.to_owned(),
            problem: problem.into(),
            remedy: self.remedy,
        }
    }

    /// Parses JSON text.
    pub fn json<'a, T: Deserialize<'a>>(self, text: &'a str, expected: &str) -> Result<T, AnnotationError> {
        serde_json::from_str(text).map_err(|e| self.error(format!("{} is not {expected} ({e})", quote(text))))
    }

    /// Parses a JSON object (serde alone would also take an array of the fields in order).
    pub fn object<'a, T: Deserialize<'a>>(self, text: &'a str, expected: &str) -> Result<T, AnnotationError> {
        if !text.trim_start().starts_with('{') {
            return Err(self.error(format!("{} is not {expected}", quote(text))));
        }
        self.json(text, expected)
    }

    /// The value, or an error that it is missing.
    pub fn required<T>(self, value: Option<T>) -> Result<T, AnnotationError> {
        value.ok_or_else(|| self.error("missing"))
    }

    /// A JSON string.
    pub fn text<'a>(self, raw: &'a RawValue) -> Result<Cow<'a, str>, AnnotationError> {
        self.json::<Text<'a>>(raw.get(), "a string").map(|t| t.0)
    }

    /// A JSON array of strings; the legacy form of one bare string counts as an array of one.
    pub fn texts<'a>(self, raw: &'a RawValue) -> Result<Vec<Cow<'a, str>>, AnnotationError> {
        if raw.get().starts_with('"') {
            return Ok(vec![self.text(raw)?]);
        }
        let texts: Vec<Text<'a>> = self.json(raw.get(), "an array of strings")?;
        Ok(texts.into_iter().map(|t| t.0).collect())
    }

    /// Parses a text such as an address.
    pub fn parse<T: FromStr>(self, text: &str, expected: &str) -> Result<T, AnnotationError> {
        text.trim().parse().map_err(|_| self.error(format!("{} is not {expected}", quote(text))))
    }

    /// Parses a list of texts.
    pub fn parse_all<T: FromStr>(self, texts: &[Cow<'_, str>], expected: &str) -> Result<Vec<T>, AnnotationError> {
        texts.iter().map(|t| self.parse(t, expected)).collect()
    }

    /// An error unless there is at least one item and at most one of each address family.
    pub fn one_per_family<T: Family>(self, items: Vec<T>) -> Result<Vec<T>, AnnotationError> {
        if items.is_empty() {
            return Err(self.error("empty"));
        }
        for v4 in [true, false] {
            let mut of_family = items.iter().filter(|i| i.is_v4() == v4);
            if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
                return Err(self.error(format!("{first} and {second} are of one address family")));
            }
        }
        Ok(items)
    }
}

/// Things that are IPv4 or IPv6.
pub(crate) trait Family: Display {
    fn is_v4(&self) -> bool;
}

impl Family for IpAddr {
    fn is_v4(&self) -> bool {
        self.is_ipv4()
    }
}

impl Family for IpNet {
    fn is_v4(&self) -> bool {
        matches!(self, IpNet::V4(_))
    }
}

/// A JSON string, borrowed when it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The value of the key `default` in `{"default": ...}`: other networks are not ours to judge.
#[derive(Deserialize)]
pub(crate) struct PerNetwork<'a> {
    #[serde(borrow)]
    pub default: Option<&'a RawValue>,
}

/// A text in quotes for an error message, shortened.
pub(crate) fn quote(text: &str) -> String {
    let short: String = text.chars().take(QUOTE_LIMIT).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}
