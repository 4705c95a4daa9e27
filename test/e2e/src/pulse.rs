//! Paced streams: a numbered block every so often, which must come back; over UDP and TCP. What is lost and how long nothing comes is known.
//!
//! In: places, an echo's address. Out: counts, the longest silence. It must not connect again, nor send a block twice.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ovenbird_lab::{Place, wait_for};

use crate::LIMIT;
use crate::witness::Protocol;

/// Bytes of a block: its number.
const BLOCK: usize = 8;
/// How long the last blocks may be on their way.
const LATE: Duration = Duration::from_secs(2);

/// Sends back what comes to a port of these addresses, over both protocols, until this process ends.
///
/// # Errors
/// When the port is taken.
pub fn echo(place: &Place, addresses: &[IpAddr], port: u16) -> Result<()> {
    for address in addresses.iter().map(|ip| SocketAddr::new(*ip, port)) {
        let (tcp, udp) = place.run(|| {
            let tcp = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
            Ok((tcp, UdpSocket::bind(address).with_context(|| format!("binding {address}"))?))
        })?;
        std::thread::spawn(move || {
            while let Ok((stream, _)) = tcp.accept() {
                std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        std::thread::spawn(move || {
            let mut block = [0; 64];
            // What ICMP says of an answer shows up at the next question, and is nothing to stop for.
            loop {
                if let Ok((length, peer)) = udp.recv_from(&mut block) {
                    let _ = udp.send_to(&block[..length], peer);
                }
            }
        });
    }
    Ok(())
}

/// A running stream.
#[derive(Debug)]
pub struct Pulse {
    name: String,
    end: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
    worker: JoinHandle<()>,
}

/// What is known of a stream since it was looked at last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lap {
    /// Blocks sent.
    pub sent: u64,
    /// Blocks that did not come back: of a stream that goes on, those sent before one that did; of one that is silent, all.
    pub lost: usize,
    /// The longest time between two blocks that came back.
    pub silence: Duration,
    /// Why the stream is over, if it is.
    pub broken: Option<String>,
}

#[derive(Debug)]
struct State {
    sent: u64,
    /// One more than the newest block that has come back.
    newest: u64,
    echoes: u64,
    outstanding: BTreeSet<u64>,
    last: Instant,
    silence: Duration,
    broken: Option<String>,
    lap_began: u64,
}

impl State {
    fn came_back(&mut self, number: u64) {
        let silence = self.last.elapsed();
        self.silence = self.silence.max(silence);
        self.last = Instant::now();
        self.newest = self.newest.max(number + 1);
        self.echoes += u64::from(self.outstanding.remove(&number));
    }

    fn overtaken(&self) -> usize {
        self.outstanding.range(..self.newest).count()
    }
}

impl Pulse {
    /// Connects from a place, waits for the first block to come back, and goes on with one each `period`. `name` is for complaints.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn start(name: String, from: &Place, protocol: Protocol, to: SocketAddr, period: Duration) -> Result<Pulse> {
        let wire = from.run(|| Wire::open(protocol, to).with_context(|| format!("connecting {name}")))?;
        let state = State {
            sent: 0,
            newest: 0,
            echoes: 0,
            outstanding: BTreeSet::new(),
            last: Instant::now(),
            silence: Duration::ZERO,
            broken: None,
            lap_began: 0,
        };
        let (end, state) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(state)));
        let (flag, shared) = (end.clone(), state.clone());
        let worker = std::thread::spawn(move || {
            if let Err(error) = beat(wire, period, &flag, &shared) {
                lock(&shared).broken = Some(format!("{error:#}"));
            }
        });
        let pulse = Pulse { name, end, state, worker };
        go_on(&[&pulse], 1)?;
        pulse.lap();
        Ok(pulse)
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lap(&self) -> Lap {
        let mut state = lock(&self.state);
        let lap = Lap {
            sent: state.sent - state.lap_began,
            lost: if state.last.elapsed() < LATE { state.overtaken() } else { state.outstanding.len() },
            silence: state.silence.max(state.last.elapsed()),
            broken: state.broken.clone(),
        };
        let newest = state.newest;
        state.outstanding.retain(|number| *number >= newest);
        (state.lap_began, state.silence) = (state.sent, Duration::ZERO);
        lap
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When its thread panicked.
    pub fn stop(self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        self.worker.join().map_err(|_| anyhow!("the stream panicked"))
    }
}

/// Waits until this many more blocks of each stream have come back.
///
/// # Errors
/// When a stream is broken, or nothing comes any more.
pub fn go_on(pulses: &[&Pulse], count: u64) -> Result<()> {
    let goals: Vec<_> = pulses.iter().map(|pulse| (pulse, lock(&pulse.state).echoes + count)).collect();
    for (pulse, goal) in goals {
        let mut broken = None;
        wait_for("a stream to go on", LIMIT, || {
            let state = lock(&pulse.state);
            broken.clone_from(&state.broken);
            state.echoes >= goal || broken.is_some()
        })
        .with_context(|| pulse.name.clone())?;
        ensure!(broken.is_none(), "{} broke: {}", pulse.name, broken.unwrap_or_default());
    }
    Ok(())
}

/// Waits a moment for blocks that are late, tells what has happened to each stream since its last lap, and begins a new one.
pub fn laps(pulses: &[&Pulse]) -> Vec<Lap> {
    let _ = wait_for("late blocks", LATE, || pulses.iter().all(|pulse| lock(&pulse.state).overtaken() == 0));
    pulses.iter().map(|pulse| pulse.lap()).collect()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The client's end.
enum Wire {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Wire {
    fn open(protocol: Protocol, to: SocketAddr) -> io::Result<Wire> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Ok(match protocol {
            Protocol::Tcp => {
                let stream = TcpStream::connect_timeout(&to, LIMIT)?;
                stream.set_nodelay(true)?;
                Wire::Stream(stream)
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(to)?;
                Wire::Datagrams(socket)
            }
        })
    }

    fn send(&mut self, block: &[u8]) -> io::Result<()> {
        match self {
            Wire::Stream(stream) => stream.write_all(block),
            Wire::Datagrams(socket) => match socket.send(block) {
                // An ICMP error about an earlier datagram, or a neighbour that is being looked for: this one is lost, and counted so.
                Err(error) if error.kind() != ErrorKind::InvalidInput => Ok(()),
                sent => sent.map(drop),
            },
        }
    }

    /// Reads what has come, for this long at most.
    fn receive(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        let received = match self {
            Wire::Stream(stream) => stream.set_read_timeout(Some(limit)).and_then(|()| stream.read(buffer)),
            Wire::Datagrams(socket) => socket.set_read_timeout(Some(limit)).and_then(|()| socket.recv(buffer)),
        };
        match received {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end closed it")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(_) if matches!(self, Wire::Datagrams(_)) => Ok(0),
            received => received,
        }
    }
}

fn beat(mut wire: Wire, period: Duration, end: &AtomicBool, state: &Mutex<State>) -> Result<()> {
    let (mut buffer, mut held) = ([0; 4096], 0);
    let mut next = Instant::now();
    while !end.load(Ordering::Relaxed) {
        let number = {
            let mut state = lock(state);
            let number = state.sent;
            state.outstanding.insert(number);
            state.sent += 1;
            number
        };
        wire.send(&number.to_be_bytes()).context("sending")?;
        // A thread that was late does not catch up by a burst.
        next = (next + period).max(Instant::now());
        while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            held += wire.receive(&mut buffer[held..], left).context("receiving")?;
            let whole = held - held % BLOCK;
            for block in buffer[..whole].chunks_exact(BLOCK) {
                let Ok(bytes) = block.try_into() else { bail!("a block of another length") };
                lock(state).came_back(u64::from_be_bytes(bytes));
            }
            buffer.copy_within(whole..held, 0);
            held -= whole;
        }
    }
    Ok(())
}
