//! What goes wrong between a client and a server.

use crate::decode::DecodeError;
use crate::framing::FrameError;
use crate::reply::DbError;
use crate::tls::TlsError;

/// Why a request has no result, or a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection; the transaction was not sent.
    #[error("not connected, so the transaction was not sent")]
    NotConnected,
    /// The connection broke before the reply: whether the transaction is in the database is not known.
    #[error("connection lost before the reply, so the outcome of the transaction is unknown")]
    Disconnected,
    /// The server refused the request as a whole.
    #[error("server refused the request")]
    Rejected(#[source] DbError),
    /// A connection ended, or did not come about.
    #[error("connection to {endpoint}")]
    Session {
        /// The server.
        endpoint: String,
        /// Why.
        #[source]
        source: SessionError,
    },
}

/// Why a connection ended, or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The operating system refused to connect.
    #[error("connect")]
    Connect(#[source] std::io::Error),
    /// No TLS connection.
    #[error("set up TLS")]
    Tls(#[source] TlsError),
    /// Connecting, or learning the schema, took longer than `connect_timeout`.
    #[error("no answer within the connect timeout")]
    ConnectTimeout,
    /// Reading or writing failed.
    #[error("read or write")]
    Io(#[source] std::io::Error),
    /// The server closed the connection.
    #[error("closed by the server")]
    Closed,
    /// Nothing came within twice the probe interval.
    #[error("silent for longer than two probe intervals")]
    Silent,
    /// Bytes that are no JSON objects.
    #[error("cut the stream into messages")]
    Frame(#[source] FrameError),
    /// A message that OVSDB does not know, or not at this moment.
    #[error("protocol: {0}")]
    Protocol(String),
    /// A schema or a reply that is not of its type.
    #[error("understand the server")]
    Decode(#[source] DecodeError),
    /// A request of the client itself was refused.
    #[error("request {method}")]
    Refused {
        /// The request.
        method: &'static str,
        /// The server's answer.
        #[source]
        source: DbError,
    },
    /// The server does not have the database.
    #[error("server has no database {0}")]
    NoDatabase(&'static str),
    /// The server is not the leader of its cluster, and only the leader will do.
    #[error("server is not the leader of its cluster")]
    NotLeader,
    /// The server has lost its cluster.
    #[error("server is cut off from its cluster")]
    CutOff,
    /// The server belongs to another cluster than the one before.
    #[error("server belongs to another cluster than before")]
    OtherCluster,
    /// The server lags behind what we have seen.
    #[error("server lags behind what another server has shown")]
    Stale,
    /// The owner does not take its events.
    #[error("owner is behind by more bytes of updates than max_backlog")]
    Backlog,
    /// The owner asked for a new connection.
    #[error("new connection asked for")]
    Requested,
    /// There is nothing to connect to.
    #[error("no endpoint configured")]
    NoEndpoint,
}
