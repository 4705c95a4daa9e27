//! Frames around messages of DHCP: Ethernet, IPv4, UDP, from port 68 to 67 and back.
//!
//! Checksums of others are not judged: where both ends are on one host, nobody has made them.

use std::net::Ipv4Addr;

use ovenbird_api::Mac;

use crate::net::packet::{ETHERNET, IPV4, checksum};

/// Ports of UDP.
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// UDP, by its number in IPv4.
const UDP: u8 = 17;
/// Lengths of headers, of IPv4 without options.
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC, or that of the way there.
    pub mac: Mac,
}

impl To {
    /// Everybody on the link.
    pub const ALL: To = To { address: Ipv4Addr::BROADCAST, mac: Mac([0xff; 6]) };
}

/// The frame that carries a message to a server.
pub fn wrap(message: &[u8], (from, mac): (Ipv4Addr, Mac), to: To) -> Vec<u8> {
    let length = |extra: usize| u16::try_from(message.len() + extra).unwrap_or(u16::MAX).to_be_bytes();
    let udp_length = length(UDP_HEADER);
    let ports = [CLIENT.to_be_bytes(), SERVER.to_be_bytes()].concat();
    let (from, address) = (from.octets(), to.address.octets());
    let pseudo = [&from[..], &address, &[0, UDP], &udp_length, &ports, &udp_length, &[0, 0], message].concat();
    // Zero would say that there is none (RFC 768).
    let sum = Some(checksum(&pseudo)).filter(|sum| *sum != 0).unwrap_or(u16::MAX).to_be_bytes();
    let total = length(IPV4_HEADER + UDP_HEADER);
    let head = |sum: [u8; 2]| [&[0x45, 0][..], &total, &[0, 0, 0, 0, 64, UDP], &sum, &from, &address].concat();
    let header = head(checksum(&head([0; 2])).to_be_bytes());
    [&to.mac.0[..], &mac.0, &IPV4, &header, &ports, &udp_length, &sum, message].concat()
}

/// The message in a frame from a server, and the MAC that it came from.
pub fn unwrap(frame: &[u8]) -> Option<(&[u8], Mac)> {
    let mac = Mac(frame.get(6..12)?.try_into().ok()?);
    let packet = frame.get(ETHERNET..).filter(|_| frame.get(12..ETHERNET) == Some(&IPV4))?;
    let number = |at: usize, of: &[u8]| Some(u16::from_be_bytes(of.get(at..at + 2)?.try_into().ok()?));
    let first = *packet.first()?;
    let is_fragment = number(6, packet)? & 0x3fff != 0;
    if first >> 4 != 4 || is_fragment || packet.get(9) != Some(&UDP) {
        return None;
    }
    let datagram = packet.get(usize::from(first & 0xf) * 4..)?;
    if (number(0, datagram)?, number(2, datagram)?) != (SERVER, CLIENT) {
        return None;
    }
    let length = usize::from(number(4, datagram)?);
    Some((datagram.get(UDP_HEADER..length)?, mac))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: Mac = Mac([0x1e, 0, 0, 0, 0, 1]);

    #[test]
    fn a_frame_has_right_sums_and_ports() {
        let frame = wrap(&[1, 2, 3], (Ipv4Addr::UNSPECIFIED, OWN), To::ALL);
        assert_eq!(frame.len(), ETHERNET + IPV4_HEADER + UDP_HEADER + 3);
        assert_eq!(checksum(&frame[ETHERNET..ETHERNET + IPV4_HEADER]), 0, "over all, its checksum included");
        let udp = &frame[ETHERNET + IPV4_HEADER..];
        let pseudo = [&frame[26..34], &[0, UDP, 0, 11], udp].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!(unwrap(&frame), None, "a server's is meant, not a client's");
        let mut answer = frame;
        answer.swap(35, 37);
        assert_eq!(unwrap(&answer), Some((&[1, 2, 3][..], OWN)));
        answer[20] = 0x20;
        assert_eq!(unwrap(&answer), None, "a fragment");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = unwrap(&bytes);
            if let Some(place) = bytes.get_mut(12..15) {
                place.copy_from_slice(&[8, 0, 0x45]);
                let _ = unwrap(&bytes);
            }
        }
    }
}
