//! Asks for a neighbour's MAC from inside a sandbox, as a host does that has just come (RFC 826; RFC 4861, section 4.3), until it answers. The kernel
//! asks too seldom to wait for: once a second.
//!
//! ```text
//! thread in the sandbox: packet socket on the link --> question, again and again --> answer, or nobody waits any more
//! ```
//!
//! Must not: judge answers; or change what the kernel knows of the neighbour.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use ovenbird_api::Mac;

use super::{NetError, netns};

/// Time until the second question; it doubles with each, up to the other.
const FIRST: Duration = Duration::from_millis(10);
/// See [`FIRST`].
const LAST: Duration = Duration::from_millis(160);
/// EtherTypes of ARP and IPv6.
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Types of ICMPv6: Neighbour Solicitation and Advertisement.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Who asks whom.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// MAC of the link.
    pub mac: Mac,
    /// Own address.
    pub from: IpAddr,
    /// The neighbour's, of the same family.
    pub to: IpAddr,
}

/// Returns when the neighbour answers on a link of the sandbox; a link that is down is waited for. Who does not wait any more drops the future.
///
/// # Errors
/// When the sandbox or the link is gone.
pub async fn ask(sandbox: &Path, ifname: &str, question: Question) -> Result<(), NetError> {
    let waits = Arc::new(());
    let (name, waiting) = (ifname.to_owned(), Arc::downgrade(&waits));
    let asked = netns::run(sandbox, move || {
        insist(&name, question, &waiting).map_err(|e| NetError::Ask(question.to, e.into()))
    });
    let answered = asked.await;
    drop(waits);
    answered
}

/// Asks until there is an answer, or nobody waits for it.
fn insist(ifname: &str, question: Question, waiting: &Weak<()>) -> Result<(), Errno> {
    let (socket, link) = open(ifname)?;
    let (frame, mut pause, mut buffer) = (question.frame(), FIRST, [0; 128]);
    while waiting.strong_count() > 0 {
        match sendto(socket.as_raw_fd(), &frame, &link, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENETDOWN | Errno::ENOBUFS) => {}
            Err(e) => return Err(e),
        }
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // Zero would be for ever.
            let micros = left.as_micros().clamp(1, LAST.as_micros());
            setsockopt(&socket, ReceiveTimeout, &TimeVal::microseconds(i64::try_from(micros).unwrap_or(1)))?;
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if question.is_answer(&buffer[..length]) => return Ok(()),
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                Err(e) => return Err(e),
            }
            if Instant::now() >= end {
                break;
            }
        }
        pause = (pause * 2).min(LAST);
    }
    Ok(())
}

/// A packet socket on a link of the calling thread's namespace.
fn open(ifname: &str) -> Result<(OwnedFd, LinkAddr), Errno> {
    let own = getifaddrs()?.filter(|entry| entry.interface_name == ifname);
    let link = own.filter_map(|entry| entry.address?.as_link_addr().copied()).next().ok_or(Errno::ENODEV)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), &link)?;
    Ok((socket, link))
}

impl Question {
    /// The frame that asks.
    fn frame(&self) -> Vec<u8> {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.arp(from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.solicitation(from, to),
            _ => Vec::new(),
        }
    }

    fn arp(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mac = self.mac.0;
        // Ethernet, IPv4, their lengths, request.
        let header = [0, 1, 8, 0, 6, 4, 0, 1];
        [&[0xff; 6][..], &mac, &ARP, &header, &mac, &from.octets(), &[0; 6], &to.octets()].concat()
    }

    fn solicitation(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let (mac, target) = (self.mac.0, to.octets());
        let last = &target[13..];
        // Solicited-node multicast (RFC 4291, section 2.7.1), and its MAC (RFC 2464, section 7).
        let group = [&[0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff][..], last].concat();
        let to_mac = [&[0x33, 0x33, 0xff][..], last].concat();
        let option = [&[1, 1][..], &mac].concat();
        let body = |sum: [u8; 2]| [&[SOLICITATION, 0, sum[0], sum[1], 0, 0, 0, 0][..], &target, &option].concat();
        // Length in the last two, next header ICMPv6 (RFC 8200, section 8.1).
        let pseudo = [&from.octets()[..], &group, &[0, 0, 0, 32, 0, 0, 0, 58], &body([0; 2])].concat();
        // Version 6, length, ICMPv6, hop limit 255.
        let header = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &from.octets(), &group].concat();
        [&to_mac[..], &mac, &IPV6, &header, &body(checksum(&pseudo))].concat()
    }

    /// True when a frame says where the neighbour is.
    fn is_answer(&self, frame: &[u8]) -> bool {
        let at = |from: usize, to: usize| frame.get(from..to);
        match self.to {
            // An ARP reply by the sender's address.
            IpAddr::V4(to) => {
                at(12, 14) == Some(&ARP) && at(20, 22) == Some(&[0, 2]) && at(28, 32) == Some(&to.octets())
            }
            IpAddr::V6(to) => {
                at(12, 14) == Some(&IPV6) && at(54, 55) == Some(&[ADVERTISEMENT]) && at(62, 78) == Some(&to.octets())
            }
        }
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::linux::tests::Netns;

    fn question(from: &str, to: &str) -> Question {
        Question { mac: "0a:58:0a:80:00:03".parse().unwrap(), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// The kernel at the other end answers what is asked right, and nothing else.
    #[tokio::test]
    async fn a_neighbour_answers_once_it_is_there() {
        let (Some(other), Some(pod)) = (Netns::new("nh"), Netns::new("np")) else { return };
        let netns = pod.path().file_name().unwrap().to_string_lossy().into_owned();
        other.ip(&format!("link add host type veth peer name eth0 address 0a:58:0a:80:00:03 netns {netns}"));
        pod.ip("addr add fd01::3/64 dev eth0 nodad");
        other.ip("link set host up");
        for (from, to) in [("10.128.0.3", "10.128.0.1"), ("fd01::3", "fd01::1")] {
            pod.ip("link set eth0 down");
            let path = pod.path();
            let asked = tokio::spawn(async move { ask(&path, "eth0", question(from, to)).await });
            pod.ip("link set eth0 up");
            pod.ip("addr replace fd01::3/64 dev eth0 nodad");
            assert!(!asked.is_finished(), "nobody has {to}");
            other.ip(&format!(
                "addr add {to}/{} dev host{}",
                if to.contains(':') { "64" } else { "24" },
                if to.contains(':') { " nodad" } else { "" }
            ));
            asked.await.unwrap().unwrap();
        }
        let error = ask(&pod.path(), "eth1", question("10.128.0.3", "10.128.0.1")).await.unwrap_err();
        assert_eq!(error.to_string(), "asking 10.128.0.1 for its MAC");
    }

    #[test]
    fn what_is_no_answer() {
        let question = question("10.128.0.3", "10.128.0.1");
        let mut frame = question.frame();
        assert!(!question.is_answer(&frame), "the question itself");
        frame[21] = 2;
        assert!(!question.is_answer(&frame), "another's answer");
        frame[28..32].copy_from_slice(&[10, 128, 0, 1]);
        assert!(question.is_answer(&frame));
        (0..frame.len() - 10).for_each(|length| assert!(!question.is_answer(&frame[..length])));
    }
}
