//! A packet socket on the link of a sandbox, by which a client of DHCP speaks while the sandbox has no address, and hears nothing but answers.
//!
//! Opened by a thread inside the sandbox, used from the runtime. Must not: know what the messages say.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use ovenbird_api::Mac;
use socket2::{SockFilter, Socket};
use tokio::net::UnixDatagram;

use super::frame;
use crate::net::{NetError, netns, packet};

/// Longest frame that is read; a message is 576 bytes at most, unless both agree on more (RFC 2131, section 2).
const LONGEST: usize = 1600;

/// See the file header.
pub struct Wire {
    /// Not of this family, but to the runtime datagrams are datagrams.
    socket: UnixDatagram,
    ifname: String,
}

impl Wire {
    /// On a link of a sandbox.
    ///
    /// # Errors
    /// When the sandbox or the link is gone.
    pub async fn open(sandbox: &Path, ifname: &str) -> Result<Wire, NetError> {
        let name = ifname.to_owned();
        let socket = netns::run(sandbox, move || open(&name).map_err(|e| NetError::Dhcp(name, e))).await?;
        let socket = std::os::unix::net::UnixDatagram::from(OwnedFd::from(socket));
        let socket = UnixDatagram::from_std(socket).map_err(|e| NetError::Dhcp(ifname.to_owned(), e))?;
        Ok(Wire { socket, ifname: ifname.to_owned() })
    }

    /// Sends a frame, or loses it, as the wire would.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn send(&self, frame: &[u8]) -> Result<(), NetError> {
        match self.socket.send(frame).await {
            Ok(_) => Ok(()),
            Err(e) if is_passing(&e) => Ok(()),
            Err(e) => Err(NetError::Dhcp(self.ifname.clone(), e)),
        }
    }

    /// The next message of a server, and the MAC that it came from.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn receive(&self) -> Result<(Vec<u8>, Mac), NetError> {
        let mut buffer = [0; LONGEST];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => {
                    if let Some((message, mac)) = frame::unwrap(&buffer[..length]) {
                        return Ok((message.to_vec(), mac));
                    }
                }
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(NetError::Dhcp(self.ifname.clone(), e)),
            }
        }
    }
}

/// A link that is down, or full, for a moment.
fn is_passing(error: &io::Error) -> bool {
    let full = error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32);
    full || matches!(error.kind(), ErrorKind::NetworkDown | ErrorKind::Interrupted)
}

fn open(ifname: &str) -> io::Result<Socket> {
    let socket = packet::open(ifname, packet::IPV4, &answers())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// UDP to port 68, and no fragment of it: what else the pod hears must not fill the socket (classic BPF, bpf(4)).
fn answers() -> [SockFilter; 9] {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_HALF_FROM_X: u16 = 0x48;
    const X_IS_HEADER_LENGTH: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    // Of a frame: EtherType at 12, IPv4 behind it at 14; of that flags and fragment at 6, protocol at 9.
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 14 + 9),
        SockFilter::new(IF_EQUAL, 0, 6, 17),
        SockFilter::new(LOAD_HALF, 0, 0, 14 + 6),
        SockFilter::new(IF_ANY_BIT, 4, 0, 0x1fff),
        SockFilter::new(X_IS_HEADER_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_HALF_FROM_X, 0, 0, 14 + 2),
        SockFilter::new(IF_EQUAL, 0, 1, 68),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
