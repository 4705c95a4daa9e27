//! Questions about policies: a pod, who is at the other end, and what is sent.
//!
//! ```text
//! web/a   --from db/b | node:n1 | 10.0.0.7   or --to ...   --port tcp/80 | 53 | udp/dns | icmp
//! ```
//!
//! Inputs: texts. Outputs: values that are well-formed, and go as the same texts over the admin socket. Must not: know what there is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use ovenbird_api::Protocol;
use serde::{Deserialize, Serialize};

/// Longest text of a part: a namespace and a pod's name are 317 characters at most.
const LONGEST: usize = 320;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The pod.
    pub pod: PodName,
    /// Who sends to it; with neither this nor `to`, all that isolates the pod is told.
    #[serde(default)]
    pub from: Option<End>,
    /// Whom it sends to.
    #[serde(default)]
    pub to: Option<End>,
    /// What is sent; `None` for whatever may be.
    #[serde(default)]
    pub port: Option<Port>,
}

/// A pod: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodName(String);

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum End {
    /// A pod: `NAMESPACE/NAME`.
    Pod(PodName),
    /// A node and what runs on its network: `node:NAME`.
    Node(String),
    /// An address, of whomever it is.
    Address(IpAddr),
}

/// What is sent: the destination's port, or a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Port {
    /// An ICMP or ICMPv6 message: `icmp`.
    Icmp,
    /// `tcp/80`; without a protocol it is TCP.
    Number(Protocol, u16),
    /// `tcp/http`: the port that the destination calls so.
    Named(Protocol, String),
}

/// A text that is no part of a question. It says what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(String);

impl PodName {
    /// `NAMESPACE/NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

impl FromStr for PodName {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<PodName, QueryError> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [namespace, name] if !namespace.is_empty() && !name.is_empty() && text.len() <= LONGEST => {
                Ok(PodName(text.to_owned()))
            }
            _ => Err(QueryError(format!("{:?} is no pod; write NAMESPACE/POD, e.g. default/web-0", cut(text)))),
        }
    }
}

impl FromStr for End {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<End, QueryError> {
        if let Some(name) = text.strip_prefix("node:").filter(|name| !name.is_empty() && name.len() <= LONGEST) {
            return Ok(End::Node(name.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(End::Address(address));
        }
        if text.parse::<IpNet>().is_ok() {
            return Err(QueryError(format!("{text:?} is a network; ask for one of its addresses")));
        }
        let advice = || {
            QueryError(format!("{:?} is neither a pod (NAMESPACE/POD), a node (node:NAME) nor an address", cut(text)))
        };
        text.parse().map(End::Pod).map_err(|_| advice())
    }
}

impl FromStr for Port {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Port, QueryError> {
        let no = |why: &str| QueryError(format!("{:?} {why}; write e.g. tcp/80, 53, udp/dns or icmp", cut(text)));
        let protocol = |name: &str| Protocol::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(name));
        if text.eq_ignore_ascii_case("icmp") {
            return Ok(Port::Icmp);
        }
        let (of, port) = match text.split_once('/') {
            Some((name, port)) => (protocol(name).ok_or_else(|| no("has no protocol of tcp, udp and sctp"))?, port),
            None if protocol(text).is_some() => return Err(no("lacks a port")),
            None => (Protocol::Tcp, text),
        };
        match port.parse::<u16>() {
            Ok(0) => Err(no("is no port from 1 to 65535")),
            Ok(number) => Ok(Port::Number(of, number)),
            Err(_) if port.chars().any(|c| c.is_ascii_alphabetic()) && port.len() <= LONGEST => {
                Ok(Port::Named(of, port.to_owned()))
            }
            Err(_) => Err(no("is no port from 1 to 65535")),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Pod(pod) => pod.fmt(f),
            End::Node(name) => write!(f, "node:{name}"),
            End::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Icmp => f.write_str("icmp"),
            Port::Number(protocol, number) => write!(f, "{}/{number}", protocol.name()),
            Port::Named(protocol, name) => write!(f, "{}/{name}", protocol.name()),
        }
    }
}

/// A value that is its text on the wire.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = QueryError;

            fn try_from(text: String) -> Result<Self, QueryError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}

as_text!(PodName, End, Port);

/// The beginning of a text that may be long.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_questions() {
        for (text, same) in
            [("80", "tcp/80"), ("UDP/53", "udp/53"), ("http", "tcp/http"), ("sctp/s-1", "sctp/s-1"), ("ICMP", "icmp")]
        {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), same);
        }
        for text in ["web/a", "node:n1", "10.0.0.7", "fd01::3"] {
            assert_eq!(text.parse::<End>().unwrap().to_string(), text);
        }
        let query = json!({"pod": "web/a", "from": "db/b", "port": "80"});
        let query: Query = serde_json::from_value(query).unwrap();
        let sent = json!({"pod": "web/a", "from": "db/b", "to": null, "port": "tcp/80"});
        assert_eq!(serde_json::to_value(query).unwrap(), sent);
    }

    #[test]
    fn errors_say_what_to_write() {
        let port = |text: &str| text.parse::<Port>().unwrap_err().to_string();
        assert_eq!(port("tcp"), "\"tcp\" lacks a port; write e.g. tcp/80, 53, udp/dns or icmp");
        assert!(port("tcp/0").contains("1 to 65535") && port("70000").contains("1 to 65535"));
        assert!(port("gre/1").contains("tcp, udp and sctp"));
        let end = |text: &str| text.parse::<End>().unwrap_err().to_string();
        assert_eq!(end("10.0.0.0/8"), "\"10.0.0.0/8\" is a network; ask for one of its addresses");
        assert_eq!(end("web"), "\"web\" is neither a pod (NAMESPACE/POD), a node (node:NAME) nor an address");
        assert!("a/b/c".parse::<PodName>().is_err() && "/b".parse::<PodName>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = (text.parse::<PodName>(), text.parse::<End>());
            if let Ok(port) = text.parse::<Port>() {
                prop_assert_eq!(port.to_string().parse::<Port>().unwrap(), port);
            }
        }
    }
}
