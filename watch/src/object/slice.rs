//! An EndpointSlice as far as the master reads it. Must not: interpret a value (that is `topology`'s part).

use std::borrow::Cow;

use k8s_openapi::api::discovery::v1 as discovery;
use kube::Resource;
use kube::api::ObjectMeta;
use ovenbird_topology::{EndpointSliceFact, Interner};
use serde::Deserialize;
use serde::de::Deserializer;

use super::Meta;

/// An EndpointSlice, which has neither spec nor status.
#[derive(Clone, Debug)]
pub struct SlimSlice {
    meta: ObjectMeta,
    ports: Vec<discovery::EndpointPort>,
    endpoints: Vec<discovery::Endpoint>,
}

impl<'de> Deserialize<'de> for SlimSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Meta,
            ports: Option<Vec<discovery::EndpointPort>>,
            endpoints: Option<Vec<SlimEndpoint>>,
        }
        let Wire { metadata, ports, endpoints } = Wire::deserialize(deserializer)?;
        let endpoints = endpoints.into_iter().flatten().map(Into::into).collect();
        Ok(SlimSlice { meta: metadata.into(), ports: ports.unwrap_or_default(), endpoints })
    }
}

/// Part of an endpoint: without the pod it is, which is most of its text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimEndpoint {
    addresses: Vec<String>,
    conditions: Option<discovery::EndpointConditions>,
    node_name: Option<String>,
    hints: Option<discovery::EndpointHints>,
}

impl From<SlimEndpoint> for discovery::Endpoint {
    fn from(slim: SlimEndpoint) -> discovery::Endpoint {
        let SlimEndpoint { addresses, conditions, node_name, hints } = slim;
        discovery::Endpoint { addresses, conditions, node_name, hints, ..discovery::Endpoint::default() }
    }
}

impl Resource for SlimSlice {
    type DynamicType = ();
    type Scope = <discovery::EndpointSlice as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        discovery::EndpointSlice::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        discovery::EndpointSlice::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        discovery::EndpointSlice::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        discovery::EndpointSlice::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl SlimSlice {
    /// The fact of an EndpointSlice.
    pub fn tell(self, interner: &mut Interner) -> EndpointSliceFact {
        let SlimSlice { meta, ports, endpoints } = self;
        EndpointSliceFact::new(&meta, &ports, &endpoints, interner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_gives_the_fact_of_the_full_object() {
        let text = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"web-1","namespace":"ns",
            "labels":{"kubernetes.io/service-name":"web"},"managedFields":[{"manager":"m"}]},"addressType":"IPv4",
            "ports":[{"name":"","port":8080,"protocol":"TCP"}],"endpoints":[{"addresses":["10.128.0.3"],"nodeName":"n1",
            "hints":{"forZones":[{"name":"a"}]},"targetRef":{"kind":"Pod","name":"p"}}]}"#;
        let full: discovery::EndpointSlice = serde_json::from_str(text).expect("decodes");
        let slim: SlimSlice = serde_json::from_str(text).expect("decodes");
        let fact = slim.tell(&mut Interner::default());
        assert_eq!(fact, EndpointSliceFact::from_k8s(&full, &mut Interner::default()));
        assert!(!fact.endpoints.is_empty() && !fact.ports.is_empty());
        let empty =
            r#"{"metadata":{"name":"web-2","namespace":"ns"},"addressType":"IPv4","endpoints":null,"ports":null}"#;
        assert!(serde_json::from_str::<SlimSlice>(empty).is_ok());
    }
}
