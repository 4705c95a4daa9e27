//! What Kubernetes promises: who may answer a client of a Service, and whom the answerer sees. Pure, and from the API's own
//! words; it must not know how Ovenbird does it, nor ask a cluster.
//!
//! Sources: the documentation of Services and virtual IPs, KEP-2086 (internalTrafficPolicy), KEP-1669 and the field docs of
//! `externalTrafficPolicy`. Where they leave something open, the expectation does, too.

use std::collections::BTreeSet;
use std::fmt;

/// Number of a node.
pub type Node = usize;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod that is no endpoint.
    Pod(Node),
    /// The pod that is an endpoint on this node.
    Endpoint(Node),
    /// A process on the node's own network.
    Host(Node),
    /// A host that is no node.
    Outside,
}

/// Which address of the Service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Its cluster address.
    ClusterIp,
    /// Its port on a node's address.
    NodePort(Node),
    /// Its external address, which the outside sends to this node.
    ExternalIp(Node),
}

/// A traffic policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Any endpoint.
    Cluster,
    /// Only those of the node at hand.
    Local,
}

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// The endpoint pod of this node.
    Pod(Node),
    /// The node's own network.
    Host(Node),
}

/// A Service, all of whose endpoints are ready.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name.
    pub name: &'static str,
    /// `internalTrafficPolicy`.
    pub internal: Policy,
    /// `externalTrafficPolicy`.
    pub external: Policy,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What must happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Each of these answers at some time, and nobody else does.
    All(BTreeSet<Endpoint>, Seen),
    /// One or more of these answer, and nobody else does.
    Some(BTreeSet<Endpoint>, Seen),
    /// The client is told at once that there is nobody.
    Refused,
    /// Nobody answers; being told so is as good as silence.
    Nobody,
}

/// Whom the answerer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The client's own address.
    Client,
    /// Somebody else: the way back must lead by where the client asked.
    SomebodyElse,
    /// Left open.
    Anybody,
}

impl Client {
    /// The node that the client is on.
    pub fn node(self) -> Option<Node> {
        match self {
            Client::Pod(node) | Client::Endpoint(node) | Client::Host(node) => Some(node),
            Client::Outside => None,
        }
    }
}

impl Endpoint {
    /// The node that the endpoint is on.
    pub fn node(self) -> Node {
        match self {
            Endpoint::Pod(node) | Endpoint::Host(node) => node,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Pod(node) => write!(f, "pod{node}"),
            Endpoint::Host(node) => write!(f, "host{node}"),
        }
    }
}

/// What must happen when a client asks a Service by a door; `None` for what nobody promises anything about.
pub fn expect(service: &Service, client: Client, door: Door) -> Option<Expected> {
    let all: BTreeSet<Endpoint> = service.endpoints.iter().copied().collect();
    let on = |node: Node| -> BTreeSet<Endpoint> { all.iter().copied().filter(|e| e.node() == node).collect() };
    // Cluster addresses are for the cluster.
    if door == Door::ClusterIp && client == Client::Outside {
        return None;
    }
    if all.is_empty() {
        return Some(Expected::Refused);
    }
    let entered_at = match door {
        Door::ClusterIp => None,
        Door::NodePort(node) | Door::ExternalIp(node) => Some(node),
    };
    let (candidates, complete) = match (door, client.node(), entered_at) {
        (Door::ClusterIp, Some(node), _) if service.internal == Policy::Local => (on(node), true),
        (Door::ClusterIp, ..) => (all, true),
        _ if service.external == Policy::Cluster => (all, true),
        // From outside: the node that was asked answers by itself or not at all.
        (_, None, Some(node)) => (on(node), true),
        // From inside the policy does not restrict, where the node at hand is asked; what another node makes of it is its affair.
        (Door::NodePort(asked), Some(node), _) if asked == node => (all, true),
        (Door::NodePort(asked), ..) if on(asked).is_empty() => return None,
        _ => (all, false),
    };
    if candidates.is_empty() {
        return Some(Expected::Nobody);
    }
    let seen = seen(service, client, door, &candidates);
    Some(if complete { Expected::All(candidates, seen) } else { Expected::Some(candidates, seen) })
}

fn seen(service: &Service, client: Client, door: Door, candidates: &BTreeSet<Endpoint>) -> Seen {
    let to_pods_only = candidates.iter().all(|e| matches!(e, Endpoint::Pod(_)));
    match (client, door) {
        // A pod cannot answer itself: it would never see its own answer's way back.
        (Client::Endpoint(node), _) if candidates.contains(&Endpoint::Pod(node)) => Seen::Anybody,
        (Client::Pod(_) | Client::Endpoint(_), Door::ClusterIp) if to_pods_only => Seen::Client,
        (Client::Outside, _) if service.external == Policy::Local => Seen::Client,
        (Client::Outside, _) if to_pods_only => Seen::SomebodyElse,
        _ => Seen::Anybody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(internal: Policy, external: Policy, endpoints: &[Endpoint]) -> Service {
        Service { name: "s", internal, external, endpoints: endpoints.to_vec() }
    }

    #[test]
    fn the_words_of_the_api() {
        let one = service(Policy::Local, Policy::Local, &[Endpoint::Pod(1)]);
        let pod1 = BTreeSet::from([Endpoint::Pod(1)]);
        for (client, door, wanted) in [
            (Client::Pod(1), Door::ClusterIp, Some(Expected::All(pod1.clone(), Seen::Client))),
            (Client::Pod(2), Door::ClusterIp, Some(Expected::Nobody)),
            (Client::Outside, Door::ClusterIp, None),
            (Client::Outside, Door::NodePort(1), Some(Expected::All(pod1.clone(), Seen::Client))),
            (Client::Outside, Door::NodePort(2), Some(Expected::Nobody)),
            (Client::Host(2), Door::NodePort(2), Some(Expected::All(pod1.clone(), Seen::Anybody))),
            (Client::Pod(1), Door::NodePort(2), None),
        ] {
            assert_eq!(expect(&one, client, door), wanted, "{client:?} {door:?}");
        }
        let none = service(Policy::Cluster, Policy::Local, &[]);
        assert_eq!(expect(&none, Client::Outside, Door::NodePort(1)), Some(Expected::Refused));
    }
}
