//! `ovenbird status network`: the network of this node as its Open_vSwitch has it: mode, tunnels to the other nodes, MTU, state.
//!
//! ```text
//! Open_vSwitch --replica--> mode (OVN's settings, or the classic bridge's mark) --> peers (tunnel interfaces; the mark, where flows steer one)
//! ```
//!
//! Needs no daemon of ours. Must not: change anything.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use ovenbird_api::mark;
use ovenbird_schema::vswitch::{DATABASE, bridge, interface, open_vswitch, port};
use ovsdb::{Client, Config, Endpoint, Event, MonitorSpec, Replica, TableSpec};
use serde::Serialize;

use crate::admin::{Output, runtime};
use crate::table::table;

/// How long Open_vSwitch may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  On a node:
    ovenbird status network
  Of an Open_vSwitch elsewhere, for a program:
    ovenbird status network --ovs-address tcp:10.0.0.7:6640 --output json";

/// Show this node's network: mode, peers with their encapsulation, MTU and state.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Open_vSwitch of the node.
    #[arg(long, env = "OVENBIRD_OVS_ADDRESS", default_value = "unix:/run/openvswitch/db.sock", value_name = "ADDRESS")]
    ovs_address: String,
    /// Tables for people, or JSON for programs.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Network {
    /// `overlay`, `classic flow`, `classic stp` or `classic rstp`; none where no network of ours is.
    mode: Option<String>,
    /// The bridge that has the tunnels.
    bridge: String,
    /// Own end of tunnels, where Open_vSwitch knows it.
    address: Option<String>,
    /// MTU of pods, in bytes.
    mtu: Option<i64>,
    peers: Vec<Peer>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Peer {
    name: String,
    address: String,
    encap: String,
    /// `up ...`, or what is wrong.
    state: String,
}

/// Runs the command.
///
/// # Errors
/// When Open_vSwitch does not answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let endpoints = Endpoint::parse_list(&args.ovs_address).context("--ovs-address")?;
    let replica = runtime()?.block_on(async {
        let read = tokio::time::timeout(PATIENCE, replicate(endpoints));
        let advice =
            || format!("no answer from {}; is ovsdb-server running, and are you root on a node?", args.ovs_address);
        read.await.with_context(advice)?.with_context(advice)
    })?;
    let network = read(&replica);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&network)?),
        Output::Text => print!("{}", text(&network)),
    }
    Ok(())
}

async fn replicate(endpoints: Vec<Endpoint>) -> anyhow::Result<Replica> {
    let interfaces = [
        interface::NAME,
        interface::TYPE,
        interface::OPTIONS,
        interface::OFPORT,
        interface::ERROR,
        interface::STATUS,
        interface::BFD_STATUS,
        interface::MTU,
        interface::EXTERNAL_IDS,
    ];
    let ports = [port::NAME, port::INTERFACES, port::EXTERNAL_IDS, port::STATUS, port::RSTP_STATUS];
    let spec = MonitorSpec::new()
        .with(TableSpec::columns(&open_vswitch::TABLE, [open_vswitch::EXTERNAL_IDS]))
        .with(TableSpec::columns(&bridge::TABLE, [bridge::NAME, bridge::PORTS, bridge::EXTERNAL_IDS]))
        .with(TableSpec::columns(&port::TABLE, ports))
        .with(TableSpec::columns(&interface::TABLE, interfaces).index(interface::NAME));
    let mut replica = Replica::new(&DATABASE, &spec);
    let (handle, mut events) = Client::spawn(Config::new(endpoints), &DATABASE, spec);
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected(server) => replica.set_server(&server),
            Event::Update(update) => {
                replica.apply(&update, &mut Vec::new()).context("reading the answer")?;
                handle.shutdown();
                return Ok(replica);
            }
            Event::Disconnected(error) => bail!("{error}"),
            _ => {}
        }
    }
    bail!("the connection has ended")
}

fn read(replica: &Replica) -> Network {
    let root = replica.rows(&open_vswitch::TABLE).next().map(|(_, row)| open_vswitch::Ref(row));
    let setting = |key| root.and_then(|r| r.external_ids().get(key)).map(str::to_owned);
    let bridges = || replica.rows(&bridge::TABLE).map(|(_, row)| bridge::Ref(row));
    let classic = bridges().find_map(|b| Some((b, b.external_ids().get(mark::NETWORK)?)));
    let overlay = || bridges().find(|b| b.name() == "br-int" && setting("ovn-remote").is_some());
    let (bridge, mode) = match classic {
        Some((bridge, mode)) => (Some(bridge), Some(mode.to_owned())),
        None => (overlay(), overlay().map(|_| "overlay".to_owned())),
    };
    let ports = bridge.into_iter().flat_map(|b| b.ports()).filter_map(|uuid| replica.row(&port::TABLE, &uuid));
    let mut mtu = None;
    let mut peers = Vec::new();
    for port in ports.map(port::Ref) {
        for link in port.interfaces().filter_map(|uuid| replica.row(&interface::TABLE, &uuid)).map(interface::Ref) {
            match link.options().get("remote_ip") {
                Some("flow") => peers.extend(steered(bridge, link)),
                Some(remote) => peers.push(peer(port, link, remote)),
                // The management port of OVN's network; what joins the two bridges of the classic one.
                None if ["ovn-k8s-mp0", "tun0", "obr0"].contains(&link.name()) => mtu = mtu.or(link.mtu()),
                None => {}
            }
        }
    }
    peers.sort();
    Network {
        mode,
        bridge: bridge.map(|b| b.name().to_owned()).unwrap_or_default(),
        address: setting("ovn-encap-ip").filter(|_| classic.is_none()),
        mtu,
        peers,
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

fn text(network: &Network) -> String {
    let mut out = String::new();
    let Some(mode) = &network.mode else {
        return "no network of Ovenbird's: Open_vSwitch has neither OVN's settings nor a bridge of the classic network\n".into();
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "mode     {mode}");
    let _ = writeln!(out, "bridge   {}", network.bridge);
    if let Some(address) = &network.address {
        let _ = writeln!(out, "address  {address}");
    }
    let mtu = network.mtu.map_or_else(|| "unknown".into(), |mtu| mtu.to_string());
    let _ = writeln!(out, "mtu      {mtu}");
    if network.peers.is_empty() {
        out.push_str("\nno peers: it is the only node, or the others have not told their addresses\n");
    }
    let row = |peer: &Peer| {
        vec![peer.name.clone(), peer.address.clone(), peer.encap.clone(), mtu.clone(), peer.state.clone()]
    };
    table(&mut out, &["PEER", "ADDRESS", "ENCAP", "MTU", "STATE"], network.peers.iter().map(row).collect());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let peer = |name: &str, address: &str, state: &str| Peer {
            name: name.into(),
            address: address.into(),
            encap: "gre".into(),
            state: state.into(),
        };
        let peers =
            vec![peer("node2", "172.30.0.12", "up by flows"), peer("n3", "172.30.0.113", "down: no such device")];
        let network =
            Network { mode: Some("classic flow".into()), bridge: "obr0".into(), address: None, mtu: Some(1458), peers };
        let expected = "\
mode     classic flow
bridge   obr0
mtu      1458

PEER   ADDRESS       ENCAP  MTU   STATE
node2  172.30.0.12   gre    1458  up by flows
n3     172.30.0.113  gre    1458  down: no such device
";
        assert_eq!(text(&network), expected);
    }
}
