//! The client: one task that keeps a connection to one of several servers, and the handle by which its owner asks things of it.
//!
//! ```text
//!   owner --Handle--> commands --> [task: connect, read, write, probe, back off] --> events --> owner
//!                                        Session (protocol)      Framer (bytes)
//! ```
//!
//! The task never waits for the owner, so echoes are answered whatever the owner does. Must not: interpret messages (that is
//! `session`), or touch the replica.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::desc::{DatabaseDesc, TableDesc};
use crate::endpoint::Endpoint;
use crate::error::{ClientError, SessionError};
use crate::event::{Event, TxnId};
use crate::framing::Framer;
use crate::message::write_request;
use crate::server_db::Memory;
use crate::session::{Command, Lasting, Output, Session};
use crate::spec::MonitorSpec;
use crate::stream::{self, Stream};
use crate::tls::TlsError;
use crate::transaction::{Condition, Op, write_params};
use crate::value::Uuid;

/// While more than this waits to be written, nothing is read and no command taken: a server that does not read is not fed.
const MAX_UNSENT: usize = 4 << 20;
/// Bytes that prove a server alive although no message is complete.
const SIGN_OF_LIFE: usize = 4096;
/// Rounds over all endpoints in which each was stale or of another cluster, after which the cluster counts as rebuilt.
const ROUNDS_TO_FORGET: u32 = 3;

/// The client; see [`Client::spawn`].
#[derive(Debug)]
pub struct Client;

/// Asks things of a client. Cheap to clone; when all handles are gone the client ends.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: UnboundedSender<Command>,
    database: &'static DatabaseDesc,
    next_id: Arc<AtomicU64>,
}

impl Client {
    /// Starts a client of `database` that replicates `spec`. Needs a tokio runtime.
    ///
    /// It connects, and reconnects, until it is shut down; everything it has to say comes through the receiver, in order.
    pub fn spawn(
        config: Config,
        database: &'static DatabaseDesc,
        spec: MonitorSpec,
    ) -> (Handle, UnboundedReceiver<Event>) {
        let (commands, command_receiver) = unbounded_channel();
        let (events, event_receiver) = unbounded_channel();
        let next_id = Arc::new(AtomicU64::new(1));
        let lasting = Lasting {
            database,
            spec,
            leader_only: config.leader_only,
            memory: Memory::default(),
            last_txn_id: None,
            locks: Vec::new(),
            next_id: next_id.clone(),
        };
        let worker = Worker { config, lasting, commands: command_receiver, events, backlog: Arc::default() };
        tokio::spawn(worker.run());
        (Handle { commands, database, next_id }, event_receiver)
    }
}

impl Handle {
    /// A handle to no server, and the receiver that never has anything to say.
    pub fn detached(database: &'static DatabaseDesc) -> (Handle, UnboundedReceiver<Event>) {
        let (commands, events) = (unbounded_channel().0, unbounded_channel().1);
        (Handle { commands, database, next_id: Arc::new(AtomicU64::new(1)) }, events)
    }

    /// Sends a transaction. Its [`Event::Reply`] always comes, without a connection at once and as an error, until the client has
    /// ended.
    pub fn transact(&self, ops: &[Op]) -> TxnId {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut message = Vec::with_capacity(64 + ops.iter().map(Op::approximate_size).sum::<usize>());
        write_request("transact", |out| write_params(self.database.name, ops, out), id, &mut message);
        self.send(Command::Transact { id: TxnId(id), message, ops: ops.len() });
        TxnId(id)
    }

    /// Waits in line for a lock (RFC 7047 section 4.1.8). The wish outlives connections.
    pub fn lock(&self, name: &str) {
        self.send(Command::Lock { name: name.into(), steal: false });
    }

    /// Takes a lock from whoever has it. Without a connection it is a wish like that of [`Handle::lock`].
    pub fn steal(&self, name: &str) {
        self.send(Command::Lock { name: name.into(), steal: true });
    }

    /// Gives a lock back, or leaves the line.
    pub fn unlock(&self, name: &str) {
        self.send(Command::Unlock { name: name.into() });
    }

    /// Changes which rows of a table are replicated (see `TableSpec::matching`); what comes and goes is told by updates.
    pub fn monitor_cond_change(&self, table: &'static TableDesc, conditions: Vec<Condition>) {
        self.send(Command::Conditions { table, conditions });
    }

    /// Drops the connection; the next one begins with the whole contents.
    pub fn force_reconnect(&self) {
        self.send(Command::Reconnect);
    }

    /// Ends the client. Transactions in flight are lost: await their replies before.
    pub fn shutdown(&self) {
        self.send(Command::Shutdown);
    }

    fn send(&self, command: Command) {
        // After a shutdown nobody is there to listen, nor to miss the answer.
        drop(self.commands.send(command));
    }
}

/// Why a connection is over.
enum End {
    /// The owner wants no more.
    Shutdown,
    Failed(SessionError),
}

impl End {
    /// The end of a TLS connection that broke before the server said anything. Since TLS 1.3 it looks at our certificate after the
    /// handshake has ended for us, and its alert may be lost in the reset that follows.
    fn blaming(self, certificate: &Path) -> End {
        match self {
            End::Failed(SessionError::Io(source)) => {
                SessionError::Tls(TlsError::Refused { certificate: certificate.to_owned(), source }).into()
            }
            other => other,
        }
    }
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> End {
        End::Failed(error)
    }
}

struct Worker {
    config: Config,
    lasting: Lasting,
    commands: UnboundedReceiver<Command>,
    events: UnboundedSender<Event>,
    /// Bytes of updates that the owner has not yet dropped.
    backlog: Arc<AtomicUsize>,
}

impl Worker {
    async fn run(mut self) {
        let (shortest, longest) = self.config.backoff;
        let mut pause = shortest;
        let mut mismatches = 0;
        loop {
            let began = Instant::now();
            let mut only_mismatches = true;
            for endpoint in self.shuffled() {
                let error = match self.connect(&endpoint).await {
                    End::Shutdown => return,
                    End::Failed(error) => error,
                };
                only_mismatches &= matches!(error, SessionError::Stale | SessionError::OtherCluster);
                self.disconnected(endpoint.to_string(), error);
            }
            if self.config.endpoints.is_empty() {
                self.disconnected(String::new(), SessionError::NoEndpoint);
            }
            mismatches = if only_mismatches { mismatches + 1 } else { 0 };
            if mismatches >= ROUNDS_TO_FORGET {
                warn!(database = self.lasting.database.name, "no server of the known cluster is left: taking any");
                (self.lasting.memory, self.lasting.last_txn_id, mismatches) = (Memory::default(), None, 0);
            }
            // A round that lasted had a working connection in it.
            pause = if began.elapsed() > longest { shortest } else { pause };
            if self.idle(pause).await.is_err() {
                return;
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// The endpoints in random order, so that many clients spread over a cluster.
    fn shuffled(&self) -> Vec<Endpoint> {
        let mut endpoints = self.config.endpoints.clone();
        endpoints.sort_by_cached_key(|_| Uuid::new_v4());
        endpoints
    }

    /// Waits, answering commands, and goes on waiting while the owner is far behind.
    async fn idle(&mut self, pause: Duration) -> Result<(), End> {
        let mut until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => {
                    if self.backlog.load(Ordering::Relaxed) <= self.config.max_backlog / 2 {
                        return Ok(());
                    }
                    until = Instant::now() + pause;
                }
                command = self.commands.recv() => self.note(command)?,
            }
        }
    }

    /// Takes a command while there is no session.
    fn note(&mut self, command: Option<Command>) -> Result<(), End> {
        match command {
            None | Some(Command::Shutdown) => Err(End::Shutdown),
            Some(command) => {
                let mut events = Vec::new();
                self.lasting.note(command, &mut events);
                self.tell(&mut events)
            }
        }
    }

    fn disconnected(&mut self, endpoint: String, source: SessionError) {
        let (database, error) = (self.lasting.database.name, &source as &(dyn std::error::Error + 'static));
        match source {
            // Time does not heal it, a person does.
            SessionError::Tls(_) => warn!(database, endpoint, error, "cannot connect"),
            _ => info!(database, endpoint, error, "disconnected"),
        }
        drop(self.events.send(Event::Disconnected(ClientError::Session { endpoint, source })));
    }

    /// Sends events on; an owner that is gone is as good as a shutdown.
    fn tell(&self, events: &mut Vec<Event>) -> Result<(), End> {
        for mut event in events.drain(..) {
            if let Event::Update(update) = &mut event {
                update.count(&self.backlog);
            }
            self.events.send(event).map_err(|_| End::Shutdown)?;
        }
        Ok(())
    }

    /// One connection from its beginning to its end.
    async fn connect(&mut self, endpoint: &Endpoint) -> End {
        let deadline = Instant::now() + self.config.connect_timeout;
        let opened = {
            let files = self.config.tls.clone();
            let opening = stream::open(endpoint, files.as_ref());
            tokio::pin!(opening);
            loop {
                tokio::select! {
                    opened = &mut opening => break opened,
                    () = sleep_until(deadline) => break Err(SessionError::ConnectTimeout),
                    command = self.commands.recv() => if let Err(end) = self.note(command) { return end },
                }
            }
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => return End::Failed(error),
        };
        debug!(%endpoint, "connected");
        let (mut unsent, mut events) = (Vec::new(), Vec::new());
        let out = &mut Output { bytes: &mut unsent, events: &mut events };
        let mut session = Session::start(&endpoint.to_string(), &self.lasting, out);
        let Err(mut end) = self.converse(stream, &mut session, out, deadline).await;
        if let (Endpoint::Ssl(..), Some(files), false) = (endpoint, &self.config.tls, session.is_introduced()) {
            end = end.blaming(&files.certificate);
        }
        session.end(&mut self.lasting, &mut events);
        match self.tell(&mut events) {
            Err(end) => end,
            Ok(()) => end,
        }
    }

    /// Reads, writes, probes, until something fails.
    async fn converse(
        &mut self,
        mut stream: Box<dyn Stream>,
        session: &mut Session,
        out: &mut Output<'_>,
        deadline: Instant,
    ) -> Result<std::convert::Infallible, End> {
        let mut framer = Framer::new(self.config.max_message);
        let mut sent = 0;
        let mut life = Life::new(self.config.probe_interval);
        let (mut reader, mut writer) = tokio::io::split(&mut *stream);
        loop {
            let writable = sent < out.bytes.len();
            let fed = out.bytes.len() - sent <= MAX_UNSENT;
            let wake = if session.is_introduced() { life.deadline() } else { Some(deadline) };
            // In no fixed order: a server that floods must not keep commands from being heard.
            tokio::select! {
                written = writer.write(&out.bytes[sent..]), if writable => {
                    sent += written.map_err(SessionError::Io)?;
                    if sent == out.bytes.len() {
                        out.bytes.clear();
                        sent = 0;
                    }
                }
                read = reader.read_buf(framer.space()), if fed => {
                    let bytes = read.map_err(SessionError::Io)?;
                    if bytes == 0 {
                        return Err(SessionError::Closed.into());
                    }
                    life.bytes += bytes;
                    while let Some(text) = framer.next().map_err(SessionError::Frame)? {
                        life.bytes = SIGN_OF_LIFE;
                        session.on_message(text, &mut self.lasting, out)?;
                    }
                    self.tell(out.events)?;
                    if self.backlog.load(Ordering::Relaxed) > self.config.max_backlog {
                        return Err(SessionError::Backlog.into());
                    }
                }
                command = self.commands.recv(), if fed => match command {
                    None | Some(Command::Shutdown) => return Err(End::Shutdown),
                    Some(command) => {
                        session.on_command(command, &mut self.lasting, out)?;
                        self.tell(out.events)?;
                    }
                },
                () = sleep_until(wake.unwrap_or(deadline)), if wake.is_some() => {
                    if !session.is_introduced() {
                        return Err(SessionError::ConnectTimeout.into());
                    }
                    if life.check()? {
                        session.probe(&self.lasting, out);
                    }
                }
            }
        }
    }
}

/// Watches whether the server lives.
struct Life {
    interval: Option<Duration>,
    since: Instant,
    /// Bytes received since then; a complete message counts as many.
    bytes: usize,
    probed: bool,
}

impl Life {
    fn new(interval: Option<Duration>) -> Life {
        Life { interval, since: Instant::now(), bytes: 0, probed: false }
    }

    fn deadline(&self) -> Option<Instant> {
        self.interval.map(|interval| self.since + interval)
    }

    /// Called at the deadline: true when it is time to probe, an error when a probe has been in vain.
    fn check(&mut self) -> Result<bool, SessionError> {
        let alive = self.bytes >= SIGN_OF_LIFE;
        if !alive && self.probed {
            return Err(SessionError::Silent);
        }
        (self.since, self.bytes, self.probed) = (Instant::now(), 0, !alive);
        Ok(!alive)
    }
}
