//! Results as a runtime reads them from stdout, in the layout of each version (SPEC.md "Success"). Pure.

use serde_json::{Map, Value, json};

use crate::attach::{Attached, Interface, Ip, Route};
use crate::version::Version;

/// Result of ADD.
pub fn add_json(attached: &Attached, version: Version) -> String {
    let mut out = Map::new();
    out.insert("cniVersion".into(), version.as_str().into());
    out.insert("interfaces".into(), attached.interfaces.iter().map(|i| interface_json(i, version)).collect());
    out.insert("ips".into(), attached.ips.iter().map(|ip| ip_json(ip, version)).collect());
    out.insert("routes".into(), attached.routes.iter().map(route_json).collect());
    out.insert("dns".into(), json!({}));
    Value::Object(out).to_string()
}

/// Result of VERSION.
pub fn version_json(version: Version) -> String {
    let supported = Version::ALL.map(Version::as_str);
    json!({"cniVersion": version.as_str(), "supportedVersions": supported}).to_string()
}

fn interface_json(interface: &Interface, version: Version) -> Value {
    let mut out = json!({"name": interface.name, "mac": interface.mac});
    if version >= Version::V1_1_0 && interface.mtu > 0 {
        out["mtu"] = interface.mtu.into();
    }
    if let Some(sandbox) = &interface.sandbox {
        out["sandbox"] = sandbox.as_str().into();
    }
    out
}

fn ip_json(ip: &Ip, version: Version) -> Value {
    let mut out = json!({});
    if version < Version::V1_0_0 {
        out["version"] = if ip.address.addr().is_ipv4() { "4" } else { "6" }.into();
    }
    if let Some(interface) = ip.interface {
        out["interface"] = interface.into();
    }
    out["address"] = ip.address.to_string().into();
    if let Some(gateway) = ip.gateway {
        out["gateway"] = gateway.to_string().into();
    }
    out
}

fn route_json(route: &Route) -> Value {
    let mut out = json!({"dst": route.dst.to_string()});
    if let Some(gw) = route.gw {
        out["gw"] = gw.to_string().into();
    }
    out
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
