//! Who answers, and whom the answerer sees: responders over TCP and UDP that say both, and the question to them.
//!
//! ```text
//! asker --> connects            witness --> "NAME ADDRESS\n", waits for the end
//!       --> has read: resets
//! ```
//! Nobody is left with a connection that is over (TIME_WAIT), and no two have the same source port. For where conntrack has been flushed, OVN
//! translates two pods to one address and port; in user space the second's connection hangs when the target still knows the first's.
//!
//! In: places (pods, nodes, the host outside), addresses. Out: answers, or how silence came about. It must not know Services.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ovenbird_lab::Place;
use socket2::{Domain, SockRef, Socket, Type};

/// How long a datagram's answer is waited for before it is sent again.
const RESEND: Duration = Duration::from_millis(200);
/// How long a witness waits for who has asked to end the connection.
const FAREWELL: Duration = Duration::from_secs(5);
/// Ports that connections are made from (ip(7), ip_local_port_range).
const PORTS: Range<u16> = 32_768..61_000;
/// How many ports have been taken for connections, one after the other.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// A protocol that the witnesses speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a witness said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub who: String,
    /// The source address of the question as it arrived there.
    pub seen: IpAddr,
}

/// Why nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// A reset, or ICMP unreachable.
    Refused,
    /// Nothing came back.
    Timeout,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// Makes a witness of a place: on each of its addresses, on a port, over both protocols, until this process ends.
///
/// # Errors
/// When the port is taken.
pub fn stand(place: &Place, name: &str, addresses: &[IpAddr], port: u16) -> Result<()> {
    for address in addresses.iter().map(|ip| SocketAddr::new(*ip, port)) {
        let (tcp, udp) = place.run(|| {
            let tcp = TcpListener::bind(address).with_context(|| format!("{name}: listening on {address}"))?;
            Ok((tcp, UdpSocket::bind(address).with_context(|| format!("{name}: binding {address}"))?))
        })?;
        let say = name.to_owned();
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = tcp.accept() {
                let statement = statement(&say, peer) + "\n";
                std::thread::spawn(move || tell(stream, &statement));
            }
        });
        let say = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(statement(&say, peer).as_bytes(), peer);
            }
        });
    }
    Ok(())
}

/// Says it, and lets the other end the connection. Whatever fails is the asker's to see.
fn tell(mut stream: TcpStream, statement: &str) -> io::Result<()> {
    leave_nothing(&stream)?;
    stream.write_all(statement.as_bytes())?;
    stream.set_read_timeout(Some(FAREWELL))?;
    stream.read(&mut [0]).map(drop)
}

/// Of a connection that is dropped nothing stays here, and a reset goes out (tcp(7), SO_LINGER of zero).
fn leave_nothing(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn statement(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}", peer.ip().to_canonical())
}

/// Asks once, from a place. A refusal or silence is an answer, too.
///
/// # Errors
/// When the place cannot be entered, or something that is no witness answers.
pub fn ask(place: &Place, protocol: Protocol, to: SocketAddr, limit: Duration) -> Result<Result<Answer, Silence>> {
    let outcome = place.run(|| {
        Ok(match protocol {
            Protocol::Tcp => ask_tcp(to, limit),
            Protocol::Udp => ask_udp(to, limit),
        })
    })?;
    match outcome {
        Ok(text) => {
            let (who, seen) = text.split_once(' ').ok_or_else(|| anyhow!("{protocol} {to} said {text:?}"))?;
            Ok(Ok(Answer { who: who.to_owned(), seen: seen.parse().context("an address")? }))
        }
        Err(error) => match error.kind() {
            // What ICMP says may come as any of these; where the host's own nftables refuses a datagram, the call fails (EPERM).
            ErrorKind::ConnectionRefused
            | ErrorKind::PermissionDenied
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => Ok(Err(Silence::Refused)),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Err(Silence::Timeout)),
            _ => Err(error).with_context(|| format!("asking {protocol} {to}")),
        },
    }
}

fn ask_tcp(to: SocketAddr, limit: Duration) -> io::Result<String> {
    let stream = connect(to, limit)?;
    leave_nothing(&stream)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    BufReader::new(&stream).read_line(&mut text)?;
    Ok(text.trim_end().to_owned())
}

/// Connects, from a port that no other connection of this process has had for long.
fn connect(to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    loop {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        let turn = ASKED.fetch_add(1, Relaxed) as usize % PORTS.len();
        let port = PORTS.clone().nth(turn).unwrap_or(PORTS.start);
        match socket.bind(&SocketAddr::new(any(to), port).into()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
            bound => bound?,
        }
        socket.connect_timeout(&to.into(), limit)?;
        return Ok(socket.into());
    }
}

/// Any address of the family.
fn any(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn ask_udp(to: SocketAddr, limit: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind((any(to), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(RESEND.min(limit)))?;
    let (end, mut buffer) = (Instant::now() + limit, [0; 128]);
    loop {
        socket.send(b"who?")?;
        match socket.recv(&mut buffer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {}
            Err(error) => return Err(error),
        }
    }
}
