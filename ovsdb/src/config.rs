//! What a client has to be told: where servers are, how to authenticate, how long to be patient.

use std::path::PathBuf;
use std::time::Duration;

use crate::endpoint::Endpoint;

/// Configuration of a client.
#[derive(Clone, Debug)]
pub struct Config {
    /// Members of one cluster, or one server. Tried in random order.
    pub endpoints: Vec<Endpoint>,
    /// Files for `ssl:` endpoints.
    pub tls: Option<TlsFiles>,
    /// Stay only on the Raft leader: commits are quicker there, and reads never lag.
    pub leader_only: bool,
    /// Time to connect and to learn the server's schema and role.
    pub connect_timeout: Duration,
    /// After this silence the server is asked for an echo, after twice this it is given up. `None` trusts it for ever.
    pub probe_interval: Option<Duration>,
    /// Shortest and longest pause after all endpoints have failed.
    pub backoff: (Duration, Duration),
    /// Largest message taken from the server, in bytes. The contents at connect are one message.
    pub max_message: usize,
    /// Bytes of updates that the owner may be behind; then the connection is dropped until it has caught up.
    pub max_backlog: usize,
}

/// PEM files. They are read anew for every connection, so a renewed certificate needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Private key.
    pub private_key: PathBuf,
    /// Certificate, with intermediate ones if any.
    pub certificate: PathBuf,
    /// Certificates of the authorities that vouch for the server.
    pub ca_certificate: PathBuf,
}

impl Config {
    /// Usual values.
    pub fn new(endpoints: Vec<Endpoint>) -> Config {
        Config {
            endpoints,
            tls: None,
            leader_only: false,
            connect_timeout: Duration::from_secs(10),
            probe_interval: Some(Duration::from_secs(30)),
            backoff: (Duration::from_millis(100), Duration::from_secs(8)),
            max_message: 1 << 30,
            max_backlog: 1 << 30,
        }
    }
}
