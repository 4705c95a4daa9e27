//! Ports of the node that a pod asks for: `hostPort` of its containers.
//!
//! Inputs: containers. Outputs: values that say what is asked. Must not: judge who gets a port.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use ovenbird_api::HostPort;

/// The containers that run beside each other: init containers only when they stay (KEP-753).
pub(super) fn running(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(stays))
}

/// What the containers that run beside each other ask for.
pub(super) fn of(spec: &PodSpec) -> Box<[HostPort]> {
    let ports = running(spec).flat_map(|container| container.ports.iter().flatten());
    let wanted =
        ports.filter_map(|p| HostPort::new(p.host_ip.as_deref(), p.host_port, p.protocol.as_deref(), p.container_port));
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
