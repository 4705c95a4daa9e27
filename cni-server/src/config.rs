//! What is read of a network configuration (stdin) and of `CNI_ARGS`. Unknown keys are left alone, as the specification asks.
//! Pure; every failure is a [`CniError`] that names the key.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::attach::{Attached, Attachment, Interface, Ip, PodRef, Route};
use crate::error::{CniError, Code};
use crate::version::Version;

/// The keys of a network configuration that a plugin of ours needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetConf {
    #[serde(default)]
    pub name: String,
    pub prev_result: Option<PrevResult>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<WireAttachment>>,
    /// What SPEC.md 1.1.0 printed by mistake; libcni sends both.
    #[serde(rename = "cni.dev/attachments")]
    pub attachments: Option<Vec<WireAttachment>>,
}

/// Only the version: read first, since the rest is laid out by it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionOnly {
    cni_version: Option<String>,
}

/// A result as any version lays it out; 0.x only adds a `version` to each address.
#[derive(Debug, Deserialize)]
pub(crate) struct PrevResult {
    #[serde(default)]
    interfaces: Vec<WireInterface>,
    #[serde(default)]
    ips: Vec<WireIp>,
    #[serde(default)]
    routes: Vec<WireRoute>,
}

#[derive(Debug, Deserialize)]
struct WireInterface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    mtu: u32,
    sandbox: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WireIp {
    address: IpNet,
    gateway: Option<IpAddr>,
    interface: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct WireRoute {
    dst: IpNet,
    gw: Option<IpAddr>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Reads `cniVersion`.
///
/// # Errors
/// Code 6 when the text is no JSON object, 1 when the version is absent or not spoken.
pub(crate) fn parse_version(stdin: &str) -> Result<Version, CniError> {
    let conf: VersionOnly = serde_json::from_str(stdin).map_err(|e| undecodable(&e))?;
    let Some(text) = conf.cni_version else {
        return Err(CniError::new(Code::IncompatibleVersion, "the network configuration has no cniVersion")
            .details(format!("supported versions are {}", Version::supported())));
    };
    Version::parse(&text).ok_or_else(|| {
        CniError::new(Code::IncompatibleVersion, format!("CNI version {text:?} is not supported"))
            .details(format!("set cniVersion to one of {}", Version::supported()))
    })
}

/// Reads the rest of the configuration.
///
/// # Errors
/// Code 6 for what does not decode, 7 for an empty or malformed name.
pub(crate) fn parse_netconf(stdin: &str) -> Result<NetConf, CniError> {
    let conf: NetConf = serde_json::from_str(stdin).map_err(|e| undecodable(&e))?;
    let name_ok = conf.name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && conf.name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !name_ok {
        return Err(CniError::new(Code::InvalidConfig, format!("name {:?} is no network name", conf.name))
            .details("it must be letters, digits, '_', '.' or '-', beginning with a letter or digit"));
    }
    Ok(conf)
}

fn undecodable(e: &serde_json::Error) -> CniError {
    CniError::new(Code::Decode, "the network configuration on stdin does not decode").details(e.to_string())
}

impl From<PrevResult> for Attached {
    fn from(wire: PrevResult) -> Self {
        let interface = |i: WireInterface| Interface {
            name: i.name,
            mac: i.mac,
            mtu: i.mtu,
            sandbox: i.sandbox.filter(|s| !s.is_empty()),
        };
        Attached {
            interfaces: wire.interfaces.into_iter().map(interface).collect(),
            ips: wire
                .ips
                .into_iter()
                .map(|i| Ip { address: i.address, gateway: i.gateway, interface: i.interface })
                .collect(),
            routes: wire.routes.into_iter().map(|r| Route { dst: r.dst, gw: r.gw }).collect(),
        }
    }
}

impl From<WireAttachment> for Attachment {
    fn from(wire: WireAttachment) -> Self {
        Attachment { container_id: wire.container_id, ifname: wire.ifname }
    }
}

/// Reads the pod out of `CNI_ARGS` (`KEY=VALUE;KEY=VALUE`).
///
/// # Errors
/// Code 4 when namespace or name is missing or a pair has no `=`.
pub(crate) fn parse_pod(args: &str) -> Result<PodRef, CniError> {
    let mut keys = BTreeMap::new();
    for pair in args.split(';').filter(|p| !p.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| CniError::new(Code::InvalidEnvironment, format!("CNI_ARGS: {pair:?} is not KEY=VALUE")))?;
        keys.insert(key, value);
    }
    let need = |key: &str| {
        keys.get(key).filter(|v| !v.is_empty()).map(|v| (*v).to_owned()).ok_or_else(|| {
            CniError::new(Code::InvalidEnvironment, format!("CNI_ARGS has no {key}"))
                .details("this network attaches Kubernetes pods: the runtime must name the pod")
        })
    };
    Ok(PodRef { namespace: need("K8S_POD_NAMESPACE")?, name: need("K8S_POD_NAME")?, uid: need("K8S_POD_UID").ok() })
}
