//! A Service as far as the master reads it. Must not: interpret a value (that is `topology`'s part).

use k8s_openapi::api::core::v1;
use ovenbird_topology::{Interner, ServiceFact};
use serde::Deserialize;

use super::{Kind, Slim};

/// Service.
#[derive(Clone, Debug)]
pub struct ServiceKind;

impl Kind for ServiceKind {
    type Full = v1::Service;
    type Spec = ServiceSpec;
    type Status = ServiceStatus;
}

/// Part of Service.spec: what [`ServiceFact::new`] reads. Each field is as the API has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    type_: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    load_balancer_source_ranges: Option<Vec<String>>,
    ports: Option<Vec<ServicePort>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<v1::SessionAffinityConfig>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
}

/// Part of a port of a Service: without `targetPort`, which slices have resolved.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i32>,
    node_port: Option<i32>,
}

/// Part of Service.status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    load_balancer: Option<v1::LoadBalancerStatus>,
}

impl From<ServicePort> for v1::ServicePort {
    fn from(slim: ServicePort) -> v1::ServicePort {
        let ServicePort { name, protocol, port, node_port } = slim;
        v1::ServicePort { name, protocol, port: port.unwrap_or_default(), node_port, ..v1::ServicePort::default() }
    }
}

impl From<ServiceSpec> for v1::ServiceSpec {
    fn from(slim: ServiceSpec) -> v1::ServiceSpec {
        v1::ServiceSpec {
            type_: slim.type_,
            cluster_ip: slim.cluster_ip,
            cluster_ips: slim.cluster_ips,
            external_ips: slim.external_ips,
            load_balancer_source_ranges: slim.load_balancer_source_ranges,
            ports: slim.ports.map(|all| all.into_iter().map(Into::into).collect()),
            session_affinity: slim.session_affinity,
            session_affinity_config: slim.session_affinity_config,
            internal_traffic_policy: slim.internal_traffic_policy,
            external_traffic_policy: slim.external_traffic_policy,
            ..v1::ServiceSpec::default()
        }
    }
}

impl Slim<ServiceKind> {
    /// The fact of a Service.
    pub fn tell(self, interner: &mut Interner) -> ServiceFact {
        let ingress = self.status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
        ServiceFact::new(&self.meta, Some(&self.spec.into()), &ingress, interner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The fact of the JSON, which must be the one of the full object.
    fn fact(object: &Value) -> ServiceFact {
        let text = object.to_string();
        let full: v1::Service = serde_json::from_str(&text).expect("decodes");
        let slim: Slim<ServiceKind> = serde_json::from_str(&text).expect("decodes");
        let fact = slim.tell(&mut Interner::default());
        assert_eq!(fact, ServiceFact::from_k8s(&full, &mut Interner::default()), "{text}");
        fact
    }

    /// Every field that the fact has, and neighbours that it has not.
    fn everything() -> Value {
        json!({"kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"app": "web"}, "annotations": {"ovenbird.io/scheduler": "sh", "x": "y"}, "managedFields": [{"manager": "m"}]},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "selector": {"app": "web"},
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack", "externalIPs": ["198.51.100.1"],
                "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
                "loadBalancerSourceRanges": ["192.0.2.0/24"], "trafficDistribution": "PreferClose", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}}, "ports": [
                    {"name": "http", "port": 80, "nodePort": 30080, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
                    {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.2", "ipMode": "Proxy"},
                {"hostname": "lb.example"}, {"ip": "192.0.2.3", "ports": [{"port": 80, "protocol": "TCP"}]}]}, "conditions": []}})
    }

    #[test]
    fn a_service_gives_the_fact_of_the_full_object() {
        let whole = fact(&everything());
        let nothing = ServiceFact::new(&Default::default(), None, &[], &mut Interner::default());
        assert!(whole.created != nothing.created && whole.scheduler != nothing.scheduler);
        assert_eq!((whole.cluster_ips.len(), whole.external_ips.len(), whole.ingress.len()), (2, 1, 2));
        assert_eq!((whole.source_ranges.len(), whole.ports.len(), whole.affinity), (1, 2, Some(30)));
        assert_eq!((whole.ports[0].node_port, whole.internal_local, whole.external_local), (30080, true, true));
    }

    /// Without any one field, with null for it, and with values that mean something else.
    #[test]
    fn so_does_any_part_of_one() {
        for (part, more) in [("spec", 0), ("status", 0), ("metadata", 0), ("spec", 1)] {
            let names: Vec<String> = match everything()[part].as_object() {
                Some(fields) => fields.keys().cloned().collect(),
                None => panic!("{part} is no object"),
            };
            for name in names {
                let mut object = everything();
                match (more, object[part].as_object_mut()) {
                    (0, Some(fields)) => drop(fields.remove(&name)),
                    _ => object[part][&name] = Value::Null,
                }
                fact(&object);
            }
        }
        for (pointer, value) in [
            ("/spec", Value::Null),
            ("/status", Value::Null),
            ("/status/loadBalancer", json!({})),
            ("/status/loadBalancer/ingress", Value::Null),
            ("/spec/type", "ExternalName".into()),
            ("/spec/clusterIPs", json!(["None"])),
            ("/spec/clusterIPs/0", "no address".into()),
            ("/spec/ports/0/port", 70_000.into()),
            ("/spec/ports/0/protocol", "SCTP".into()),
            ("/spec/ports/0/protocol", "no protocol".into()),
            ("/spec/sessionAffinity", "None".into()),
            ("/spec/sessionAffinityConfig", json!({"clientIP": {}})),
            ("/spec/sessionAffinityConfig", json!({})),
            ("/metadata/labels", json!({"service.kubernetes.io/headless": ""})),
            ("/metadata/labels", json!({"service.kubernetes.io/service-proxy-name": "other"})),
            ("/metadata/annotations", json!({"ovenbird.io/scheduler": "no scheduler"})),
        ] {
            let mut object = everything();
            *object.pointer_mut(pointer).expect(pointer) = value;
            fact(&object);
        }
    }
}
