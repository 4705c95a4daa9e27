//! The external bridge's OpenFlow, by which host and gateway router share one MAC and one set of addresses. Pure.
//!
//! ```text
//!            wire (uplink)                table 0: in_port decides             table 1: whose connection (ct_mark)
//!      ARP/ND |        | IP to MAC   ---> replies to ARP/ND: both              1: OVN, to the patch port
//!             v        v                  IP: ct(zone 64000) ------------->    2: host, to LOCAL
//!   LOCAL <--- br-ex ---> patch port      from OVN: ct_mark 1, to the wire     new: LOCAL
//!   (host)               (GR_node)        from the host: ct_mark 2, to the wire
//!
//!   host (as .2, nftables sees to it) -> Service: to OVN         OVN -> own host: .2 is its address, SNAT .1 (64002) -> 3: LOCAL
//!   its replies: OVN -> .2: to LOCAL                             its replies: LOCAL -> unSNAT (64002) -> 4: from .2, to OVN
//! ```
//!
//! Frames of a VLAN that a physical network has (`physical`) are none of this: they are switched as on a bridge without flows.
//!
//! Zones, marks and cookie are those of ovn-kubernetes. While no patch port is known the bridge is a plain switch but for one flow: what
//! comes by the wire to the shared MAC is the host's, however often the gateway router has said that it has the MAC. Tunnels end there.
//! Must not: run anything (`openflow`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::{GatewayMode, Mac, Masquerade};

use super::discover::Gateway;
use super::physical::Physical;
use super::services::{Protocol, Served};

/// Marks our flows.
const COOKIE: &str = "0xdeff105";
/// Zone of connections over the wire.
const ZONE_WIRE: u16 = 64000;
/// Zone in which OVN is masqueraded towards the host.
const ZONE_OVN: u16 = 64002;
/// Zone in which fragments are put together.
const ZONE_FRAGMENTS: u16 = 64004;

/// All that the flows depend on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The gateway.
    pub gateway: &'a Gateway,
    /// Addresses between host and OVN.
    pub masquerade: &'a Masquerade,
    /// Service networks.
    pub service_cidrs: &'a [IpNet],
    /// Networks of this node's pods.
    pub node_subnets: &'a [IpNet],
    /// UDP port of tunnels.
    pub tunnel_port: u16,
    /// NodePorts are served on addresses in these; empty for all.
    pub node_port_addresses: &'a [IpNet],
    /// ARP and neighbour discovery are answered for the external addresses of Services.
    pub answer_external: bool,
    /// What Services are entered by.
    pub served: &'a Served,
    /// What physical networks have of the bridge.
    pub physical: &'a Physical,
}

/// The flows, one text each as ovs-ofctl(8) reads them, sorted.
pub fn flows(facts: &Facts<'_>) -> BTreeSet<String> {
    let mut flows = Flows::default();
    flows.add(0, 0, "", "NORMAL");
    switch_physical(&mut flows, facts.physical);
    let Some(patch) = facts.gateway.patch else {
        flows.add(
            0,
            10,
            format!("{},dl_dst={}", from_wire(facts.gateway), facts.gateway.l3.mac),
            to_host(facts.gateway),
        );
        return flows.0;
    };
    let ports = Ports::new(facts.gateway, patch);
    share_wire(&mut flows, &ports, facts);
    answer_neighbours(&mut flows, &ports, facts);
    for v4 in [true, false] {
        if facts.gateway.l3.address(v4).is_some() {
            dispatch(&mut flows, &ports, facts, Family(v4));
            host_and_services(&mut flows, &ports, facts, Family(v4));
        }
    }
    services_from_wire(&mut flows, &ports, facts);
    flows.0
}

/// What comes in by the wire.
fn from_wire(gateway: &Gateway) -> String {
    format!("in_port={}{}", gateway.uplink, tag(gateway))
}

/// The tag that the wire and the patch port carry.
fn tag(gateway: &Gateway) -> String {
    gateway.l3.vlan.map(|tag| format!(",dl_vlan={tag}")).unwrap_or_default()
}

/// To the host, which has no tag.
fn to_host(gateway: &Gateway) -> &'static str {
    if gateway.l3.vlan.is_some() { "pop_vlan,LOCAL" } else { "LOCAL" }
}

/// VLANs of physical networks, before all that is about the shared MAC.
fn switch_physical(flows: &mut Flows, physical: &Physical) {
    for vlan in &physical.vlans {
        flows.add(0, 600, format!("dl_vlan={vlan}"), "NORMAL");
    }
    for port in &physical.shut {
        flows.add(0, 610, format!("in_port={port}"), "drop");
    }
}

#[derive(Default)]
struct Flows(BTreeSet<String>);

impl Flows {
    fn add(&mut self, table: u8, priority: u16, of: impl AsRef<str>, actions: impl AsRef<str>) {
        let (of, actions) = (of.as_ref(), actions.as_ref());
        let comma = if of.is_empty() { "" } else { "," };
        self.0.insert(format!("cookie={COOKIE},table={table},priority={priority}{comma}{of} actions={actions}"));
    }
}

/// Matches and actions for the three ports. On a tagged uplink the wire and the patch port carry the tag, the host does not.
struct Ports {
    from_wire: String,
    from_patch: String,
    /// Packets that have come from the wire or the patch port.
    tagged: String,
    mac: String,
    wire: String,
    wire_from_host: String,
    patch: String,
    patch_from_host: String,
    host: &'static str,
}

impl Ports {
    fn new(gateway: &Gateway, patch: u16) -> Ports {
        let (uplink, vlan) = (gateway.uplink, gateway.l3.vlan);
        let tagged = tag(gateway);
        // Bit 12 says that there is a tag (OpenFlow 1.3, OFPVID_PRESENT).
        let push =
            vlan.map(|tag| format!("push_vlan:0x8100,set_field:{}->vlan_vid,", tag | 0x1000)).unwrap_or_default();
        Ports {
            from_wire: from_wire(gateway),
            from_patch: format!("in_port={patch}{tagged}"),
            tagged,
            mac: gateway.l3.mac.to_string(),
            wire: format!("output:{uplink}"),
            wire_from_host: format!("{push}output:{uplink}"),
            patch: format!("output:{patch}"),
            patch_from_host: format!("{push}output:{patch}"),
            host: to_host(gateway),
        }
    }
}

/// An address family's words.
#[derive(Clone, Copy)]
struct Family(bool);

impl Family {
    fn of(address: IpAddr) -> Family {
        Family(address.is_ipv4())
    }

    fn ip(self) -> &'static str {
        if self.0 { "ip" } else { "ipv6" }
    }

    fn dst(self) -> &'static str {
        if self.0 { "nw_dst" } else { "ipv6_dst" }
    }

    fn src(self) -> &'static str {
        if self.0 { "nw_src" } else { "ipv6_src" }
    }

    fn transport(self, protocol: Protocol) -> String {
        format!("{}{}", protocol.name(), if self.0 { "" } else { "6" })
    }

    /// An address in an action.
    fn text(address: IpAddr) -> String {
        if address.is_ipv4() { address.to_string() } else { format!("[{address}]") }
    }

    fn own(self, nets: &[IpNet]) -> impl Iterator<Item = &IpNet> {
        nets.iter().filter(move |net| net.addr().is_ipv4() == self.0)
    }
}

/// Frames that are not about a connection: who may send with the shared MAC, and who gets what is sent to it.
fn share_wire(flows: &mut Flows, p: &Ports, facts: &Facts<'_>) {
    let mac = &p.mac;
    // Tunnels end at the host; tracking their packets would cost and gain nothing.
    for udp in ["udp", "udp6"] {
        let port = facts.tunnel_port;
        flows.add(0, 205, format!("{},{udp},tp_dst={port}", p.from_wire), p.host);
        flows.add(0, 200, format!("in_port=LOCAL,{udp},tp_dst={port}"), &p.wire_from_host);
    }
    flows.add(0, 10, format!("{},dl_dst={mac}", p.from_wire), format!("{},{}", p.patch, p.host));
    flows.add(0, 10, format!("{},dl_src={mac}", p.from_patch), "NORMAL");
    flows.add(0, 9, p.from_patch.split(',').next().unwrap_or_default(), "drop");
    flows.add(1, 10, format!("dl_dst={mac}{}", p.tagged), p.host);
    flows.add(1, 0, "", "NORMAL");
}

/// ARP and neighbour discovery: the host alone answers for the shared addresses, and both see the answers to their own questions.
fn answer_neighbours(flows: &mut Flows, p: &Ports, facts: &Facts<'_>) {
    let mac = &p.mac;
    for address in &facts.gateway.l3.addresses {
        let about = match address.addr() {
            IpAddr::V4(v4) => format!("arp,arp_op=1,arp_tpa={v4}"),
            IpAddr::V6(v6) => format!("icmp6,icmp_type=135,nd_target={v6}"),
        };
        flows.add(0, 51, format!("{},{about}", p.from_wire), p.host);
    }
    // Ports of pods are served at the host's own addresses, for which the host answers.
    let own = |vip: &IpAddr| vip.is_loopback() || facts.gateway.l3.addresses.iter().any(|a| a.addr() == *vip);
    let vips = facts.served.vips.keys().map(|(vip, ..)| *vip).filter(|vip| facts.answer_external && !own(vip));
    for vip in vips.collect::<BTreeSet<_>>() {
        let (about, answer) = answer_for(vip, mac);
        let answer = format!("move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:{mac}->eth_src,{answer}");
        flows.add(0, 51, format!("{},{about}", p.from_wire), answer);
    }
    if facts.answer_external {
        flows.add(6, 100, "icmp6,icmp_type=136", format!("set_field:{mac}->nd_tll,IN_PORT"));
    }
    // Router and neighbour advertisements.
    for kind in [134, 136] {
        let of = format!("{},dl_dst={mac},icmp6,icmp_type={kind}", p.from_wire);
        flows.add(0, 51, of, format!("{},{}", p.patch, p.host));
    }
}

/// Who asks for an address, and how the question is made its answer (RFC 826; RFC 4861 section 4.4, solicited and override).
fn answer_for(address: IpAddr, mac: &str) -> (String, String) {
    match address {
        IpAddr::V4(v4) => (
            format!("arp,arp_op=1,arp_tpa={v4}"),
            format!(
                "set_field:2->arp_op,move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:{mac}->arp_sha,\
                 move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],set_field:{v4}->arp_spa,IN_PORT"
            ),
        ),
        IpAddr::V6(v6) => (
            format!("icmp6,icmp_type=135,icmp_code=0,nd_target={v6}"),
            // The option with the asker's MAC becomes one for ours, which table 6 writes: only an answer has it.
            format!(
                "move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],set_field:{v6}->ipv6_src,\
                 set_field:2->nd_options_type,set_field:0x60000000->nd_reserved,set_field:136->icmpv6_type,resubmit(,6)"
            ),
        ),
    }
}

/// Connections over the wire are marked with whose they are when they leave, and found by that when their replies come.
fn dispatch(flows: &mut Flows, p: &Ports, facts: &Facts<'_>, family: Family) {
    let (mac, ip) = (&p.mac, family.ip());
    let leave = |mark: u8, port: &str| format!("ct(commit,zone={ZONE_WIRE},exec(set_field:{mark}->ct_mark)),{port}");
    flows.add(0, 100, format!("{},dl_src={mac},{ip}", p.from_patch), leave(1, &p.wire));
    flows.add(0, 100, format!("in_port=LOCAL,dl_src={mac},{ip}"), leave(2, &p.wire_from_host));
    flows.add(0, 50, format!("{},dl_dst={mac},{ip}", p.from_wire), format!("ct(zone={ZONE_WIRE},table=1)"));
    for state in ["est", "rel"] {
        let of = |mark: u8| format!("ct_state=+trk+{state},ct_mark={mark},{ip}{}", p.tagged);
        flows.add(1, 100, of(1), &p.patch);
        flows.add(1, 100, of(2), p.host);
    }
    // Pods that are reached by their own addresses answer by the gateway router, so that is the way in, too. In mode local both are the
    // host's, as for whatever is new.
    let by_router = facts.gateway.l3.mode == GatewayMode::Shared;
    for subnet in family.own(facts.node_subnets).filter(|_| by_router) {
        flows.add(1, 15, format!("{ip},{}={}{}", family.dst(), subnet.trunc(), p.tagged), &p.patch);
    }
}

/// Between the host and OVN: the host to Services, and Services to the host. Both have the same address, so each is masqueraded.
///
/// What ovn-controller answers itself (that a Service has no endpoint) Open vSwitch does not look up anew once it has crossed a patch port:
/// the way back to the host is a flow without conntrack.
fn host_and_services(flows: &mut Flows, p: &Ports, facts: &Facts<'_>, family: Family) {
    let (v4, ip, src, dst, mac) = (family.0, family.ip(), family.src(), family.dst(), &p.mac);
    let (host, ovn) = (facts.masquerade.host(v4), facts.masquerade.ovn(v4));
    // The host sends with the MAC that the router has too. What the router refuses goes back to the MAC that it came from, and would be
    // taken for its own: so it comes from the next hop that nobody has.
    let nobody = Mac::of(facts.masquerade.dummy_next_hop(v4));
    let to_ovn = format!("set_field:{nobody}->eth_src,set_field:{mac}->eth_dst,{}", p.patch_from_host);
    let to_host = format!("move:NXM_OF_ETH_DST[]->NXM_OF_ETH_SRC[],set_field:{mac}->eth_dst,{}", p.host);
    let all_endpoints = IpNet::from(facts.masquerade.host_etp_local(v4));
    for net in family.own(facts.service_cidrs).chain([&all_endpoints]) {
        let net = net.trunc();
        flows.add(0, 550, format!("in_port=LOCAL,{ip},{src}={host},{dst}={net}"), &to_ovn);
        flows.add(0, 500, format!("in_port=LOCAL,{ip},{dst}={net}"), "drop");
        flows.add(0, 500, format!("{},{ip},{src}={net},{dst}={host}", p.from_patch), &to_host);
        // What OVN has no Service for would otherwise go round and round between the next hop and us.
        flows.add(0, 115, format!("{},{ip},{dst}={net}", p.from_patch), "drop");
    }
    // A Service whose endpoint is the host. Its address is written without tracking, as it is the same for all.
    if let Some(own) = facts.gateway.l3.address(v4) {
        let of = format!("{},{ip},{dst}={host}", p.from_patch);
        let masked = format!("ct(commit,zone={ZONE_OVN},nat(src={}),table=3)", Family::text(ovn));
        flows.add(0, 450, of, format!("set_field:{}->{ip}_dst,{masked}", own.addr()));
    }
    let reply = format!("in_port=LOCAL,{ip},{dst}={ovn}");
    flows.add(0, 500, reply, format!("ct(zone={ZONE_OVN},nat,table=4)"));
    flows.add(3, 100, format!("{ip}{}", p.tagged), to_host);
    flows.add(4, 100, ip, format!("set_field:{host}->{ip}_src,{to_ovn}"));
}

/// What comes from the wire to a Service goes to the gateway router, which balances it.
fn services_from_wire(flows: &mut Flows, p: &Ports, facts: &Facts<'_>) {
    // What no flow is there for goes to the host, whose nftables does the rest.
    let direct = &facts.served.direct;
    let outside = facts.served.vips.keys().filter(|vip| !vip.0.is_loopback() && !direct.vips.contains_key(vip));
    let mut entries: BTreeSet<(IpAddr, Protocol, u16)> = outside.copied().collect();
    if facts.gateway.l3.node_port {
        let own = facts.gateway.l3.addresses.iter().map(IpNet::addr);
        let chosen = facts.node_port_addresses;
        let serving: Vec<_> = own.filter(|a| chosen.is_empty() || chosen.iter().any(|net| net.contains(a))).collect();
        for (protocol, port) in facts.served.node_ports.keys() {
            let by_ovn = serving.iter().filter(|address| !direct.has_node_port(*protocol, *port, address.is_ipv4()));
            entries.extend(by_ovn.map(|address| (*address, *protocol, *port)));
        }
    }
    for (address, protocol, port) in &entries {
        let family = Family::of(*address);
        let of = format!("{},{},{}={address},tp_dst={port}", p.from_wire, family.transport(*protocol), family.dst());
        flows.add(0, 110, of, &p.patch);
    }
    // Only the first fragment names the port: together they are looked at again.
    let addresses: BTreeSet<_> = entries.iter().map(|(address, _, _)| *address).collect();
    for address in addresses {
        let family = Family::of(address);
        // Not nw_frag=yes, which ovs-ofctl writes with another mask than it reads and so would write each time.
        for part in ["first", "later"] {
            let of = format!("{},ct_state=-trk,{},{}={address},nw_frag={part}", p.from_wire, family.ip(), family.dst());
            flows.add(0, 111, of, format!("ct(table=0,zone={ZONE_FRAGMENTS})"));
        }
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
pub(super) mod tests;
