//! Services for tests: manifests with hand-made slices, witnesses behind them, and clients that ask them.
//!
//! In: places, names, addresses. Out: YAML; who answered and which source it saw. It must not know what a test proves with them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use ovenbird_lab::Place;
use serde_json::{Value, json};

use crate::witness::{self, Protocol, Silence, stand};

/// Port of responders.
pub const PORT: u16 = 8000;
/// After this, silence counts as silence.
const PATIENCE: Duration = Duration::from_millis(700);

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An endpoint answered.
    From {
        /// Name of the responder.
        name: String,
        /// Source that it saw.
        source: IpAddr,
    },
    /// The connection was refused.
    Refused,
    /// Nothing came back.
    Silence,
}

impl Answer {
    /// Name of the endpoint that answered, or what came instead.
    pub fn name(&self) -> &str {
        match self {
            Answer::From { name, .. } => name,
            Answer::Refused => "refused",
            Answer::Silence => "silence",
        }
    }
}

/// Answers on [`PORT`] over TCP and UDP, in both families, with its name and the source that it sees, until this process ends.
///
/// # Errors
/// When the port is taken there.
pub fn respond(place: &Place, name: &str) -> Result<()> {
    stand(place, name, &[Ipv6Addr::UNSPECIFIED.into()], PORT)
}

/// Asks an address once.
///
/// # Errors
/// When the question cannot be asked, or the answer is not that of a responder.
pub fn ask(from: &Place, protocol: Protocol, to: SocketAddr) -> Result<Answer> {
    Ok(match witness::ask(from, protocol, to, PATIENCE)? {
        Ok(witness::Answer { who, seen }) => Answer::From { name: who, source: seen },
        Err(Silence::Refused) => Answer::Refused,
        Err(Silence::Timeout) => Answer::Silence,
    })
}

/// A Service with these cluster addresses, TCP port 80 and UDP port 53; `more` is merged into its spec.
pub fn service(namespace: &str, name: &str, ips: &[IpAddr], annotations: &Value, more: Value) -> String {
    let families: Vec<&str> = ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let mut spec = json!({
        "clusterIP": ips.first(), "clusterIPs": ips, "ipFamilies": families,
        "ipFamilyPolicy": if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" },
        "ports": [
            {"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP"},
            {"name": "udp", "port": 53, "targetPort": PORT, "protocol": "UDP"},
        ],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    document(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "annotations": annotations}, "spec": spec,
    }))
}

/// The slices of a Service: one for each family. Endpoints are a node and an address each.
pub fn slices(namespace: &str, service: &str, endpoints: &[(&str, IpAddr)]) -> String {
    let slice = |(v4, family): (bool, &str)| {
        let of_family = endpoints.iter().filter(|(_, ip)| ip.is_ipv4() == v4);
        let endpoints: Vec<Value> = of_family
            .map(|(node, ip)| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}))
            .collect();
        document(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace, "name": format!("{service}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "tcp", "port": PORT, "protocol": "TCP"}, {"name": "udp", "port": PORT, "protocol": "UDP"}],
        }))
    };
    [(true, "IPv4"), (false, "IPv6")].map(slice).concat()
}

fn document(object: &Value) -> String {
    format!("---\n{object}\n")
}
