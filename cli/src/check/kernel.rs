//! Where nodes enforce policies by nftables of their own (network mode classic): what a person does instead of asking ovn-trace.
//!
//! In: a decision. Out: a text with commands for the nodes, of which each can be run as it stands. Must not: run them: a packet has to be sent, and
//! that is not ours to do.

use std::net::IpAddr;

use ovenbird_topology::check::answer::{Decision, Path};

/// Table that the commands make.
const TABLE: &str = "inet ovenbird-ask";

/// What `--live` says instead of an answer.
pub fn instead(decision: &Decision) -> String {
    let rules: Vec<String> = decision.paths.iter().map(|path| rule(path, decision.port.as_deref())).collect();
    format!(
        "--live follows a packet through OVN, and in network mode classic there is none: each node judges by nftables of its own. Leave --live out \
         for what the policies say. To see what the kernel does, on the nodes of both ends:\n  \
         nft 'add table {TABLE}; add chain {TABLE} packets {{ type filter hook prerouting priority -350; }}; {}'\n  \
         nft monitor trace        # and send it: what is said of inet ovenbird-policy is the verdict\n  \
         nft delete table {TABLE}",
        rules.join("; ")
    )
}

fn rule(path: &Path, port: Option<&str>) -> String {
    let ip = if path.source.is_ipv4() { "ip" } else { "ip6" };
    let (source, destination) = (path.source, path.destination);
    let what = asked(path, port, source);
    format!("add rule {TABLE} packets {ip} saddr {source} {ip} daddr {destination} {what}meta nftrace set 1")
}

/// The match of what was asked for; none where a port has but a name here.
fn asked(path: &Path, port: Option<&str>, source: IpAddr) -> String {
    let microflow = path.microflow.as_ref().and_then(|flow| Some((flow.protocol.clone(), flow.port?)));
    let number = || {
        let (protocol, number) = port?.split_once('/')?;
        Some((protocol.to_owned(), number.parse().ok()?))
    };
    match microflow.or_else(number) {
        Some((protocol, number)) => format!("{protocol} dport {number} "),
        None if port == Some("icmp") && source.is_ipv4() => "meta l4proto icmp ".to_owned(),
        None if port == Some("icmp") => "meta l4proto ipv6-icmp ".to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_path_has_its_rule() {
        let decision: Decision = serde_json::from_value(json!({
            "verdict": "denied", "source": "web/a", "destination": "db/b", "port": "tcp/80", "notes": [], "enforced_by": "nodes",
            "paths": [
                {"source": "10.244.0.3", "destination": "10.244.1.4", "verdict": "denied", "passes": [], "judgements": []},
                {"source": "fd00::3", "destination": "fd00::1:4", "verdict": "denied", "passes": [], "judgements": []},
            ],
        }))
        .unwrap();
        let text = instead(&decision);
        assert!(
            text.contains("packets ip saddr 10.244.0.3 ip daddr 10.244.1.4 tcp dport 80 meta nftrace set 1; "),
            "{text}"
        );
        assert!(
            text.contains("packets ip6 saddr fd00::3 ip6 daddr fd00::1:4 tcp dport 80 meta nftrace set 1'"),
            "{text}"
        );
        let port = |port| asked(&decision.paths[1], Some(port), decision.paths[1].source);
        assert_eq!((port("icmp"), port("tcp/web")), ("meta l4proto ipv6-icmp ".into(), String::new()));
    }
}
