//! One request at a time, for tools: connect, ask, read the answer. No replica, no reconnecting.
//!
//! Input: endpoints and a time limit for each step. Output: results, or the error that ends the tool's work. Must not: be used by
//! a daemon (that is `client`).

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::config::TlsFiles;
use crate::endpoint::Endpoint;
use crate::error::{ClientError, SessionError};
use crate::framing::Framer;
use crate::message::{Message, write_answer, write_request};
use crate::reply::TxnReply;
use crate::stream::{self, Stream};
use crate::transaction::{Op, write_params};
use crate::value::write_string;

/// Largest reply taken, in bytes.
const MAX_MESSAGE: usize = 1 << 30;

/// A connection for single requests.
pub struct Connection {
    endpoint: String,
    stream: Box<dyn Stream>,
    framer: Framer,
    next_id: u64,
    limit: Duration,
}

impl Connection {
    /// Connects to the first endpoint that answers; every step may take `limit`.
    pub async fn open(
        endpoints: &[Endpoint],
        tls: Option<&TlsFiles>,
        limit: Duration,
    ) -> Result<Connection, ClientError> {
        let mut failed = ClientError::Session { endpoint: String::new(), source: SessionError::NoEndpoint };
        for endpoint in endpoints {
            let opened = timeout(limit, stream::open(endpoint, tls)).await;
            let endpoint = endpoint.to_string();
            match opened.unwrap_or(Err(SessionError::ConnectTimeout)) {
                Ok(stream) => {
                    return Ok(Connection { endpoint, stream, framer: Framer::new(MAX_MESSAGE), next_id: 1, limit });
                }
                Err(source) => failed = ClientError::Session { endpoint, source },
            }
        }
        Err(failed)
    }

    /// Names of the server's databases (RFC 7047 section 4.1.1).
    pub async fn list_dbs(&mut self) -> Result<Vec<String>, ClientError> {
        let names = self.call("list_dbs", "[]").await?;
        serde_json::from_str(names.get()).map_err(|e| self.failed(SessionError::Protocol(format!("list_dbs: {e}"))))
    }

    /// A database's schema as JSON (RFC 7047 section 4.1.2).
    pub async fn get_schema(&mut self, database: &str) -> Result<Box<RawValue>, ClientError> {
        let mut params = b"[".to_vec();
        write_string(database, &mut params);
        params.push(b']');
        self.request("get_schema", &params).await
    }

    /// Runs a transaction (RFC 7047 section 4.1.3). Errors of operations are in the reply.
    pub async fn transact(&mut self, database: &str, ops: &[Op]) -> Result<TxnReply, ClientError> {
        let mut params = Vec::new();
        write_params(database, ops, &mut params);
        let result = self.request("transact", &params).await?;
        TxnReply::parse(result.get(), ops.len()).map_err(|e| self.failed(SessionError::Decode(e)))
    }

    /// Any method with its parameters as JSON text; the result as JSON text.
    pub async fn call(&mut self, method: &str, params: &str) -> Result<Box<RawValue>, ClientError> {
        self.request(method, params.as_bytes()).await
    }

    async fn request(&mut self, method: &str, params: &[u8]) -> Result<Box<RawValue>, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = Vec::new();
        write_request(method, |out| out.extend_from_slice(params), id, &mut message);
        match timeout(self.limit, self.exchange(&message, id)).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(error))) => Err(ClientError::Rejected(error)),
            Ok(Err(source)) => Err(self.failed(source)),
            Err(_) => Err(self.failed(SessionError::Silent)),
        }
    }

    async fn exchange(
        &mut self,
        message: &[u8],
        wanted: u64,
    ) -> Result<Result<Box<RawValue>, crate::DbError>, SessionError> {
        self.stream.write_all(message).await.map_err(SessionError::Io)?;
        loop {
            while let Some(text) = self.framer.next().map_err(SessionError::Frame)? {
                match Message::parse(&text).map_err(SessionError::Protocol)? {
                    Message::Reply { id, result } if id.get() == wanted.to_string() => {
                        let own = |text: &str| RawValue::from_string(text.to_owned());
                        return match result.map(own) {
                            Ok(text) => text.map(Ok).map_err(|e| SessionError::Protocol(e.to_string())),
                            Err(error) => Ok(Err(error)),
                        };
                    }
                    Message::Request { id, method, params } => {
                        let mut answer = Vec::new();
                        write_answer(id, &method, params, &mut answer);
                        self.stream.write_all(&answer).await.map_err(SessionError::Io)?;
                    }
                    Message::Reply { .. } | Message::Notification { .. } => {}
                }
            }
            if self.stream.read_buf(self.framer.space()).await.map_err(SessionError::Io)? == 0 {
                return Err(SessionError::Closed);
            }
        }
    }

    fn failed(&self, source: SessionError) -> ClientError {
        ClientError::Session { endpoint: self.endpoint.clone(), source }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
