//! MAC addresses, and the rule that makes one from an IP address.
//!
//! Two hosts of one switch have different addresses, so their MACs differ (IPv4 exactly, IPv6 up to a 32-bit hash), and a MAC
//! needs no allocation. Must not: know which ports have MACs.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A 48-bit MAC address; its text is lower-case hexadecimal with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is not six hexadecimal pairs with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address of the form 0a:58:0a:80:00:03")]
pub struct MacError;

impl Mac {
    /// `0a:58` and the four octets of an IPv4 address, or the first four bytes of the SHA-256 of an IPv6 address' text.
    pub fn of(address: IpAddr) -> Mac {
        let [a, b, c, d] = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let digest = Sha256::digest(v6.to_string().as_bytes());
                [digest[0], digest[1], digest[2], digest[3]]
            }
        };
        Mac([0x0a, 0x58, a, b, c, d])
    }

    /// The MAC of a pod whose address is not known beforehand: `?e` and 44 bits of the SHA-256 of its UID, so that it is locally administered, nobody's by
    /// rule above, and for 10 000 pods of one network twice there with a probability of 3 in a million.
    pub fn of_uid(uid: &str) -> Mac {
        let [a, b, c, d, e, f, ..]: [u8; 32] = Sha256::digest(uid.as_bytes()).into();
        Mac([a & 0xf0 | 0x0e, b, c, d, e, f])
    }

    /// The MAC of a port with these addresses: by the first IPv4 address, otherwise by the first; `None` without addresses.
    pub fn of_any(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Mac> {
        let mut first = None;
        for address in addresses {
            if address.is_ipv4() {
                return Some(Mac::of(address));
            }
            first = first.or(Some(address));
        }
        first.map(Mac::of)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Mac, MacError> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or(MacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Mac(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        Mac::of(text.parse().unwrap()).to_string()
    }

    #[test]
    fn a_mac_follows_from_the_address() {
        assert_eq!(of("10.129.0.3"), "0a:58:0a:81:00:03");
        // printf fd01::3 | sha256sum: 48dda946...
        assert_eq!(of("fd01::3"), "0a:58:48:dd:a9:46");
        let dual = ["fd01::3".parse().unwrap(), "10.129.0.3".parse().unwrap()];
        assert_eq!(Mac::of_any(dual).unwrap().to_string(), "0a:58:0a:81:00:03", "IPv4 decides");
        assert_eq!(Mac::of_any([]), None);
        // printf u1 | sha256sum: bb82030dbc2b...
        assert_eq!(Mac::of_uid("u1").to_string(), "be:82:03:0d:bc:2b");
    }

    #[test]
    fn text_and_back() {
        assert_eq!("0A:58:0a:81:00:03".parse::<Mac>().unwrap().to_string(), "0a:58:0a:81:00:03");
        for bad in
            ["", "0a:58:0a:81:00", "0a:58:0a:81:00:03:04", "0a:58:0a:81:00:+3", "a:58:0a:81:00:03", "0a-58-0a-81-00-03"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(MacError), "{bad}");
        }
    }
}
