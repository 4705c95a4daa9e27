//! Services for tests: manifests with hand-made slices, responders that say who they are, and clients that ask them.
//!
//! In: places, names, addresses. Out: YAML; who answered and which source it saw. It must not know what a test proves with them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ovenbird_lab::Place;
use serde_json::{Value, json};
use socket2::SockRef;

/// Port of responders.
pub const PORT: u16 = 8000;
/// After this, silence counts as silence.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often a responder looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An endpoint answered.
    From {
        /// Name of the responder.
        name: String,
        /// Source that it saw.
        source: IpAddr,
    },
    /// The connection was refused.
    Refused,
    /// Nothing came back.
    Silence,
}

impl Answer {
    /// Name of the endpoint that answered, or what came instead.
    pub fn name(&self) -> &str {
        match self {
            Answer::From { name, .. } => name,
            Answer::Refused => "refused",
            Answer::Silence => "silence",
        }
    }
}

/// Answers on [`PORT`] over TCP and UDP, in both families, with its name and the source that it sees.
#[derive(Debug)]
pub struct Responder {
    end: Arc<AtomicBool>,
    listener: TcpListener,
    workers: Vec<JoinHandle<()>>,
}

impl Responder {
    /// Starts in a place.
    ///
    /// # Errors
    /// When the port is taken there.
    pub fn start(place: &Place, name: &str) -> Result<Responder> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let (listener, datagrams) = place.run(|| {
            let listener = TcpListener::bind(any).context("listening")?;
            Ok((listener, UdpSocket::bind(any).context("binding a datagram socket")?))
        })?;
        datagrams.set_read_timeout(Some(TICK)).context("setting a time limit")?;
        let end = Arc::new(AtomicBool::new(false));
        let (streams, flag) = (listener.try_clone().context("cloning a socket")?, end.clone());
        let (tcp, udp) = (name.to_owned(), name.to_owned());
        let workers = vec![
            std::thread::spawn(move || answer_streams(&streams, &tcp)),
            std::thread::spawn(move || answer_datagrams(&datagrams, &udp, &flag)),
        ];
        Ok(Responder { end, listener, workers })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn answer_streams(listener: &TcpListener, name: &str) {
    while let Ok((mut stream, peer)) = listener.accept() {
        // A client that has gone needs no answer.
        let _ = stream.write_all(answer(name, peer).as_bytes());
    }
}

fn answer_datagrams(socket: &UdpSocket, name: &str, end: &AtomicBool) {
    let mut buffer = [0; 64];
    while !end.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(answer(name, peer).as_bytes(), peer);
        }
    }
}

fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}", peer.ip().to_canonical())
}

/// Asks an address once.
///
/// # Errors
/// When the question cannot be asked, or the answer is not that of a responder.
pub fn ask(from: &Place, transport: Transport, to: SocketAddr) -> Result<Answer> {
    let outcome = from.run(|| {
        Ok(match transport {
            Transport::Tcp => ask_stream(to),
            Transport::Udp => ask_datagram(to),
        })
    })?;
    match outcome {
        Ok(text) => {
            let (name, source) = text.split_once(' ').with_context(|| format!("{to} answers {text:?}"))?;
            let source = source.parse().with_context(|| format!("{to} answers {text:?}"))?;
            Ok(Answer::From { name: name.to_owned(), source })
        }
        // What nftables rejects on its way out of a host ends the call itself.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied) => {
            Ok(Answer::Refused)
        }
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(Answer::Silence),
        Err(error) => bail!("asking {to}: {error}"),
    }
}

fn ask_stream(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_datagram(to: SocketAddr) -> std::io::Result<String> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A Service with these cluster addresses, TCP port 80 and UDP port 53; `more` is merged into its spec.
pub fn service(namespace: &str, name: &str, ips: &[IpAddr], annotations: &Value, more: Value) -> String {
    let families: Vec<&str> = ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let mut spec = json!({
        "clusterIP": ips.first(), "clusterIPs": ips, "ipFamilies": families,
        "ipFamilyPolicy": if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" },
        "ports": [
            {"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP"},
            {"name": "udp", "port": 53, "targetPort": PORT, "protocol": "UDP"},
        ],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    document(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "annotations": annotations}, "spec": spec,
    }))
}

/// The slices of a Service: one for each family. Endpoints are a node and an address each.
pub fn slices(namespace: &str, service: &str, endpoints: &[(&str, IpAddr)]) -> String {
    let slice = |(v4, family): (bool, &str)| {
        let of_family = endpoints.iter().filter(|(_, ip)| ip.is_ipv4() == v4);
        let endpoints: Vec<Value> = of_family
            .map(|(node, ip)| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}))
            .collect();
        document(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace, "name": format!("{service}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "tcp", "port": PORT, "protocol": "TCP"}, {"name": "udp", "port": PORT, "protocol": "UDP"}],
        }))
    };
    [(true, "IPv4"), (false, "IPv6")].map(slice).concat()
}

fn document(object: &Value) -> String {
    format!("---\n{object}\n")
}
