//! SCTP by hand, for machines whose kernel has none: an INIT and its INIT ACK over raw sockets (RFC 9260 sections 3.3.2, 3.3.3 and 6.8).
//!
//! In: places, addresses. Out: what arrived, with ports and whether the checksum holds. It must not set up an association.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ovenbird_lab::Place;
use socket2::{Domain, Protocol, Socket, Type};

const SCTP: i32 = 132;
/// Chunk types.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Ports, verification tag and checksum.
const HEADER: usize = 12;
/// How long an answer is waited for before the question is put again, as RFC 9260 has its T1 timer.
const RESEND: Duration = Duration::from_millis(300);

/// A packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it, as the receiver sees it.
    pub from: SocketAddr,
    /// Port that it was sent to.
    pub to: u16,
    /// Type of its first chunk.
    kind: u8,
    /// Initiate tag of that chunk.
    tag: u32,
    /// Its CRC32c holds.
    pub intact: bool,
}

/// Answers each INIT that comes to an address by an INIT ACK, until this process ends. What came is told by the returned channel.
///
/// # Errors
/// When no raw socket can be opened.
pub fn stand(place: &Place, address: IpAddr) -> Result<Receiver<Packet>> {
    let socket = open(place, address)?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok(packet) = receive(&socket, address) {
            let Some(packet) = packet.filter(|packet| packet.kind == INIT) else { continue };
            // Before the answer: who has that may ask what came.
            if tell.send(packet).is_err() {
                break;
            }
            let answer = self::packet(packet.to, packet.from.port(), packet.tag, INIT_ACK, !packet.tag);
            // Who is gone needs no answer.
            let _ = socket.send_to(&answer, SocketAddr::new(packet.from.ip(), 0));
        }
    });
    Ok(told)
}

/// Sends an INIT from one of a place's addresses and returns the INIT ACK, if one comes in time.
///
/// # Errors
/// When no raw socket can be opened, or the place has no way there.
pub fn ask(place: &Place, from: SocketAddr, to: SocketAddr, limit: Duration) -> Result<Option<Packet>> {
    let socket = open(place, from.ip())?;
    socket.set_read_timeout(Some(RESEND)).context("setting a time limit")?;
    let tag = 0x0b1d_0000 | u32::from(from.port());
    let init = packet(from.port(), to.port(), 0, INIT, tag);
    let end = Instant::now() + limit;
    while Instant::now() < end {
        socket.send_to(&init, SocketAddr::new(to.ip(), 0)).with_context(|| format!("sending to {to}"))?;
        let sent = Instant::now();
        while sent.elapsed() < RESEND {
            let answer = receive(&socket, from.ip()).context("waiting for an answer")?;
            let ours = |packet: &Packet| packet.kind == INIT_ACK && packet.tag == !tag && packet.to == from.port();
            if let Some(answer) = answer.filter(ours) {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}

/// A raw socket, in the standard library's words for sockets that carry one message at a time.
fn open(place: &Place, address: IpAddr) -> Result<UdpSocket> {
    place.run(|| {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP))).context("opening a raw socket")?;
        socket.bind(&SocketAddr::new(address, 0).into()).with_context(|| format!("binding {address}"))?;
        Ok(socket.into())
    })
}

/// The next packet; nothing for what is none, or when the time is up.
fn receive(socket: &UdpSocket, own: IpAddr) -> io::Result<Option<Packet>> {
    let mut buffer = [0; 2048];
    let (length, peer) = match socket.recv_from(&mut buffer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(None),
        received => received?,
    };
    // A raw IPv4 socket delivers the IP header, a raw IPv6 one does not.
    let header = if own.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
    Ok(buffer.get(header..length).and_then(|message| parse(peer.ip(), message)))
}

fn parse(peer: IpAddr, message: &[u8]) -> Option<Packet> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let checksum: [u8; 4] = message.get(8..HEADER)?.try_into().ok()?;
    let covered = [&message[..8], &[0; 4], message.get(HEADER..)?].concat();
    Some(Packet {
        from: SocketAddr::new(peer, word(0)?),
        to: word(2)?,
        kind: *message.get(HEADER)?,
        tag: u32::from_be_bytes(message.get(HEADER + 4..HEADER + 8)?.try_into().ok()?),
        intact: u32::from_le_bytes(checksum) == crc32c(&covered),
    })
}

/// A packet with one chunk: an INIT, or an INIT ACK with a cookie.
fn packet(from: u16, to: u16, verification: u32, kind: u8, tag: u32) -> Vec<u8> {
    let cookie: &[u8] = if kind == INIT_ACK { &[0, 7, 0, 8, 1, 2, 3, 4] } else { &[] };
    let length = u16::try_from(20 + cookie.len()).unwrap_or_default();
    // Receive window, numbers of streams out and in, first transmission sequence number.
    let body = [&0xffff_u32.to_be_bytes()[..], &[0, 1, 0, 1], &tag.to_be_bytes()].concat();
    let chunk = [&[kind, 0][..], &length.to_be_bytes(), &tag.to_be_bytes(), &body, cookie].concat();
    let head = [&from.to_be_bytes()[..], &to.to_be_bytes(), &verification.to_be_bytes()].concat();
    let checksum = crc32c(&[&head[..], &[0; 4], &chunk].concat());
    [&head[..], &checksum.to_le_bytes(), &chunk].concat()
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: packets are few.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_packet_reads_back() -> Result<()> {
        let peer = IpAddr::from([10, 0, 0, 1]);
        let mut bytes = packet(5000, 7002, 9, INIT_ACK, 77);
        let read = parse(peer, &bytes).context("no packet")?;
        assert_eq!(read, Packet { from: SocketAddr::new(peer, 5000), to: 7002, kind: INIT_ACK, tag: 77, intact: true });
        bytes[2] ^= 1;
        assert!(parse(peer, &bytes).is_some_and(|read| !read.intact));
        assert_eq!(parse(peer, &bytes[..13]), None);
        Ok(())
    }
}
