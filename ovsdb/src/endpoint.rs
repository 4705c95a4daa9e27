//! Where a server listens: `unix:/path`, `tcp:host:port`, `ssl:host:port`, as ovsdb(7) "Active Connection Methods".
//!
//! Input: text of a flag or environment variable. Output: [`Endpoint`]s. Must not: resolve names or connect.

use std::path::PathBuf;
use std::str::FromStr;

/// A server to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `unix:/path/to/socket`.
    Unix(PathBuf),
    /// `tcp:host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp(String, u16),
    /// `ssl:host:port`, TLS.
    Ssl(String, u16),
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint \"{text}\": {problem}; expected unix:/path, tcp:host:port or ssl:host:port")]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

impl Endpoint {
    /// The port of `tcp:host` and `ssl:host` without one (IANA, ovsdb(7)).
    pub const DEFAULT_PORT: u16 = 6640;

    /// One endpoint.
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let fail = |problem| EndpointError { text: text.to_owned(), problem };
        let (method, rest) = text.trim().split_once(':').ok_or_else(|| fail("has no method"))?;
        match method {
            "unix" if rest.is_empty() => Err(fail("has no path")),
            "unix" => Ok(Endpoint::Unix(rest.into())),
            "tcp" => host_and_port(rest).map(|(h, p)| Endpoint::Tcp(h, p)).map_err(fail),
            "ssl" => host_and_port(rest).map(|(h, p)| Endpoint::Ssl(h, p)).map_err(fail),
            _ => Err(fail("has an unknown method")),
        }
    }

    /// A comma-separated list of at least one endpoint.
    pub fn parse_list(text: &str) -> Result<Vec<Endpoint>, EndpointError> {
        text.split(',').map(Endpoint::parse).collect()
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("has no closing bracket")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets")?;
        (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or("has text after its bracket")?)
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    if host.is_empty() {
        return Err("has no host");
    }
    if port.contains(':') {
        return Err("has an IPv6 address without brackets");
    }
    let port = if port.is_empty() { Ok(Endpoint::DEFAULT_PORT) } else { port.parse() };
    match port {
        Ok(port) if port > 0 => Ok((host.to_owned(), port)),
        _ => Err("has no port between 1 and 65535"),
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Endpoint::parse(text)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, host, port) = match self {
            Endpoint::Unix(path) => return write!(f, "unix:{}", path.display()),
            Endpoint::Tcp(host, port) => ("tcp", host, port),
            Endpoint::Ssl(host, port) => ("ssl", host, port),
        };
        if host.contains(':') { write!(f, "{method}:[{host}]:{port}") } else { write!(f, "{method}:{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_round_trip() {
        for text in ["unix:/run/ovn/ovnnb_db.sock", "tcp:10.0.0.1:6641", "ssl:[fd00::1]:6642", "tcp:nb.example:6641"] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse("tcp:[::1]").unwrap(), Endpoint::Tcp("::1".into(), 6640));
        let list = Endpoint::parse_list("tcp:a:1, ssl:b:2").unwrap();
        assert_eq!(list, [Endpoint::Tcp("a".into(), 1), Endpoint::Ssl("b".into(), 2)]);
    }

    #[test]
    fn bad_endpoints_say_what_is_wrong() {
        for (text, problem) in [
            ("", "has no method"),
            ("unix:", "has no path"),
            ("udp:1.2.3.4:5", "unknown method"),
            ("tcp::6641", "has no host"),
            ("tcp:::1:6641", "has no host"),
            ("tcp:fd00::1:6641", "without brackets"),
            ("tcp:[fd00::1:6641", "closing bracket"),
            ("tcp:[nonsense]:1", "IPv6 address in its brackets"),
            ("tcp:a:0", "between 1 and 65535"),
            ("ssl:a:99999", "between 1 and 65535"),
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(Endpoint::parse_list("tcp:a:1,").is_err(), "an empty member is a mistake worth telling");
    }
}
