//! Messages of DHCP for IPv4 (RFC 2131, section 2; options of RFC 2132, and the routes of RFC 3442), those that a client sends and reads.
//!
//! Of our own: the crate for it, dhcproto, brings all options of both families, and a DNS library for those that hold names. Input: bytes of others, from
//! which anything may come. Must not: know when a message is sent.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use ovenbird_api::Mac;

/// Length of what is before the options, and of the least message that old relays pass on.
const FIXED: usize = 236;
const LEAST: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// `op`.
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// The server is to answer by broadcast, for OVN lets nothing in for an address that it does not know yet.
const BROADCAST: [u8; 2] = [0x80, 0];
/// Options.
const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const HOST_NAME: u8 = 12;
const MTU: u8 = 26;
const REQUESTED: u8 = 50;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const CLIENT_ID: u8 = 61;
const ROUTES: u8 = 121;
const END: u8 = 255;
/// What is asked of the server.
const WANTED: [u8; 7] = [MASK, ROUTER, MTU, LEASE_TIME, RENEWAL_TIME, REBINDING_TIME, ROUTES];
/// Least MTU that is believed (RFC 2132, section 5.1, says 68; with less than this IPv4 is of no use).
const LEAST_MTU: u16 = 576;

/// What a client says (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has an address for me?
    Discover = 1,
    /// I want this one.
    Request = 3,
    /// Somebody else uses this one.
    Decline = 4,
    /// I do not need it any more.
    Release = 7,
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// You may have this address.
    Offer,
    /// It is yours.
    Ack,
    /// It is not yours.
    Nak,
}

/// A message to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub kind: Kind,
    /// Which exchange.
    pub xid: u32,
    /// Seconds since it began.
    pub secs: u16,
    /// The client.
    pub mac: Mac,
    /// Its address, while that is its own; otherwise unspecified (`ciaddr`).
    pub address: Ipv4Addr,
    /// The address that it asks for.
    pub requested: Option<Ipv4Addr>,
    /// The server that is meant.
    pub server: Option<Ipv4Addr>,
    /// Its name; may be empty.
    pub host_name: String,
}

/// A message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What.
    pub said: Said,
    /// Which exchange.
    pub xid: u32,
    /// The client that is meant.
    pub mac: Mac,
    /// Who it is.
    pub server: Ipv4Addr,
    /// Its offer; `None` when there is none that could be used.
    pub terms: Option<Terms>,
}

/// An address and how long it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The address, with the prefix length of its subnet.
    pub address: Ipv4Net,
    /// Default gateway.
    pub router: Option<Ipv4Addr>,
    /// MTU of the network.
    pub mtu: Option<u32>,
    /// Routes: destination, next hop; none for an unspecified one. When there are any, they count and not the router (RFC 3442).
    pub routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
    /// Seconds; `u32::MAX` for ever.
    pub lease: u32,
    /// Seconds until it is to be renewed (T1).
    pub renewal: Option<u32>,
    /// Seconds until any server is asked (T2).
    pub rebinding: Option<u32>,
}

impl Request {
    /// The message, to be sent to port 67.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![REQUEST, 1, 6, 0];
        out.extend(self.xid.to_be_bytes());
        out.extend(self.secs.to_be_bytes());
        let is_known = !self.address.is_unspecified();
        out.extend(if is_known { [0, 0] } else { BROADCAST });
        out.extend(self.address.octets());
        out.resize(28, 0);
        out.extend(self.mac.0);
        out.resize(FIXED, 0);
        out.extend(COOKIE);
        let mut option = |code: u8, value: &[u8]| {
            let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
            out.extend([code, length]);
            out.extend(value.iter().take(usize::from(length)));
        };
        option(KIND, &[self.kind as u8]);
        option(CLIENT_ID, &[&[1][..], &self.mac.0].concat());
        if let Some(address) = self.requested {
            option(REQUESTED, &address.octets());
        }
        if let Some(server) = self.server {
            option(SERVER, &server.octets());
        }
        if matches!(self.kind, Kind::Discover | Kind::Request) {
            if !self.host_name.is_empty() {
                option(HOST_NAME, self.host_name.as_bytes());
            }
            option(PARAMETERS, &WANTED);
        }
        out.push(END);
        out.resize(out.len().max(LEAST), PAD);
        out
    }
}

impl Reply {
    /// Reads what came to port 68; `None` for what is no message of a server.
    pub fn decode(bytes: &[u8]) -> Option<Reply> {
        if !bytes.starts_with(&[REPLY, 1, 6]) || bytes.get(FIXED..FIXED + 4)? != COOKIE {
            return None;
        }
        let options = Options(bytes.get(FIXED + 4..)?);
        let said = match options.get(KIND)?.first()? {
            2 => Said::Offer,
            5 => Said::Ack,
            6 => Said::Nak,
            _ => return None,
        };
        Some(Reply {
            said,
            xid: u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?),
            mac: Mac(bytes.get(28..34)?.try_into().ok()?),
            server: options.address(SERVER)?,
            terms: address(bytes.get(16..20)?).and_then(|own| options.terms(own)),
        })
    }
}

/// The options of a message, one after the other.
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// An option's value; of one that comes in parts all together (RFC 3396).
    fn get(&self, code: u8) -> Option<Vec<u8>> {
        let mut found: Option<Vec<u8>> = None;
        let mut rest = self.0;
        loop {
            match rest {
                [] | [END, ..] => return found,
                [PAD, after @ ..] => rest = after,
                [own, length, after @ ..] => {
                    let value: &'a [u8] = after.get(..usize::from(*length))?;
                    if *own == code {
                        found.get_or_insert_default().extend(value);
                    }
                    rest = &after[value.len()..];
                }
                [_] => return None,
            }
        }
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        address(self.get(code)?.get(..4)?)
    }

    fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    fn terms(&self, own: Ipv4Addr) -> Option<Terms> {
        let address = Ipv4Net::with_netmask(own, self.address(MASK)?).ok()?;
        let is_hosts = !own.is_unspecified() && !own.is_broadcast() && !own.is_multicast() && !own.is_loopback();
        let router = self.address(ROUTER).filter(|router| !router.is_unspecified());
        let mtu = self.get(MTU).and_then(|mtu| Some(u16::from_be_bytes(mtu.try_into().ok()?)));
        let terms = Terms {
            address,
            router,
            mtu: mtu.filter(|mtu| *mtu >= LEAST_MTU).map(u32::from),
            routes: self.get(ROUTES).map(|bytes| routes(&bytes)).unwrap_or_default(),
            lease: self.number(LEASE_TIME)?,
            renewal: self.number(RENEWAL_TIME),
            rebinding: self.number(REBINDING_TIME),
        };
        (is_hosts && terms.lease > 0).then_some(terms)
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// RFC 3442: prefix length, as many bytes of the destination as it takes, next hop. Of a text that breaks off, none.
fn routes(bytes: &[u8]) -> Vec<(Ipv4Net, Option<Ipv4Addr>)> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while let [length, after @ ..] = rest {
        let significant = usize::from(length.div_ceil(8));
        let (Some(destination), Some(hop)) = (after.get(..significant), after.get(significant..significant + 4)) else {
            return Vec::new();
        };
        let mut octets = [0; 4];
        let Some(place) = octets.get_mut(..significant) else { return Vec::new() };
        place.copy_from_slice(destination);
        let (Ok(net), Some(hop)) = (Ipv4Net::new(octets.into(), *length), address(hop)) else { return Vec::new() };
        found.push((net.trunc(), Some(hop).filter(|hop| !hop.is_unspecified())));
        rest = &after[significant + 4..];
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const MAC: Mac = Mac([0x1e, 0, 0, 0, 0, 1]);

    pub(crate) fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    /// A server's message with these options.
    pub(crate) fn reply(xid: u32, own: &str, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![REPLY, 1, 6, 0];
        out.extend(xid.to_be_bytes());
        out.resize(16, 0);
        out.extend(ip(own).octets());
        out.resize(28, 0);
        out.extend(MAC.0);
        out.resize(FIXED, 0);
        out.extend(COOKIE);
        for (code, value) in options {
            out.extend([*code, u8::try_from(value.len()).unwrap()]);
            out.extend(*value);
        }
        out.push(END);
        out
    }

    #[test]
    fn a_discover_is_as_the_rfcs_have_it() {
        let request = Request {
            kind: Kind::Discover,
            xid: 0x0102_0304,
            secs: 3,
            mac: MAC,
            address: Ipv4Addr::UNSPECIFIED,
            requested: Some(ip("192.168.100.50")),
            server: None,
            host_name: "web-0".into(),
        };
        let bytes = request.encode();
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 3, 0x80, 0]);
        assert_eq!(bytes[28..34], MAC.0);
        let options = Options(&bytes[FIXED + 4..]);
        assert_eq!(options.get(KIND), Some(vec![1]));
        assert_eq!(options.get(CLIENT_ID), Some(vec![1, 0x1e, 0, 0, 0, 0, 1]));
        assert_eq!(options.address(REQUESTED), Some(ip("192.168.100.50")));
        assert_eq!(options.get(HOST_NAME), Some(b"web-0".to_vec()));
        assert_eq!((options.get(SERVER), bytes.len()), (None, LEAST));
        // Who has an address is answered there.
        let renewal =
            Request { kind: Kind::Request, address: ip("192.168.100.50"), requested: None, ..request }.encode();
        assert_eq!((&renewal[10..12], &renewal[12..16]), (&[0, 0][..], &[192, 168, 100, 50][..]));
    }

    #[test]
    fn an_ack_is_read() {
        let mask = [255, 255, 255, 0];
        let server = [192, 168, 100, 250];
        let routes = [24, 10, 9, 8, 192, 168, 100, 1, 0, 0, 0, 0, 0];
        let all: [(u8, &[u8]); 8] = [
            (KIND, &[5]),
            (SERVER, &server),
            (MASK, &mask),
            (ROUTER, &server),
            (LEASE_TIME, &[0, 0, 0, 120]),
            (RENEWAL_TIME, &[0, 0, 0, 5]),
            (MTU, &[5, 0]),
            (ROUTES, &routes),
        ];
        let read = Reply::decode(&reply(7, "192.168.100.50", &all)).unwrap();
        assert_eq!((read.said, read.xid, read.mac, read.server), (Said::Ack, 7, MAC, ip("192.168.100.250")));
        let terms = read.terms.unwrap();
        assert_eq!(
            (terms.address.to_string(), terms.router),
            ("192.168.100.50/24".into(), Some(ip("192.168.100.250")))
        );
        assert_eq!((terms.lease, terms.renewal, terms.rebinding, terms.mtu), (120, Some(5), None, Some(1280)));
        assert_eq!(
            terms.routes,
            [("10.9.8.0/24".parse().unwrap(), Some(ip("192.168.100.1"))), ("0.0.0.0/0".parse().unwrap(), None)]
        );
        // Without what it takes there are no terms; without a server it is no answer.
        for without in [2, 4] {
            let rest: Vec<_> = all.iter().enumerate().filter(|(i, _)| *i != without).map(|(_, o)| *o).collect();
            assert_eq!(Reply::decode(&reply(7, "192.168.100.50", &rest)).unwrap().terms, None);
        }
        assert_eq!(Reply::decode(&reply(7, "192.168.100.50", &all[..1])), None);
        assert_eq!(Reply::decode(&reply(7, "0.0.0.0", &all)).unwrap().terms, None);
        let nak = Reply::decode(&reply(7, "0.0.0.0", &[(KIND, &[6]), (SERVER, &server)])).unwrap();
        assert_eq!((nak.said, nak.terms), (Said::Nak, None));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(
            bytes in prop::collection::vec(any::<u8>(), 0..400), options in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            let _ = Reply::decode(&bytes);
            let mut own = reply(7, "192.168.100.50", &[]);
            own.pop();
            own.extend(&options);
            let _ = Reply::decode(&own);
            let _ = routes(&options);
        }
    }
}
