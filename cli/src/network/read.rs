//! What Open_vSwitch says of the node's network.
//!
//! | mode | known by | pods |
//! |---|---|---|
//! | overlay | OVN's settings and br-int | its ports with a sandbox |
//! | nested | the management port, which has a tag | ports with a sandbox, beside it |
//! | classic | the mark of the bridge with the tunnels | not in Open vSwitch |
//!
//! Must not: ask anybody else.

use ovenbird_api::name::{INTEGRATION_BRIDGE, MANAGEMENT_INTERFACE};
use ovenbird_api::{annotation, mark};
use ovenbird_schema::vswitch::{bridge, interface, open_vswitch, port};
use ovsdb::Replica;

use super::{Network, Peer, Physical};

/// An interface with its port.
type Link<'a> = (port::Ref<'a>, interface::Ref<'a>);

/// The answer.
pub(super) fn network(replica: &Replica) -> Network {
    let root = replica.rows(&open_vswitch::TABLE).next().map(|(_, row)| open_vswitch::Ref(row));
    let setting = |key| root.and_then(|r| r.external_ids().get(key)).map(str::to_owned);
    let bridges = || replica.rows(&bridge::TABLE).map(|(_, row)| bridge::Ref(row));
    let marked = bridges().find_map(|b| Some((b, b.external_ids().get(mark::NETWORK)?.to_owned())));
    let trunk = || bridges().find(|b| links(replica, *b).iter().any(is_tagged_host)).map(|b| (b, "nested".to_owned()));
    let overlay = || bridges().find(|b| b.name() == INTEGRATION_BRIDGE && setting("ovn-remote").is_some());
    let found = marked.or_else(trunk).or_else(|| overlay().map(|b| (b, "overlay".to_owned())));
    let (bridge, mode) = found.unzip();
    let (nested, classic) =
        (mode.as_deref() == Some("nested"), mode.as_deref().is_some_and(|mode| mode.starts_with("classic")));
    let all = bridge.map(|bridge| links(replica, bridge)).unwrap_or_default();
    let mut peers: Vec<Peer> = all.iter().flat_map(|(port, link)| peers_by(bridge, *port, *link)).collect();
    peers.sort();
    let host = all.iter().find(|(_, link)| link.name() == MANAGEMENT_INTERFACE).map(|(_, link)| *link);
    let parent = host.and_then(|link| link.external_ids().get(annotation::PARENT_PORT)).map(str::to_owned);
    let is_pod = |(_, link): &&Link<'_>| link.external_ids().get("sandbox").is_some();
    Network {
        bridge: bridge.map(|b| b.name().to_owned()).unwrap_or_default(),
        parent,
        nics: bridge.filter(|_| nested).map(|bridge| nics(replica, bridge)).unwrap_or_default(),
        address: setting("ovn-encap-ip").filter(|_| !classic && !nested),
        mtu: bridge.and_then(|bridge| mtu(bridge, &all)),
        pods: (mode.is_some() && !classic).then(|| all.iter().filter(is_pod).count()),
        physical: physical(replica, &setting("ovn-bridge-mappings").unwrap_or_default()),
        mode,
        peers,
    }
}

/// All interfaces of a bridge.
fn links<'a>(replica: &'a Replica, bridge: bridge::Ref<'a>) -> Vec<Link<'a>> {
    let ports = bridge.ports().filter_map(|uuid| replica.row(&port::TABLE, &uuid)).map(port::Ref);
    let of = |port: port::Ref<'a>| {
        let rows = port.interfaces().filter_map(|uuid| replica.row(&interface::TABLE, &uuid));
        rows.map(move |row| (port, interface::Ref(row))).collect::<Vec<_>>()
    };
    ports.flat_map(of).collect()
}

fn is_tagged_host((port, link): &Link<'_>) -> bool {
    link.name() == MANAGEMENT_INTERFACE && port.tag().is_some()
}

/// MTU of pods: that of the management port of OVN's network; of what joins the classic network's two bridges, which is the bridge's own port where no
/// other is there for it.
fn mtu(bridge: bridge::Ref<'_>, all: &[Link<'_>]) -> Option<i64> {
    let plain = || all.iter().map(|(_, link)| *link).filter(|link| link.options().get("remote_ip").is_none());
    let host = plain().find(|link| link.name() == MANAGEMENT_INTERFACE);
    let between = || plain().find(|link| link.name() != bridge.name() && link.external_ids().get("sandbox").is_none());
    let own = || plain().find(|link| link.name() == bridge.name());
    host.or_else(between).or_else(own)?.mtu()
}

fn physical(replica: &Replica, mappings: &str) -> Vec<Physical> {
    let bridges = || replica.rows(&bridge::TABLE).map(|(_, row)| bridge::Ref(row));
    let of = |(name, on): (&str, &str)| {
        let found = bridges().find(|b| b.name() == on).map(|bridge| nics(replica, bridge));
        Physical { name: name.to_owned(), bridge: on.to_owned(), nics: found }
    };
    let mut all: Vec<_> = mappings.split(',').filter_map(|one| one.trim().split_once(':')).map(of).collect();
    all.sort();
    all
}

/// What leads out of a bridge: the kernel's interfaces that are no pod's.
fn nics(replica: &Replica, bridge: bridge::Ref<'_>) -> Vec<String> {
    let is_nic = |(_, link): &Link<'_>| {
        matches!(link.type_(), "" | "system")
            && link.name() != bridge.name()
            && link.external_ids().get("sandbox").is_none()
    };
    let mut names: Vec<_> =
        links(replica, bridge).iter().filter(|link| is_nic(link)).map(|(_, l)| l.name().to_owned()).collect();
    names.sort();
    names
}

/// The other ends of an interface, if it is a tunnel.
fn peers_by(bridge: Option<bridge::Ref<'_>>, port: port::Ref<'_>, link: interface::Ref<'_>) -> Vec<Peer> {
    match link.options().get("remote_ip") {
        Some("flow") => steered(bridge, link),
        Some(remote) => vec![peer(port, link, remote)],
        None => Vec::new(),
    }
}

/// The other end of a tunnel that has a port of its own.
fn peer(port: port::Ref<'_>, link: interface::Ref<'_>, remote: &str) -> Peer {
    // ovn-controller(8): CHASSIS@ADDRESS.
    let chassis = port.external_ids().get("ovn-chassis-id").map(|id| id.split('@').next().unwrap_or(id));
    let name = link.external_ids().get(mark::PEER).or(chassis).unwrap_or("?");
    let tree = port.status().get("stp_state").or(port.rstp_status().get("rstp_port_state"));
    let state = match (trouble(link), tree) {
        (Some(trouble), _) => trouble,
        (None, Some(tree)) => format!("up, {}", tree.to_lowercase()),
        (None, None) => match (link.bfd_status().get("state"), link.status().get("tunnel_egress_iface")) {
            (Some(bfd), _) if bfd != "up" => format!("down: BFD says {bfd}"),
            (_, Some(by)) => format!("up by {by}"),
            (_, None) => "no route to it".into(),
        },
    };
    Peer { name: name.into(), address: remote.into(), encap: link.type_().into(), state }
}

/// The other ends of a tunnel that flows steer: `NODE=ADDRESS` of the bridge's mark.
fn steered(bridge: Option<bridge::Ref<'_>>, link: interface::Ref<'_>) -> Vec<Peer> {
    let peers = bridge.and_then(|b| b.external_ids().get(mark::PEERS)).unwrap_or_default().split_whitespace();
    let state = trouble(link).unwrap_or_else(|| "up by flows".into());
    let of = |(name, address): (&str, &str)| Peer {
        name: name.into(),
        address: address.into(),
        encap: link.type_().into(),
        state: state.clone(),
    };
    peers.filter_map(|text| text.split_once('=')).map(of).collect()
}

/// What vswitchd complains of.
fn trouble(link: interface::Ref<'_>) -> Option<String> {
    let missing =
        || link.ofport().is_none_or(|port| port <= 0).then(|| "down: ovs-vswitchd has made no port".to_owned());
    link.error().map(|error| format!("down: {error}")).or_else(missing)
}

#[cfg(test)]
mod tests {
    use ovenbird_schema::vswitch::DATABASE;
    use ovsdb::Update;
    use serde_json::{Value, json};

    use super::super::{columns, text};
    use super::*;

    /// Name, tag, and columns of the interface.
    type Port<'a> = (&'a str, Option<u16>, Value);

    /// Bridges with their external_ids and ports.
    fn replica(settings: &Value, bridges: &[(&str, Value, &[Port<'_>])]) -> Replica {
        let uuid = |n: usize| format!("00000000-0000-4000-8000-{n:012}");
        let map = |value: &Value| {
            let pairs = value.as_object().into_iter().flatten().map(|(key, value)| json!([key, value]));
            json!(["map", pairs.collect::<Vec<_>>()])
        };
        let mut tables = json!({"Open_vSwitch": {uuid(1): {"initial": {"external_ids": map(settings)}}}});
        let mut next = 10;
        for (name, ids, ports) in bridges {
            let mut members = Vec::new();
            for (port, tag, columns) in *ports {
                let (port_id, link_id) = (uuid(next), uuid(next + 1));
                next += 2;
                let mut link = json!({"name": port, "ofport": 1});
                for (key, value) in columns.as_object().into_iter().flatten() {
                    link[key] = if value.is_object() { map(value) } else { value.clone() };
                }
                let mut row = json!({"name": port, "interfaces": ["uuid", link_id]});
                if let Some(tag) = tag {
                    row["tag"] = json!(tag);
                }
                tables["Port"][&port_id] = json!({"initial": row});
                tables["Interface"][&link_id] = json!({"initial": link});
                members.push(json!(["uuid", port_id]));
            }
            let row = json!({"name": name, "external_ids": map(ids), "ports": ["set", members]});
            tables["Bridge"][uuid(next)] = json!({"initial": row});
            next += 1;
        }
        let mut replica = Replica::new(&DATABASE, &columns());
        replica.apply(&Update::from_text(&tables.to_string()).into_reset(), &mut Vec::new()).unwrap();
        replica
    }

    fn shows(replica: &Replica, want: &str) {
        let network = network(replica);
        assert_eq!(text(&network), want, "{network:#?}");
    }

    #[test]
    fn a_vm() {
        let pod = json!({"external_ids": {"sandbox": "s"}});
        let host = json!({"type": "internal", "mtu": 1400, "external_ids": {annotation::PARENT_PORT: "vif-vm1"}});
        let ports = [
            ("breth0", None, json!({"type": "internal", "mtu": 1500})),
            ("ovn-k8s-mp0", Some(1), host),
            ("eth0", None, json!({})),
            ("ov0123456789ab", Some(2), pod.clone()),
            ("ov0123456789ac", Some(3), pod),
        ];
        let replica = replica(&json!({}), &[("breth0", json!({}), &ports)]);
        shows(
            &replica,
            "mode     nested\nbridge   breth0\nnic      eth0\nparent   vif-vm1\nmtu      1400\npods     2\n",
        );
        let shown = serde_json::to_value(network(&replica)).unwrap();
        assert_eq!(
            (&shown["mode"], &shown["parent"], &shown["pods"]),
            (&json!("nested"), &json!("vif-vm1"), &json!(2))
        );
    }

    #[test]
    fn physical_networks_beside_the_overlay() {
        let settings = json!({
            "ovn-remote": "tcp:172.30.0.1:6642", "ovn-encap-ip": "172.30.0.11",
            "ovn-bridge-mappings": "physnet:br-ex,fabric:breth1,lab:br-lab,far:br-gone",
        });
        let tunnel = json!({
            "type": "geneve", "options": {"remote_ip": "172.30.0.12"}, "status": {"tunnel_egress_iface": "br-ex"},
        });
        let integration = [("ovn-k8s-mp0", None, json!({"type": "internal", "mtu": 1442})), ("ovn-2", None, tunnel)];
        let own = |name| (name, None, json!({"type": "internal"}));
        let patch = ("patch-br-ex", None, json!({"type": "patch"}));
        let bridges = [
            ("br-int", json!({}), &integration[..]),
            ("br-ex", json!({}), &[own("br-ex"), patch, ("eth0", None, json!({}))][..]),
            ("breth1", json!({}), &[own("breth1"), ("eth1", None, json!({"type": "system"}))][..]),
            ("br-lab", json!({}), &[own("br-lab")][..]),
        ];
        let want = "\
mode     overlay
bridge   br-int
address  172.30.0.11
mtu      1442
pods     0

PEER  ADDRESS      ENCAP   MTU   STATE
?     172.30.0.12  geneve  1442  up by br-ex

NETWORK  BRIDGE   NIC
fabric   breth1   eth1
far      br-gone  the bridge is missing
lab      br-lab   none in the bridge
physnet  br-ex    eth0
";
        shows(&replica(&settings, &bridges), want);
    }

    #[test]
    fn the_classic_network_under_other_names() {
        let ids = json!({mark::NETWORK: "classic flow", mark::PEERS: "node2=172.30.0.12"});
        let tunnel = || ("gre0", None, json!({"type": "gre", "options": {"remote_ip": "flow"}}));
        let own = || ("ob1", None, json!({"type": "internal", "mtu": 1500}));
        let between = ("tun7", None, json!({"type": "internal", "mtu": 1458}));
        let of = |ports: &[Port<'_>]| network(&replica(&json!({}), &[("ob1", ids.clone(), ports)]));
        let (by_port, by_bridge) = (of(&[tunnel(), own(), between]), of(&[tunnel(), own()]));
        assert_eq!((by_port.mtu, by_bridge.mtu), (Some(1458), Some(1500)));
        assert_eq!((by_port.pods, &*by_port.peers[0].name), (None, "node2"));
    }

    #[test]
    fn nothing_of_ours() {
        let text = text(&network(&replica(&json!({}), &[("br0", json!({}), &[])])));
        assert!(text.starts_with("no network of Ovenbird's"), "{text}");
    }
}
