//! Target: what the CNI shim sends, and what a runtime writes to its standard input.
//!
//! Promises: no panic; a rejection is JSON with the members that the specification demands, in a version that is spoken.

use ovenbird_cni_server::request::parse_request;
use serde_json::{Value, json};

/// Calls for ADD, CHECK and GC.
pub const SEEDS: &[&[u8]] =
    &[include_bytes!("../seeds/add.json"), include_bytes!("../seeds/check.json"), include_bytes!("../seeds/gc.json")];

/// Runs the target: the bytes as a call, and as the standard input of each command.
pub fn cni_input(bytes: &[u8]) {
    accepts(bytes);
    let text = String::from_utf8_lossy(bytes);
    for command in ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"] {
        let env = json!({
            "CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/a",
            "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
        });
        accepts(json!({ "env": env, "stdin": text }).to_string().as_bytes());
        accepts(json!({ "env": { "CNI_COMMAND": command, "CNI_ARGS": text }, "stdin": "{}" }).to_string().as_bytes());
    }
}

/// Whether the call is accepted.
pub fn accepts(call: &[u8]) -> bool {
    let Err(rejection) = parse_request(call) else { return true };
    let text = rejection.error.to_json(rejection.version);
    let error: Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!(error["cniVersion"], rejection.version.as_str(), "{text}");
    assert!(error["code"].is_u64() && error["msg"].is_string(), "{text}");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_accepted() {
        assert!(SEEDS.iter().all(|seed| accepts(seed)));
    }
}
