//! `ovenbird status network`: the network of this node as its Open_vSwitch has it: mode, tunnels to the other nodes, MTU, state, physical networks.
//!
//! ```text
//! Open_vSwitch --replica--> [read] --> Network --> text, JSON
//! ```
//!
//! Needs no daemon of ours. Must not: change anything.

mod read;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
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
    /// `overlay`, `nested`, `classic flow`, `classic stp` or `classic rstp`; none where no network of ours is.
    mode: Option<String>,
    /// The bridge that has the tunnels; in mode nested the VM's.
    bridge: String,
    /// In mode nested: the VM's port on its hypervisor, once the Node names it.
    parent: Option<String>,
    /// In mode nested: what leads from the bridge to the hypervisor.
    nics: Vec<String>,
    /// Own end of tunnels, where Open_vSwitch knows it.
    address: Option<String>,
    /// MTU of pods, in bytes.
    mtu: Option<i64>,
    /// Ports of pods, where it is Open vSwitch that has them; in mode nested each has a tag.
    pods: Option<usize>,
    peers: Vec<Peer>,
    /// What `ovn-bridge-mappings` names.
    physical: Vec<Physical>,
}

/// A physical network that the node is on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Physical {
    name: String,
    bridge: String,
    /// The bridge's ports to the outside; none where the bridge is not there.
    nics: Option<Vec<String>>,
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
    let network = read::network(&replica);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&network)?),
        Output::Text => print!("{}", text(&network)),
    }
    Ok(())
}

/// What is read.
fn columns() -> MonitorSpec {
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
    let ports = [port::NAME, port::INTERFACES, port::TAG, port::EXTERNAL_IDS, port::STATUS, port::RSTP_STATUS];
    MonitorSpec::new()
        .with(TableSpec::columns(&open_vswitch::TABLE, [open_vswitch::EXTERNAL_IDS]))
        .with(TableSpec::columns(&bridge::TABLE, [bridge::NAME, bridge::PORTS, bridge::EXTERNAL_IDS]))
        .with(TableSpec::columns(&port::TABLE, ports))
        .with(TableSpec::columns(&interface::TABLE, interfaces).index(interface::NAME))
}

async fn replicate(endpoints: Vec<Endpoint>) -> anyhow::Result<Replica> {
    let spec = columns();
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

fn text(network: &Network) -> String {
    let mut out = String::new();
    let Some(mode) = &network.mode else {
        return "no network of Ovenbird's: Open_vSwitch has neither OVN's settings nor a bridge of the classic network\n".into();
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "mode     {mode}");
    let _ = writeln!(out, "bridge   {}", network.bridge);
    let nested = mode == "nested";
    if nested {
        let _ = writeln!(out, "nic      {}", nics(Some(&network.nics)));
        let _ = writeln!(
            out,
            "parent   {}",
            network.parent.as_deref().unwrap_or("unknown: annotate the Node with ovenbird.io/parent-port")
        );
    }
    if let Some(address) = &network.address {
        let _ = writeln!(out, "address  {address}");
    }
    let mtu = network.mtu.map_or_else(|| "unknown".into(), |mtu| mtu.to_string());
    let _ = writeln!(out, "mtu      {mtu}");
    if let Some(pods) = network.pods {
        let _ = writeln!(out, "pods     {pods}");
    }
    if network.peers.is_empty() && !nested {
        out.push_str("\nno peers: it is the only node, or the others have not told their addresses\n");
    }
    let row = |peer: &Peer| {
        vec![peer.name.clone(), peer.address.clone(), peer.encap.clone(), mtu.clone(), peer.state.clone()]
    };
    table(&mut out, &["PEER", "ADDRESS", "ENCAP", "MTU", "STATE"], network.peers.iter().map(row).collect());
    let row =
        |physical: &Physical| vec![physical.name.clone(), physical.bridge.clone(), nics(physical.nics.as_deref())];
    table(&mut out, &["NETWORK", "BRIDGE", "NIC"], network.physical.iter().map(row).collect());
    out
}

fn nics(nics: Option<&[String]>) -> String {
    match nics {
        None => "the bridge is missing".to_owned(),
        Some([]) => "none in the bridge".to_owned(),
        Some(all) => all.join(", "),
    }
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
        let network = Network {
            mode: Some("classic flow".into()),
            bridge: "obr0".into(),
            parent: None,
            nics: Vec::new(),
            address: None,
            mtu: Some(1458),
            pods: None,
            peers,
            physical: Vec::new(),
        };
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
