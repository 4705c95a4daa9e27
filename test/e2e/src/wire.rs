//! What travels on the fabric between two nodes, seen on the cables themselves.
//!
//! In: the fabric's namespace. Out: the kinds of packets whose outer addresses are both nodes', and any that carry another's.
//! Or frames counted by rules of a test's own. It must not look into tunnels by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ovenbird_lab::{Lab, Place, Scene};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// ETH_P_ALL in network byte order (packet(7)).
const EVERY_PROTOCOL: i32 = 0x0300;
/// How often the reader looks whether it should end.
const TICK: Duration = Duration::from_millis(20);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    end: Arc<AtomicBool>,
    reader: JoinHandle<Result<BTreeSet<String>>>,
}

impl Capture {
    /// Starts to listen on all cables of the fabric.
    ///
    /// # Errors
    /// When a packet socket cannot be opened.
    pub fn start(lab: &Lab) -> Result<Self> {
        let place = Place::netns(lab.layout().netns("fabric"));
        let socket = place.run(|| {
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERY_PROTOCOL)))
                .context("opening a packet socket")
        })?;
        socket.set_read_timeout(Some(TICK)).context("setting a time limit")?;
        // The default holds a moment of traffic only.
        socket.set_recv_buffer_size(8 << 20).context("enlarging the buffer")?;
        let options = &lab.layout().options;
        let nodes: BTreeSet<_> = (1..=options.nodes).flat_map(|index| options.node_addresses(index)).collect();
        let own = [options.central_addresses(), options.outside_addresses(), options.beyond_addresses()];
        let central: BTreeSet<_> = own.into_iter().flatten().collect();
        let end = Arc::new(AtomicBool::new(false));
        let flag = end.clone();
        let reader = std::thread::spawn(move || read(socket, &flag, &nodes, &central));
        Ok(Self { end, reader })
    }

    /// Stops, and returns the kinds of packets seen: `udp 6081`, `icmpv6 135`, `unreachable udp 6081`, or `foreign SOURCE DESTINATION`.
    ///
    /// # Errors
    /// When reading failed.
    pub fn stop(self) -> Result<BTreeSet<String>> {
        self.end.store(true, Ordering::Relaxed);
        self.reader.join().map_err(|_| anyhow!("the capture panicked"))?
    }
}

fn read(
    mut socket: Socket,
    end: &AtomicBool,
    nodes: &BTreeSet<IpAddr>,
    central: &BTreeSet<IpAddr>,
) -> Result<BTreeSet<String>> {
    let mut kinds = BTreeSet::new();
    let mut frame = [0; 2048];
    while !end.load(Ordering::Relaxed) {
        match socket.read(&mut frame) {
            Ok(length) => kinds.extend(classify(&frame[..length], nodes, central)),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("reading from the fabric"),
        }
    }
    Ok(kinds)
}

/// The kind of an Ethernet frame; nothing for what a node says to the central namespace, to a group, or by ARP.
fn classify(frame: &[u8], nodes: &BTreeSet<IpAddr>, central: &BTreeSet<IpAddr>) -> Option<String> {
    let packet = match frame.get(12..14)? {
        [0x08, 0x00] => Packet::v4(frame.get(14..)?)?,
        [0x86, 0xdd] => Packet::v6(frame.get(14..)?)?,
        _ => return None,
    };
    let (source, destination) = (packet.source, packet.destination);
    let local = |ip: &IpAddr| ip.is_unspecified() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let known = |ip: &IpAddr| nodes.contains(ip) || central.contains(ip) || local(ip);
    if destination.is_multicast()
        || (known(&source) && known(&destination) && !(nodes.contains(&source) && nodes.contains(&destination)))
    {
        return None;
    }
    if !known(&source) || !known(&destination) {
        return Some(format!("foreign {source} {destination}"));
    }
    packet.kind()
}

/// An IP packet, or the start of one.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &'a [u8],
}

impl Packet<'_> {
    fn v4(bytes: &[u8]) -> Option<Packet<'_>> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
        let payload = bytes.get(usize::from(bytes.first()? & 0x0f) * 4..)?;
        Some(Packet { source: address(12)?, destination: address(16)?, protocol: *bytes.get(9)?, payload })
    }

    fn v6(bytes: &[u8]) -> Option<Packet<'_>> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?));
        let payload = bytes.get(40..)?;
        Some(Packet { source: address(8)?, destination: address(24)?, protocol: *bytes.get(6)?, payload })
    }

    /// `unreachable KIND` for the error that says so of such a packet, which it holds after 8 bytes (RFC 792, RFC 4443 section 3.1).
    fn kind(&self) -> Option<String> {
        Some(match (self.protocol, self.payload.first()?) {
            (6, _) => format!("tcp {}", port(self.payload)?),
            (17, _) => format!("udp {}", port(self.payload)?),
            (1, 3) => format!("unreachable {}", Packet::v4(self.payload.get(8..)?)?.kind()?),
            (58, 1) => format!("unreachable {}", Packet::v6(self.payload.get(8..)?)?.kind()?),
            (1, kind) => format!("icmp {kind}"),
            (58, kind) => format!("icmpv6 {kind}"),
            (other, _) => format!("ip protocol {other}"),
        })
    }
}

/// The destination port.
fn port(payload: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(payload.get(2..4)?.try_into().ok()?))
}

/// Counts frames that come in by links while something is done: those that match nftables expressions, each with a name. Returns how many of
/// each, of all links together.
///
/// # Errors
/// When nft refuses an expression, or what `work` says.
pub fn counted(
    scene: &Scene,
    links: &[String],
    expressions: &[(&str, &str)],
    work: impl FnOnce() -> Result<()>,
) -> Result<BTreeMap<String, u64>> {
    let rules: String = expressions.iter().map(|(name, what)| format!("{what} counter comment \"{name}\"; ")).collect();
    let chain =
        |link: &String| format!("chain {link} {{ type filter hook ingress device \"{link}\" priority 0; {rules}}}; ");
    let chains: String = links.iter().map(chain).collect();
    scene.checked(&["nft", &format!("table netdev counted {{ {chains}}}")])?;
    let done = work();
    let list = scene.checked(&["nft", "-j", "list", "table", "netdev", "counted"]);
    scene.checked(&["nft", "delete", "table", "netdev", "counted"])?;
    done?;
    let list: Value = serde_json::from_str(&list?).context("reading counters")?;
    let mut counts = BTreeMap::new();
    for rule in list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["rule"]) {
        let packets =
            rule["expr"].as_array().and_then(|parts| parts.iter().find_map(|part| part["counter"]["packets"].as_u64()));
        if let (Some(name), Some(packets)) = (rule["comment"].as_str(), packets) {
            *counts.entry(name.to_owned()).or_default() += packets;
        }
    }
    Ok(counts)
}
