//! The network modes, and what each of them does not do: one list for what people read, and for the suites that hold it against packets.
//!
//! A feature stands in the list of a mode when an object that asks for it has no effect there. What is asked for in vain is told in an Event
//! where an object asks for it. Must not: know how any of it is done.

use std::fmt;

/// What the network of a cluster, or of single nodes, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// OVN's logical switches and routers, Geneve or VXLAN between nodes.
    Overlay,
    /// Linux bridges and an OVS bridge with tunnels, without OVN.
    Classic,
    /// OVN's, and pods are on VLANs of physical networks (kinds ProviderNetwork and Network).
    Underlay,
    /// OVN's, and the node is a VM on one of its hypervisors.
    Nested,
}

/// What a mode may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `hostPort` of a Pod's containers.
    HostPort,
    /// The annotations `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth` of a Pod.
    Bandwidth,
    /// The annotation `ovenbird.io/scheduler: wrr` of a Service.
    WeightedScheduler,
    /// `internalTrafficPolicy: Local` and `trafficDistribution` of a Service.
    NearEndpoints,
    /// `externalTrafficPolicy: Local` of a Service.
    ExternalLocal,
    /// Ports of Services on the node's addresses.
    NodePort,
    /// A way from pods to hosts outside the cluster.
    WayOut,
    /// `ovenbird check policy --live`.
    CheckLive,
    /// Pods on VLANs beside the mode's own network.
    Networks,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 4] = [Mode::Overlay, Mode::Classic, Mode::Underlay, Mode::Nested];

    /// What has no effect in this mode.
    pub const fn lacks(self) -> &'static [Feature] {
        use Feature::{CheckLive, NearEndpoints, Networks};
        match self {
            Mode::Overlay => &[],
            Mode::Classic => &[CheckLive, Networks],
            Mode::Underlay => &[NearEndpoints],
            Mode::Nested => &[],
        }
    }
}

impl Feature {
    /// All features.
    pub const ALL: [Feature; 9] = [
        Feature::HostPort,
        Feature::Bandwidth,
        Feature::WeightedScheduler,
        Feature::NearEndpoints,
        Feature::ExternalLocal,
        Feature::NodePort,
        Feature::WayOut,
        Feature::CheckLive,
        Feature::Networks,
    ];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Overlay => "overlay",
            Mode::Classic => "classic",
            Mode::Underlay => "underlay",
            Mode::Nested => "nested",
        })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::HostPort => "hostPort",
            Feature::Bandwidth => "bandwidth limits",
            Feature::WeightedScheduler => "scheduler wrr",
            Feature::NearEndpoints => "internalTrafficPolicy Local and trafficDistribution",
            Feature::ExternalLocal => "externalTrafficPolicy Local",
            Feature::NodePort => "NodePorts",
            Feature::WayOut => "a way out of the cluster",
            Feature::CheckLive => "ovenbird check policy --live",
            Feature::Networks => "pods on VLANs",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operators read the list in the deployment's README, a line for each mode.
    #[test]
    fn the_readme_lists_what_a_mode_lacks() {
        let readme = include_str!("../../deploy/README.md");
        for mode in Mode::ALL {
            let features: Vec<String> = mode.lacks().iter().map(Feature::to_string).collect();
            let list = if features.is_empty() { "nothing".to_owned() } else { features.join(", ") };
            let row = format!("| `{mode}` | {list} |");
            assert!(readme.contains(&row), "deploy/README.md has no line {row}");
        }
    }
}
