//! The way to a bridge's OpenFlow: a session that tells when vswitchd has gone, and the flows of a bridge as one atomic bundle.
//!
//! ```text
//! replace: flows --> ovs-ofctl --bundle replace-flows --> only those that differ are written, all at once
//! Session: unix:.../BRIDGE.mgmt --> hello, echo --> ends with vswitchd, which forgets the flows of a bridge in user space
//! ```
//!
//! ovs-ofctl does the rest of the protocol. Must not: know what a flow means.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ovsdb::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tracing::info;

use crate::tool::{OFCTL, ToolError};

/// Bundles came with 1.4; every version of ours is offered, as a bridge may be held to some.
const VERSIONS: &str = "OpenFlow14,OpenFlow15";

/// A step with a bridge's flows that failed.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The bridge does not answer.
    #[error("reaching the OpenFlow socket {0}")]
    Connect(PathBuf, #[source] std::io::Error),
    /// They cannot be watched.
    #[error("watching the flows of {0}")]
    Watch(PathBuf, #[source] ToolError),
    /// They cannot be written.
    #[error("writing flows to {0}")]
    Write(PathBuf, #[source] ToolError),
}

/// The socket on which vswitchd serves a bridge: beside its database's. `None` where that is not a unix socket.
pub fn socket(ovs: &[Endpoint], bridge: &str) -> Option<PathBuf> {
    let folder = ovs.iter().find_map(|endpoint| match endpoint {
        Endpoint::Unix(path) => path.parent(),
        _ => None,
    });
    folder.map(|folder| folder.join(format!("{bridge}.mgmt")))
}

/// Makes the bridge's flows these, and returns when they are in force.
///
/// # Errors
/// When the bridge does not answer or refuses a flow; then none is changed.
pub async fn replace(socket: &Path, flows: &BTreeSet<String>) -> Result<(), FlowError> {
    let mut text = String::new();
    for flow in flows {
        text.push_str(flow);
        text.push('\n');
    }
    let target = format!("unix:{}", socket.display());
    let args = ["-O", VERSIONS, "--timeout=30", "--bundle", "replace-flows", &target, "-"];
    OFCTL.run(args, &text).await.map(drop).map_err(|e| FlowError::Write(socket.to_owned(), e))
}

/// Waits until the bridge has a flow for what comes in by a port.
///
/// # Errors
/// When the bridge does not answer, or goes.
pub async fn until_received(socket: &Path, port: u16) -> Result<(), FlowError> {
    let (target, watch) = (format!("unix:{}", socket.display()), format!("watch:!delete,table=0,in_port={port}"));
    // In 1.0 monitors came as an extension, and every version has that one.
    let args = ["-O", "OpenFlow10", "--unixctl=none", "monitor", &target, &watch];
    OFCTL.until(args, " event=").await.map_err(|e| FlowError::Watch(socket.to_owned(), e))
}

/// The flows of one bridge as they were written last, for as long as its vswitchd lives.
pub struct Kept {
    /// For people.
    bridge: String,
    socket: PathBuf,
    session: Option<Session>,
    written: Option<BTreeSet<String>>,
}

impl Kept {
    /// Of the bridge behind this socket, with what it is called; nothing is known of its flows.
    pub fn new(socket: PathBuf, bridge: &str) -> Kept {
        Kept { bridge: bridge.to_owned(), socket, session: None, written: None }
    }

    /// Makes the flows these, unless they were written in this session.
    ///
    /// # Errors
    /// As [`replace`].
    pub async fn write(&mut self, want: BTreeSet<String>) -> Result<(), FlowError> {
        if self.session.is_none() {
            self.session = Some(Session::open(&self.socket).await?);
        }
        if self.written.as_ref() != Some(&want) {
            replace(&self.socket, &want).await?;
            info!(flows = want.len(), "flows of {} are as they should be", self.bridge);
            self.written = Some(want);
        }
        Ok(())
    }

    /// Returns when vswitchd, which has our flows, has gone; never before some were written.
    pub async fn ended(&mut self) {
        match &mut self.session {
            Some(session) => session.ended().await,
            None => std::future::pending().await,
        }
        (self.session, self.written) = (None, None);
    }

    /// Somebody else may have changed them: the next write compares.
    pub fn forget(&mut self) {
        self.written = None;
    }
}

/// A connection to a bridge that does nothing but last.
pub struct Session(UnixStream);

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(socket: &Path) -> Result<Session, FlowError> {
        let of = |e| FlowError::Connect(socket.to_owned(), e);
        let mut stream = UnixStream::connect(socket).await.map_err(of)?;
        // OFPT_HELLO of OpenFlow 1.3, which every bridge speaks unless it is told otherwise.
        stream.write_all(&[4, 0, 0, 8, 0, 0, 0, 1]).await.map_err(of)?;
        Ok(Session(stream))
    }

    /// Returns when the connection ends; until then answers the questions whether we live.
    pub async fn ended(&mut self) {
        while self.answer().await.is_ok() {}
    }

    /// Reads one message (OpenFlow 1.3 section 7.1: version, type, length, id) and answers an echo request.
    async fn answer(&mut self) -> std::io::Result<()> {
        const ECHO_REQUEST: u8 = 2;
        const ECHO_REPLY: u8 = 3;
        let mut message = vec![0; 8];
        self.0.read_exact(&mut message).await?;
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        message.resize(length.max(8), 0);
        self.0.read_exact(&mut message[8..]).await?;
        if message[1] == ECHO_REQUEST {
            message[1] = ECHO_REPLY;
            self.0.write_all(&message).await?;
        }
        Ok(())
    }
}
