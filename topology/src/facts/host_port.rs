//! Ports of the node that a pod asks for: `hostPort` of its containers.
//!
//! Inputs: containers. Outputs: values that say what is asked. Must not: judge who gets a port.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::Protocol;

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `hostIP`: the node's address, or the unspecified one of a family for all of that; absent for all.
    pub address: Option<IpAddr>,
    /// `hostPort`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `containerPort`.
    pub target: u16,
}

impl HostPort {
    /// True when the port is asked for at this address of the node.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.address.is_none_or(|own| own == address || own.is_unspecified() && own.is_ipv4() == address.is_ipv4())
    }

    /// True when only one of both can have what they ask for.
    pub fn meets(&self, other: &HostPort) -> bool {
        let at = |one: &HostPort, of: &HostPort| of.address.is_none_or(|address| one.covers(address));
        (self.port, self.protocol) == (other.port, other.protocol) && (at(self, other) || at(other, self))
    }
}

/// What the containers that run beside each other ask for: init containers only when they stay (KEP-753).
pub(super) fn of(spec: &PodSpec) -> Box<[HostPort]> {
    let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(stays));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let text = port.host_ip.as_deref().unwrap_or_default();
        Some(HostPort {
            address: if text.is_empty() { None } else { Some(text.parse().ok()?) },
            port: port.host_port?.try_into().ok().filter(|port| *port != 0)?,
            protocol: Protocol::parse(port.protocol.as_deref())?,
            target: port.container_port.try_into().ok()?,
        })
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<&str>, port: u16, protocol: Protocol) -> HostPort {
        HostPort { address: address.map(|text| text.parse().unwrap()), port, protocol, target: 80 }
    }

    #[test]
    fn ports_meet_where_an_address_is_shared() {
        let tcp = |address| port(address, 80, Protocol::Tcp);
        let (any, any4, one4, other4, one6) =
            (tcp(None), tcp(Some("0.0.0.0")), tcp(Some("10.0.0.1")), tcp(Some("10.0.0.2")), tcp(Some("fd00::1")));
        for (a, b, meet) in [
            (any, any, true),
            (any, one6, true),
            (any, any4, true),
            (any4, one4, true),
            (any4, one6, false),
            (one4, other4, false),
            (one4, one4, true),
        ] {
            assert_eq!((a.meets(&b), b.meets(&a)), (meet, meet), "{a:?} {b:?}");
        }
        assert!(!any.meets(&port(None, 81, Protocol::Tcp)) && !any.meets(&port(None, 80, Protocol::Udp)));
    }

    #[test]
    fn containers_that_stay_are_asked() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "a", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"},
                {"containerPort": 1, "hostPort": 1, "hostIP": "nowhere"}, {"containerPort": 1, "hostPort": 70000},
            ]}],
            "initContainers": [
                {"name": "b", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "c", "restartPolicy": "Always", "ports": [{"containerPort": 2, "hostPort": 2, "protocol": "SCTP"}]},
            ],
        }))
        .unwrap();
        let shown: Vec<_> = of(&spec)
            .iter()
            .map(|p| format!("{:?} {} {} {}", p.address, p.port, p.protocol.as_str(), p.target))
            .collect();
        assert_eq!(shown, ["None 8080 TCP 80", "Some(10.0.0.1) 53 UDP 53", "None 2 SCTP 2"]);
    }
}
