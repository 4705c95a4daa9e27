//! The fact of a ServiceCIDR (KEP-1880): networks that cluster addresses of Services are taken from, beside those of the settings.
//!
//! Must not: judge whether they fit into the cluster (`service_cidr`).

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use ovsdb::Str;

/// A ServiceCIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidrFact {
    /// `metadata.name`.
    pub name: Str,
    /// `spec.cidrs`, those that are networks.
    pub cidrs: Box<[IpNet]>,
}

impl ServiceCidrFact {
    /// The fact of an object. One that is being deleted counts until it is gone: so long it has Services.
    pub fn from_k8s(object: &ServiceCIDR) -> ServiceCidrFact {
        let texts = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        let cidrs = texts.filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc()).collect();
        ServiceCidrFact { name: object.metadata.name.as_deref().unwrap_or_default().into(), cidrs }
    }
}
