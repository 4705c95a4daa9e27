//! Ports of a pod that have a name, by which NetworkPolicies open them.
//!
//! Inputs: containers. Outputs: names and numbers. Must not: judge whether something listens there.

use k8s_openapi::api::core::v1::PodSpec;
use ovenbird_api::Protocol;
use ovsdb::Str;

use super::host_port::running;
use super::rule::port_number;
use crate::intern::Interner;

/// `spec.containers[].ports[]` with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// `name`.
    pub name: Str,
    /// `protocol`.
    pub protocol: Protocol,
    /// `containerPort`.
    pub number: u16,
}

/// The named ports of the containers that run beside each other; of two with one name and protocol the first counts.
pub(super) fn of(spec: &PodSpec, interner: &mut Interner) -> Box<[ContainerPort]> {
    let mut ports: Vec<ContainerPort> = Vec::new();
    for port in running(spec).flat_map(|container| container.ports.iter().flatten()) {
        let name = port.name.as_deref().filter(|name| !name.is_empty());
        let protocol = Protocol::parse(port.protocol.as_deref());
        let number = port_number(port.container_port);
        let (Some(name), Some(protocol), Some(number)) = (name, protocol, number) else { continue };
        if !ports.iter().any(|p| (&*p.name, p.protocol) == (name, protocol)) {
            ports.push(ContainerPort { name: interner.intern(name), protocol, number });
        }
    }
    ports.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_that_stay() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "a", "ports": [
                {"name": "web", "containerPort": 80}, {"name": "web", "containerPort": 81}, {"containerPort": 82},
                {"name": "web", "containerPort": 53, "protocol": "UDP"}, {"name": "odd", "containerPort": 70000},
            ]}],
            "initContainers": [
                {"name": "b", "ports": [{"name": "early", "containerPort": 1}]},
                {"name": "c", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2, "protocol": "SCTP"}]},
            ],
        }))
        .unwrap();
        let ports = of(&spec, &mut Interner::default());
        let shown: Vec<_> = ports.iter().map(|p| format!("{} {} {}", p.name, p.protocol.as_str(), p.number)).collect();
        assert_eq!(shown, ["web TCP 80", "web UDP 53", "side SCTP 2"]);
    }
}
