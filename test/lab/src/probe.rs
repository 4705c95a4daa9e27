//! Reachability probes with nothing but the standard library and raw sockets: ping, TCP, and the responder they talk to.
//!
//! In: targets such as `ping:10.0.0.1` or `tcp:[fd00::1]:8080`. Out: round-trip times or errors. It must not know pods; it works in
//! whatever network namespace the calling thread is in.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

/// Port of the responder unless told otherwise.
pub const PORT: u16 = 8080;
const PAYLOAD: &[u8; 16] = b"ovenbird-probe!\n";
/// How long one ping is waited for before the next is sent.
const PING_PERIOD: Duration = Duration::from_millis(200);
/// How long after a refused connection the next is tried.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// One thing to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// ICMP or ICMPv6 echo.
    Ping(IpAddr),
    /// Connect to the responder, send, and get the same back.
    Tcp(SocketAddr),
}

impl Target {
    /// The address tried.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Ping(ip) => *ip,
            Self::Tcp(address) => address.ip(),
        }
    }

    /// Tries until it succeeds, and returns the round-trip time of the attempt that did.
    ///
    /// # Errors
    /// When nothing came back within `limit`; the text says at which step.
    pub fn check(&self, limit: Duration) -> Result<Duration> {
        let deadline = Instant::now() + limit;
        match self {
            Self::Ping(ip) => ping(*ip, deadline),
            Self::Tcp(address) => echo(*address, deadline),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping(ip) => write!(f, "ping:{ip}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("ping", ip)) => Ok(Self::Ping(ip.parse().with_context(|| format!("{text}: not an IP address"))?)),
            Some(("tcp", address)) => Ok(Self::Tcp(address.parse().with_context(|| format!("{text}: not IP:PORT"))?)),
            _ => bail!("{text}: give ping:IP or tcp:IP:PORT"),
        }
    }
}

fn echo(address: SocketAddr, deadline: Instant) -> Result<Duration> {
    let (start, mut stream) = loop {
        let start = Instant::now();
        let left = deadline.saturating_duration_since(start).max(REFUSED_PAUSE);
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => break (start, stream),
            // The responder has been started but does not listen yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && start < deadline => {
                thread::sleep(REFUSED_PAUSE);
            }
            Err(error) => return Err(error).context("connecting"),
        }
    };
    let left = deadline.saturating_duration_since(start).max(REFUSED_PAUSE);
    stream.set_read_timeout(Some(left)).context("setting a time limit")?;
    stream.write_all(PAYLOAD).context("sending")?;
    let mut answer = [0; PAYLOAD.len()];
    stream.read_exact(&mut answer).context("waiting for the answer")?;
    if answer != *PAYLOAD {
        bail!("the answer is not what was sent");
    }
    Ok(start.elapsed())
}

/// Raw ICMP: type, code, checksum, identifier, sequence, payload (RFC 792, RFC 4443 section 4.1).
fn ping(ip: IpAddr, deadline: Instant) -> Result<Duration> {
    let (domain, protocol, request, reply) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).context("opening an ICMP socket")?;
    socket.connect(&SocketAddr::new(ip, 0).into()).context("no route")?;
    // Other probes of this namespace see our replies: the address of a value on this thread's stack tells threads apart.
    let identifier = (std::ptr::addr_of!(deadline) as usize >> 6) as u16 ^ std::process::id() as u16;
    for sequence in 0u16.. {
        let sent = Instant::now();
        if sent >= deadline {
            break;
        }
        let packet = echo_request(request, identifier, sequence, ip.is_ipv4());
        // An error here may be an earlier ICMP "unreachable" or a neighbour not resolved yet: try again until the deadline.
        let _ = socket.send(&packet);
        while let Some(left) = PING_PERIOD.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
            // Less than a microsecond would be none, and none is for ever.
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).context("setting a time limit")?;
            if is_reply(&mut socket, ip.is_ipv4(), reply, &packet[4..8]) {
                return Ok(sent.elapsed());
            }
        }
    }
    bail!("no reply")
}

fn echo_request(kind: u8, identifier: u16, sequence: u16, checksum: bool) -> Vec<u8> {
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(PAYLOAD);
    // The kernel fills in ICMPv6's, which covers the IP addresses.
    if checksum {
        let words = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn is_reply(socket: &mut Socket, ipv4: bool, kind: u8, mark: &[u8]) -> bool {
    let mut buffer = [0; 256];
    let Ok(length) = socket.read(&mut buffer) else { return false };
    // A raw IPv4 socket delivers the IP header, a raw IPv6 one does not.
    let header = if ipv4 { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
    let Some(message) = buffer.get(header..length) else { return false };
    message.first() == Some(&kind) && message.get(4..8) == Some(mark)
}

/// Answers on a TCP port with whatever it is sent, both families, until the process is ended.
///
/// # Errors
/// When the port is taken.
pub fn serve(port: u16) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listening on port {port}"))?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        thread::spawn(move || {
            let (mut reader, mut writer) = (&stream, &stream);
            let _ = io::copy(&mut reader, &mut writer);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_written() {
        for text in ["ping:10.0.0.1", "ping:fd00::1", "tcp:10.0.0.1:8080", "tcp:[fd00::1]:8080"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1", "ping:host", "tcp:10.0.0.1", "udp:10.0.0.1:1"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_echo_request_sums_to_all_ones() {
        let packet = echo_request(8, 0x1234, 7, true);
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
