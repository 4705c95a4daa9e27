//! Connections of UDP, as conntrack(8) lists them: those that Services have left behind are forgotten.
//!
//! ```text
//! conntrack -L -p udp --> Connection --[Changed::is_stale]--> conntrack -D
//! ```
//!
//! Must not: touch connections of other protocols.

use std::net::{IpAddr, SocketAddr};

use ovenbird_classic::services::{Changed, Connection};
use tracing::debug;

use crate::tool::{CONNTRACK, ToolError};

/// Forgets the stale ones, and says how many there were.
///
/// # Errors
/// When the tool cannot list them.
pub async fn flush(changed: &Changed) -> Result<usize, ToolError> {
    let mut gone = 0;
    for family in ["ipv4", "ipv6"] {
        let listed = CONNTRACK.run(["-L", "-f", family, "-p", "udp"], "").await?;
        for connection in listed.lines().filter_map(parse).filter(|c| changed.is_stale(c)) {
            match forget(family, &connection).await {
                Ok(()) => gone += 1,
                // It ended by itself.
                Err(ToolError::Refused(_, said)) => debug!(?connection, said),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(gone)
}

async fn forget(family: &str, connection: &Connection) -> Result<(), ToolError> {
    let Connection { client, called, .. } = connection;
    let texts =
        [client.ip().to_string(), called.ip().to_string(), client.port().to_string(), called.port().to_string()];
    let [from, to, sport, dport] = &texts;
    let args = ["-D", "-f", family, "-p", "udp", "-s", from, "-d", to, "--sport", sport, "--dport", dport];
    CONNTRACK.run(args, "").await.map(drop)
}

/// `udp 17 29 src=A dst=B sport=1 dport=2 [UNREPLIED] src=C dst=A sport=3 dport=1 ...`: first as it was called, then as it is answered.
fn parse(line: &str) -> Option<Connection> {
    let all = |key: &str| {
        let words = line.split_whitespace().filter_map(|word| word.split_once('='));
        words.filter(|(k, _)| *k == key).map(|(_, value)| value).take(2).collect::<Vec<_>>()
    };
    let end = |ip: &str, port: &str, direction: usize| {
        let ip: IpAddr = all(ip).get(direction)?.parse().ok()?;
        Some(SocketAddr::new(ip, all(port).get(direction)?.parse().ok()?))
    };
    Some(Connection {
        client: end("src", "sport", 0)?,
        called: end("dst", "dport", 0)?,
        answering: end("src", "sport", 1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tool_are_read() {
        let read = |line| parse(line).map(|c| format!("{} {} {}", c.client, c.called, c.answering));
        assert_eq!(
            read("udp      17 27 src=10.244.1.4 dst=10.96.0.10 sport=4444 dport=53 [UNREPLIED] src=10.244.1.5 dst=10.244.1.4 sport=5353 dport=4444 mark=0 use=1").as_deref(),
            Some("10.244.1.4:4444 10.96.0.10:53 10.244.1.5:5353")
        );
        assert_eq!(
            read("udp 17 117 src=fd00::4 dst=fd96::a sport=4444 dport=53 src=fd00::5 dst=fd00::4 sport=5353 dport=4444 [ASSURED] use=1").as_deref(),
            Some("[fd00::4]:4444 [fd96::a]:53 [fd00::5]:5353")
        );
        assert_eq!(read("conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown."), None);
    }
}
