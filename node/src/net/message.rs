//! Between our values and netlink messages. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use ovenbird_api::Mac;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{LinkUnspec, LinkVeth};

use super::{Hop, Link, Route, Veth};

/// Marks our routes on the host (`ip route show proto 111`), so that we delete no other's.
pub const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(111);

/// Creates the pair nearly as it should be: the sandbox end is born inside the sandbox, with its MAC. The kernel refuses
/// to set that end up before the pair is complete (ENOTCONN).
///
/// The host's end has no ARP: where OVS forwards in user space, the kernel sees the pod's frames, too, and would answer for the
/// host's own addresses (ARP asks all interfaces for them). The pod would then send there what it answers the host, past OVS
/// and the load balancer that must translate it back.
pub fn veth(veth: &Veth, netns_fd: std::os::fd::RawFd) -> LinkMessage {
    let peer = LinkUnspec::new_with_name(&veth.ifname)
        .address(veth.mac.0.to_vec())
        .mtu(veth.mtu)
        .setns_by_fd(netns_fd)
        .build();
    LinkVeth::new(&veth.host, &veth.ifname)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .mtu(veth.mtu)
        .arp(false)
        .up()
        .build()
}

/// A link without its addresses.
pub fn link(message: &LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    link
}

/// An address of a link, unless it is link-local: (index of the link, address).
pub fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let (index, net) = any_address(message)?;
    let link_local = match net.addr() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!link_local).then_some((index, net))
}

/// An address of a link: (index of the link, address).
pub fn any_address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    // On a point-to-point link ADDRESS is the peer's, LOCAL ours.
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ip = find(true).or_else(|| find(false))?;
    Some((message.header.index, IpNet::new(ip, message.header.prefix_len).ok()?))
}

/// Adds what an address needs beyond rtnetlink's defaults: an IPv6 address of ours is unique by allocation, so it skips
/// duplicate address detection and is usable at once.
pub fn without_dad(message: &mut AddressMessage) {
    if message.header.family == AddressFamily::Inet6 {
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
}

/// Makes an IPv6 address one that the kernel never chooses as a source by itself (RFC 4862 calls it deprecated): only routes that
/// name it and sockets bound to it use it.
pub fn only_when_named(message: &mut AddressMessage) {
    if message.header.family == AddressFamily::Inet6 {
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    }
}

/// A route of ours through a link.
pub fn route_message(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if route.dst.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
        destination_prefix_length: route.dst.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: OUR_PROTOCOL,
        scope: if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    if route.dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.dst.network().into()));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(src.into())));
    message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// The route of a message of the main table: (index of the link, route).
pub fn route(message: &RouteMessage) -> Option<(u32, Route)> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let zero: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut dst, mut via, mut src, mut index, mut mtu, mut metric) = (zero, None, None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => dst = ip(a)?,
            RouteAttribute::Gateway(a) => via = ip(a),
            RouteAttribute::PrefSource(a) => src = ip(a),
            RouteAttribute::Oif(i) => index = Some(*i),
            RouteAttribute::Priority(priority) => metric = Some(*priority),
            RouteAttribute::Metrics(all) => {
                mtu = all.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            _ => {}
        }
    }
    // The kernel's own choice for IPv6 (IP6_RT_PRIO_USER).
    let metric = metric.filter(|m| *m != 0 && (zero.is_ipv4() || *m != 1024));
    let dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some((index?, Route { dst, via, src, mtu, metric }))
}

/// A permanent neighbour: (index of the link, address, MAC).
pub fn permanent_neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((message.header.ifindex, ip?, mac?))
}

/// The hops of a default route of the main table; none of another route.
pub fn default_hops(message: &RouteMessage) -> Vec<Hop> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
        || header.destination_prefix_length != 0
        || !matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6)
    {
        return Vec::new();
    }
    let (mut metric, mut index, mut hops) = (0, None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(i) => index = Some(*i),
            RouteAttribute::MultiPath(all) => {
                hops.extend(all.iter().map(|hop| (hop.interface_index, gateway(&hop.attributes))));
            }
            _ => {}
        }
    }
    hops.extend(index.map(|index| (index, gateway(&message.attributes))));
    let v4 = header.address_family == AddressFamily::Inet;
    hops.into_iter().map(|(index, via)| Hop { v4, index, via, metric }).collect()
}

/// The next hop among the attributes of a route, or of one of its hops.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}

/// True for news of the host's addresses, of its default routes, and of the links with these indexes. Pods come and go without.
pub fn concerns(news: &NetlinkPayload<RouteNetlinkMessage>, managed: &[u32]) -> bool {
    let NetlinkPayload::InnerMessage(news) = news else { return false };
    match news {
        RouteNetlinkMessage::NewLink(m) | RouteNetlinkMessage::DelLink(m) => managed.contains(&m.header.index),
        RouteNetlinkMessage::NewAddress(m) | RouteNetlinkMessage::DelAddress(m) => address(m).is_some(),
        RouteNetlinkMessage::NewRoute(m) | RouteNetlinkMessage::DelRoute(m) => {
            !default_hops(m).is_empty() || route(m).is_some_and(|(index, _)| managed.contains(&index))
        }
        _ => false,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
