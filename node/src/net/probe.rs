//! Asks a link, before addresses are used there, whether somebody has them: ARP probes (RFC 5227 section 2.1.1), and neighbour solicitations as
//! of duplicate address detection (RFC 4862 section 5.4).
//!
//! ```text
//! [question] --> packet socket in the sandbox --> [holder] of each frame that comes: who has the address
//! ```
//!
//! Both carry no sender address, so that nobody learns anything from them. The kernel is not asked: it would have to have the address. Must not:
//! give an address to a link.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ovenbird_api::Mac;
use socket2::Socket;

use super::packet::{self, ADVERTISEMENT, ARP, ETHERNET, EVERYTHING, ICMPV6, IPV6, IPV6_HEADER, SOLICITATION};

/// How long an answer is waited for. Each question is asked twice in that time.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Asks on a link of this thread's network namespace; the first address that somebody has, and who that is.
///
/// # Errors
/// When the link is not there, or packets cannot be sent.
pub fn run(link: &str, own: Mac, addresses: &[IpAddr], patience: Duration) -> io::Result<Option<(IpAddr, Mac)>> {
    let socket = packet::open(link, EVERYTHING, &[])?;
    let begun = Instant::now();
    // One may be lost, or come before all switches on the way know of the port.
    for end in [begun + patience / 2, begun + patience] {
        for address in addresses {
            socket.send(&question(*address, own))?;
        }
        if let Some(found) = listen(&socket, own, addresses, end)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Reads frames until one tells of a holder, or the end.
fn listen(mut socket: &Socket, own: Mac, addresses: &[IpAddr], end: Instant) -> io::Result<Option<(IpAddr, Mac)>> {
    let mut frame = [0; 1600];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut frame) {
            Ok(length) => {
                let found = addresses.iter().find_map(|ip| Some((*ip, holder(&frame[..length], *ip, own)?)));
                if found.is_some() {
                    return Ok(found);
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The frame that asks for an address.
fn question(address: IpAddr, own: Mac) -> Vec<u8> {
    let nobody = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    packet::question(own, nobody, address)
}

/// Who has the address, by a frame that comes: whoever speaks for it, or asks for it as we do.
fn holder(frame: &[u8], address: IpAddr, own: Mac) -> Option<Mac> {
    let mac = |bytes: &[u8]| bytes.try_into().ok().map(Mac);
    let sender = mac(frame.get(6..12)?)?;
    let body = frame.get(ETHERNET..)?;
    let (speaks, asks, who) = match (address, frame.get(12..ETHERNET)?.try_into().ok()?) {
        (IpAddr::V4(v4), ARP) => {
            let ip = |at| Some(Ipv4Addr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?));
            let (from, about, who) = (ip(14)?, ip(24)?, mac(body.get(8..14)?)?);
            (from == v4, from.is_unspecified() && about == v4, who)
        }
        (IpAddr::V6(v6), IPV6) if body.get(6) == Some(&ICMPV6) => {
            let ip = |at| Some(Ipv6Addr::from(<[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?));
            let (kind, from, about) = (*body.get(IPV6_HEADER)?, ip(8)?, ip(IPV6_HEADER + 8)?);
            let asks = kind == SOLICITATION && from.is_unspecified() && about == v6;
            (kind == ADVERTISEMENT && about == v6, asks, sender)
        }
        _ => return None,
    };
    // Of our own questions we may hear; an answer is never ours.
    (speaks || asks && who != own).then_some(who)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([0x0a, 0x58, 192, 168, 100, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn questions_are_those_of_the_rfcs() {
        let arp = "ffffffffffff 0a58c0a86401 0806 0001 0800 06 04 0001 0a58c0a86401 00000000 000000000000 c0a86401";
        assert_eq!(question("192.168.100.1".parse().unwrap(), OWN), hex(arp));
        // Checksum by RFC 4443 section 2.3, of the kernel's own for this address.
        let ns = "3333ff000001 0a58c0a86401 86dd 60000000 0018 3a ff 00000000000000000000000000000000
                  ff0200000000000000000001ff000001 87 00 7ba3 00000000 fd000100000000000000000000000001";
        let question = question("fd00:100::1".parse().unwrap(), OWN);
        assert_eq!(question.len(), hex(ns).len());
        let message = &question[ETHERNET + IPV6_HEADER..];
        let pseudo = [&question[22..54], &[0, 0, 0, 24, 0, 0, 0, ICMPV6], message].concat();
        assert_eq!(packet::checksum(&pseudo), 0, "a sum over all, its checksum included, is 0");
        assert_eq!([&question[..56], &question[58..]].concat(), {
            let want = hex(ns);
            [&want[..56], &want[58..]].concat()
        });
    }

    #[test]
    fn who_has_an_address_is_heard() {
        let v4: IpAddr = "192.168.100.1".parse().unwrap();
        let v6: IpAddr = "fd00:100::1".parse().unwrap();
        let arp = |op: &str, sha: &str, spa: &str, tpa: &str| {
            hex(&format!("0a58c0a86401 020000000009 0806 0001 0800 06 04 {op} {sha} {spa} 0a58c0a86401 {tpa}"))
        };
        let nd = |src: &str, kind: &str, target: &str| {
            hex(&format!(
                "333300000001 020000000009 86dd 60000000 0018 3a ff {src} ff020000000000000000000000000001 {kind} 00 0000 00000000 {target}"
            ))
        };
        let (other, target) = ("020000000009", "fd000100000000000000000000000001");
        let nobody = "00000000000000000000000000000000";
        for (name, frame, ip, want) in [
            ("a reply", arp("0002", other, "c0a86401", "00000000"), v4, Some(OTHER)),
            ("a request of its holder", arp("0001", other, "c0a86401", "c0a86402"), v4, Some(OTHER)),
            ("another one's probe", arp("0001", other, "00000000", "c0a86401"), v4, Some(OTHER)),
            ("a reply with our MAC", arp("0002", "0a58c0a86401", "c0a86401", "00000000"), v4, Some(OWN)),
            ("our own probe", question(v4, OWN), v4, None),
            ("a request for it", arp("0001", other, "c0a86402", "c0a86401"), v4, None),
            ("a reply about another", arp("0002", other, "c0a86402", "c0a86401"), v4, None),
            ("an advertisement", nd(target, "88", target), v6, Some(OTHER)),
            ("another one's solicitation", nd(nobody, "87", target), v6, Some(OTHER)),
            ("our own solicitation", question(v6, OWN), v6, None),
            ("a solicitation for it", nd("fd000100000000000000000000000002", "87", target), v6, None),
            ("half a frame", arp("0002", other, "c0a86401", "00000000")[..30].to_vec(), v4, None),
            ("nothing", Vec::new(), v6, None),
        ] {
            assert_eq!(holder(&frame, ip, OWN), want, "{name}");
        }
    }
}
