//! Switches transmit checksum offload of a link off (`ethtool -K DEV tx off`): the one thing that netlink of all supported
//! kernels cannot do, hence an ioctl, and the only unsafe code of this crate.
//!
//! Without it, packets that leave a veth or tap have no checksum yet, and a user-space datapath hands them on as they are: the
//! receiver drops TCP while ping works. Must not: do anything else.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_STXCSUM` of linux/ethtool.h.
const SET_TX_CHECKSUM: u32 = 0x17;
/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Switches it off for a link of the calling thread's network namespace.
///
/// # Errors
/// Those of socket(2) and of the ioctl, e.g. ENODEV.
pub fn disable_tx_checksum(link: &str) -> io::Result<()> {
    let bytes = link.as_bytes();
    if bytes.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let mut value = EthtoolValue { cmd: SET_TX_CHECKSUM, data: 0 };
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() } };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    #[allow(
        unsafe_code,
        reason = "SIOCETHTOOL has no safe wrapper; both structs outlive the call and are what it expects"
    )]
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
