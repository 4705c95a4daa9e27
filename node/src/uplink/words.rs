//! From netlink messages to [`Item`]s. Pure.
//!
//! ```text
//! AddressMessage, RouteMessage, NeighbourMessage, RuleMessage --> Item | not ours to move | Unsayable
//! ```
//!
//! What ip(8) could not be told again is never dropped in silence: it is [`Unsayable`], and the take-over is refused. Left alone is what
//! the kernel makes by itself: link-local addresses, the local table, and routes that follow from addresses ([`implied_route`]).
//! Must not: know which interface is taken over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RoutePreference, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::item::{Item, Kind};

/// Names of interfaces by their indexes.
pub type Names = BTreeMap<u32, String>;

/// A setting that the words of ip(8) do not cover here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {of}")]
pub struct Unsayable {
    /// The item as far as it can be said.
    pub of: Item,
    /// The setting.
    pub what: String,
}

/// The local table, which the kernel fills itself.
const LOCAL_TABLE: u32 = 255;

/// Words that grow, and the first setting that has none.
struct Words {
    item: Item,
    unsayable: Option<String>,
}

impl Words {
    fn new(kind: Kind, v4: bool, first: String) -> Words {
        Words { item: Item::new(kind, v4, first), unsayable: None }
    }

    fn say(&mut self, words: &str) {
        self.item.words.push(' ');
        self.item.words.push_str(words);
    }

    fn fail(&mut self, what: impl Into<String>) {
        self.unsayable.get_or_insert(what.into());
    }

    fn done(self) -> Result<Item, Unsayable> {
        match self.unsayable {
            Some(what) => Err(Unsayable { of: self.item, what }),
            None => Ok(self.item),
        }
    }
}

fn family(family: AddressFamily) -> Option<bool> {
    match family {
        AddressFamily::Inet => Some(true),
        AddressFamily::Inet6 => Some(false),
        _ => None,
    }
}

/// An address; `None` for one that stays: link-local, of a narrower scope, or made by the kernel for privacy (RFC 8981).
pub fn address(message: &AddressMessage, names: &Names) -> Option<Result<Item, Unsayable>> {
    let v4 = family(message.header.family)?;
    let device = names.get(&message.header.index)?;
    if !matches!(message.header.scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    if !v4 && flags.contains(AddressFlags::Secondary) {
        return None;
    }
    let (own, prefix) = (local.or(peer)?, message.header.prefix_len);
    let mut words = Words::new(Kind::Address, v4, format!("{own}/{prefix}"));
    if let (Some(local), Some(peer)) = (local, peer)
        && local != peer
    {
        words.item.words = format!("{local} peer {peer}/{prefix}");
    }
    if message.header.scope == AddressScope::Site {
        words.say("scope site");
    }
    address_attributes(&mut words, message, device);
    for (flag, word) in [
        (AddressFlags::Nodad, "nodad"),
        (AddressFlags::Homeaddress, "home"),
        (AddressFlags::Managetempaddr, "mngtmpaddr"),
        (AddressFlags::Noprefixroute, "noprefixroute"),
        (AddressFlags::Mcautojoin, "autojoin"),
    ] {
        if flags.contains(flag) {
            words.say(word);
        }
    }
    Some(words.done())
}

fn address_attributes(words: &mut Words, message: &AddressMessage, device: &str) {
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Broadcast(ip) => words.say(&format!("brd {ip}")),
            AddressAttribute::RoutePriority(metric) if *metric != 0 => words.say(&format!("metric {metric}")),
            AddressAttribute::CacheInfo(times) if (times.ifa_valid, times.ifa_preferred) != (u32::MAX, u32::MAX) => {
                let text = |t: u32| if t == u32::MAX { "forever".to_owned() } else { t.to_string() };
                words.item.lasts =
                    format!("valid_lft {} preferred_lft {}", text(times.ifa_valid), text(times.ifa_preferred));
            }
            AddressAttribute::Anycast(_) => words.fail("the anycast address"),
            _ => {}
        }
    }
    words.say(&format!("dev {device}"));
    let label = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Label(label) if label != device => Some(label),
        _ => None,
    });
    if let Some(label) = label {
        words.say(&format!("label {label}"));
    }
}

/// A route out of an interface; `None` for one of the local table, of another type than unicast, or without an interface.
pub fn route(message: &RouteMessage, names: &Names) -> Option<Result<Item, Unsayable>> {
    let header = &message.header;
    let v4 = family(header.address_family)?;
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let find = |of: &dyn Fn(&RouteAttribute) -> Option<u32>| message.attributes.iter().find_map(of);
    let table = find(&|a| if let RouteAttribute::Table(t) = a { Some(*t) } else { None });
    let table = table.unwrap_or(u32::from(header.table));
    let index = find(&|a| if let RouteAttribute::Oif(i) = a { Some(*i) } else { None });
    let hops =
        message.attributes.iter().find_map(|a| if let RouteAttribute::MultiPath(h) = a { Some(h) } else { None });
    if table == LOCAL_TABLE || index.is_none() && hops.is_none() {
        return None;
    }
    let destination = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(ip) => text(ip),
        _ => None,
    });
    let first = match destination {
        Some(ip) => format!("{ip}/{}", header.destination_prefix_length),
        // Of IPv6, `default` alone would not tell the family.
        None => if v4 { "default" } else { "::/0" }.to_owned(),
    };
    let mut words = Words::new(Kind::Route, v4, first);
    if header.tos != 0 {
        words.say(&format!("tos {:#x}", header.tos));
    }
    way(&mut words, &message.attributes, index.and_then(|i| names.get(&i)));
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        words.say(&format!("table {table}"));
    }
    match header.protocol {
        // What ip(8) takes by itself.
        RouteProtocol::Boot => {}
        protocol => words.say(&format!("proto {}", protocol_name(protocol))),
    }
    match header.scope {
        // What ip(8) takes by itself, unless the destination is on the link.
        RouteScope::Universe if !v4 || hops.is_some() || !words.item.is_direct() => {}
        RouteScope::Universe => words.say("scope global"),
        RouteScope::Link => words.say("scope link"),
        scope => words.say(&format!("scope {}", u8::from(scope))),
    }
    route_attributes(&mut words, &message.attributes);
    // Of a route with several hops each has a flag of its own.
    if hops.is_none() && header.flags.contains(RouteFlags::Onlink) {
        words.say("onlink");
    }
    for hop in hops.into_iter().flatten() {
        next_hop(&mut words, hop, names);
    }
    Some(words.done())
}

/// A name that every ip(8) knows, else the number.
fn protocol_name(protocol: RouteProtocol) -> String {
    match protocol {
        RouteProtocol::Kernel | RouteProtocol::Static | RouteProtocol::Ra => protocol.to_string(),
        RouteProtocol::Dhcp => "dhcp".into(),
        other => u8::from(other).to_string(),
    }
}

/// Gateway and interface of a route or of one of its hops.
fn way(words: &mut Words, attributes: &[RouteAttribute], device: Option<&String>) {
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(ip) => match text(ip) {
                Some(ip) => words.say(&format!("via {ip}")),
                None => words.fail("a gateway of an unknown family"),
            },
            RouteAttribute::Via(RouteVia::Inet6(ip)) => words.say(&format!("via inet6 {ip}")),
            RouteAttribute::Via(_) => words.fail("a gateway of another family"),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => words.fail("the encapsulation"),
            _ => {}
        }
    }
    if let Some(device) = device {
        words.say(&format!("dev {device}"));
    }
}

fn route_attributes(words: &mut Words, attributes: &[RouteAttribute]) {
    let source = attributes.iter().find_map(|a| if let RouteAttribute::PrefSource(ip) = a { text(ip) } else { None });
    if let Some(source) = source {
        words.say(&format!("src {source}"));
    }
    for attribute in attributes {
        match attribute {
            RouteAttribute::Priority(metric) => words.say(&format!("metric {metric}")),
            RouteAttribute::Metrics(metrics) => metric_words(words, metrics),
            RouteAttribute::Preference(RoutePreference::Low) => words.say("pref low"),
            RouteAttribute::Preference(RoutePreference::High) => words.say("pref high"),
            RouteAttribute::CacheInfo(times) if times.expires != 0 => {
                // In hundredths of a second (USER_HZ).
                words.item.lasts = format!("expires {}", times.expires / 100);
            }
            RouteAttribute::NhId(id) => words.fail(format!("the nexthop object {id}")),
            RouteAttribute::Source(_) => words.fail("the source network"),
            RouteAttribute::Realm(_) => words.fail("the realm"),
            RouteAttribute::Mark(_) | RouteAttribute::TtlPropagate(_) | RouteAttribute::NewDestination(_) => {
                words.fail("an unusual attribute");
            }
            _ => {}
        }
    }
}

fn metric_words(words: &mut Words, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(n) => words.say(&format!("mtu {n}")),
            RouteMetric::Advmss(n) => words.say(&format!("advmss {n}")),
            RouteMetric::Window(n) => words.say(&format!("window {n}")),
            RouteMetric::InitCwnd(n) => words.say(&format!("initcwnd {n}")),
            RouteMetric::InitRwnd(n) => words.say(&format!("initrwnd {n}")),
            RouteMetric::Hoplimit(n) => words.say(&format!("hoplimit {n}")),
            RouteMetric::QuickAck(n) => words.say(&format!("quickack {n}")),
            RouteMetric::CcAlgo(name) => words.say(&format!("congctl {name}")),
            other => words.fail(format!("the metric {other:?}")),
        }
    }
}

fn next_hop(words: &mut Words, hop: &RouteNextHop, names: &Names) {
    words.say("nexthop");
    way(words, &hop.attributes, names.get(&hop.interface_index));
    words.say(&format!("weight {}", u32::from(hop.hops) + 1));
    if hop.flags.contains(RouteNextHopFlags::Onlink) {
        words.say("onlink");
    }
}

/// A permanent neighbour; `None` for one that was learnt.
pub fn neighbour(message: &NeighbourMessage, names: &Names) -> Option<Result<Item, Unsayable>> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let v4 = family(message.header.family)?;
    let device = names.get(&message.header.ifindex)?;
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = Some(bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"));
            }
            _ => {}
        }
    }
    Some(Ok(Item::new(Kind::Neighbour, v4, format!("{} lladdr {} dev {device} nud permanent", ip?, mac?))))
}

/// A rule that names an interface.
pub fn rule(message: &RuleMessage) -> Option<Result<Item, Unsayable>> {
    let header = &message.header;
    let v4 = family(header.family)?;
    let named = |a: &RuleAttribute| matches!(a, RuleAttribute::Iifname(_) | RuleAttribute::Oifname(_));
    if !message.attributes.iter().any(named) {
        return None;
    }
    let (mut pref, mut from, mut to) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(p) => pref = *p,
            RuleAttribute::Source(ip) => from = Some(format!("{ip}/{}", header.src_len)),
            RuleAttribute::Destination(ip) => to = Some(format!("{ip}/{}", header.dst_len)),
            _ => {}
        }
    }
    let mut words = Words::new(Kind::Rule, v4, format!("pref {pref}"));
    if header.flags.contains(RuleFlags::Invert) {
        words.say("not");
    }
    words.say(&format!("from {}", from.unwrap_or_else(|| "all".into())));
    if let Some(to) = to {
        words.say(&format!("to {to}"));
    }
    if header.tos != 0 {
        words.say(&format!("tos {:#x}", header.tos));
    }
    rule_selectors(&mut words, message);
    Some(words.done())
}

fn rule_selectors(words: &mut Words, message: &RuleMessage) {
    let (mut table, mut mask, mut mark) = (u32::from(message.header.table), None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Iifname(name) => words.say(&format!("iif {name}")),
            RuleAttribute::Oifname(name) => words.say(&format!("oif {name}")),
            RuleAttribute::FwMark(m) => mark = Some(*m),
            RuleAttribute::FwMask(m) => mask = Some(*m),
            RuleAttribute::Table(t) => table = *t,
            RuleAttribute::SuppressPrefixLen(n) if *n != u32::MAX => {
                words.say(&format!("suppress_prefixlength {n}"));
            }
            RuleAttribute::SuppressIfGroup(n) if *n != u32::MAX => words.fail("the suppressed group"),
            RuleAttribute::Protocol(protocol) if !matches!(protocol, RouteProtocol::Unspec | RouteProtocol::Boot) => {
                words.say(&format!("protocol {}", protocol_name(*protocol)));
            }
            RuleAttribute::UidRange(r) => words.say(&format!("uidrange {}-{}", r.start, r.end)),
            RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::Goto(_)
            | RuleAttribute::Realm(_)
            | RuleAttribute::TunId(_) => words.fail("an unusual selector"),
            _ => {}
        }
    }
    if let Some(mark) = mark.filter(|mark| *mark != 0) {
        words.say(&format!("fwmark {mark:#x}/{:#x}", mask.unwrap_or(u32::MAX)));
    }
    match message.header.action {
        RuleAction::ToTable => words.say(&format!("lookup {table}")),
        RuleAction::Blackhole => words.say("blackhole"),
        RuleAction::Unreachable => words.say("unreachable"),
        RuleAction::Prohibit => words.say("prohibit"),
        _ => words.fail("an unusual action"),
    }
}

/// The route that the kernel makes and removes by itself for an address; it does not move, it follows.
pub fn implied_route(address: &Item, device: &str) -> Option<Item> {
    let words: Vec<_> = address.words.split(' ').collect();
    if address.kind != Kind::Address || words.contains(&"noprefixroute") {
        return None;
    }
    let after = |key: &str| words.iter().position(|w| *w == key).and_then(|at| words.get(at + 1)).copied();
    let net: IpNet = after("peer").unwrap_or(address.subject()).parse().ok()?;
    let own = address.subject().split('/').next()?;
    let metric = after("metric");
    let text = if address.v4 {
        let metric = metric.map(|m| format!(" metric {m}")).unwrap_or_default();
        format!("{} dev {device} proto kernel scope link src {own}{metric}", net.trunc())
    } else {
        format!("{} dev {device} proto kernel metric {}", net.trunc(), metric.unwrap_or("256"))
    };
    Some(Item::new(Kind::Route, address.v4, text))
}

fn text(address: &RouteAddress) -> Option<String> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.to_string()),
        RouteAddress::Inet6(ip) => Some(ip.to_string()),
        _ => None,
    }
}
