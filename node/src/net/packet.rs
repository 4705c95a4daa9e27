//! Packet sockets on a link (packet(7)), and the frames by which a neighbour is asked for: ARP (RFC 826) and Neighbour Solicitation (RFC 4861,
//! section 4.3).
//!
//! In: a link of this thread's network namespace; addresses. Out: a socket; bytes. Must not: send, or read answers.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::bind;
use ovenbird_api::Mac;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// EtherTypes.
pub const IPV4: [u8; 2] = [0x08, 0x00];
/// See there.
pub const ARP: [u8; 2] = [0x08, 0x06];
/// See there.
pub const IPV6: [u8; 2] = [0x86, 0xdd];
/// Every EtherType, for [`open`] (ETH_P_ALL).
pub const EVERYTHING: [u8; 2] = [0, 3];
/// Lengths of headers.
pub const ETHERNET: usize = 14;
/// See there.
pub const IPV6_HEADER: usize = 40;
/// Protocol number of ICMPv6, and its types of RFC 4861.
pub const ICMPV6: u8 = 58;
/// See there.
pub const SOLICITATION: u8 = 135;
/// See there.
pub const ADVERTISEMENT: u8 = 136;

/// A packet socket on a link, which hears frames of one EtherType that pass the filter (classic BPF); without one, all.
///
/// # Errors
/// When the link is not there, or is refused.
pub fn open(link: &str, ether_type: [u8; 2], filter: &[SockFilter]) -> io::Result<Socket> {
    let mut links = getifaddrs()?.filter(|entry| entry.interface_name == link).filter_map(|entry| entry.address);
    let place = links.find_map(|address| address.as_link_addr().copied()).ok_or(ErrorKind::NotFound)?;
    let protocol = Protocol::from(i32::from(u16::from_ne_bytes(ether_type)));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    bind(socket.as_raw_fd(), &place)?;
    Ok(socket)
}

/// The frame that asks who has `to`; `from` is unspecified for who has no address yet (RFC 5227, RFC 4862).
pub fn question(mac: Mac, from: IpAddr, to: IpAddr) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => arp_request(mac, from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => solicitation(mac, from, to),
        _ => Vec::new(),
    }
}

fn arp_request(Mac(mac): Mac, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, their lengths, request.
    let header = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &ARP, &header, &mac, &from.octets(), &[0; 6], &to.octets()].concat()
}

fn solicitation(Mac(mac): Mac, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let target = to.octets();
    let last = &target[13..];
    // Solicited-node multicast (RFC 4291, section 2.7.1), and its MAC (RFC 2464, section 7).
    let group = [&[0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff][..], last].concat();
    let to_mac = [&[0x33, 0x33, 0xff][..], last].concat();
    // Who has no address tells no MAC of it.
    let option = if from.is_unspecified() { Vec::new() } else { [&[1, 1][..], &mac].concat() };
    let body = |sum: [u8; 2]| [&[SOLICITATION, 0, sum[0], sum[1], 0, 0, 0, 0][..], &target, &option].concat();
    let length = u8::try_from(body([0; 2]).len()).unwrap_or(u8::MAX);
    // Length, next header ICMPv6 (RFC 8200, section 8.1).
    let pseudo = [&from.octets()[..], &group, &[0, 0, 0, length, 0, 0, 0, ICMPV6], &body([0; 2])].concat();
    // Version 6, length, ICMPv6, hop limit 255.
    let header = [&[0x60, 0, 0, 0, 0, length, ICMPV6, 255][..], &from.octets(), &group].concat();
    [&to_mac[..], &mac, &IPV6, &header, &body(checksum(&pseudo).to_be_bytes())].concat()
}

/// RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
