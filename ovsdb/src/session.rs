//! The protocol over one connection, without the connection: messages and commands in, bytes and events out.
//!
//! ```text
//!   get_schema, monitor _Server -->  both answered, the server will do  --> monitor_cond_since (or monitor_cond, monitor)
//!                                                                               |
//!       Update, Reply, Locked, Stolen  <--  ready  <--  Connected, Update  <----+
//! ```
//!
//! An error ends the session: there is no way back into a stream that has once been misunderstood. Must not: do I/O or know
//! the time (`client` does), decode rows of the owner's database (`replica` does).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;
use serde_json::value::RawValue;

use crate::desc::{DatabaseDesc, TableDesc};
use crate::error::{ClientError, SessionError};
use crate::event::{Event, TxnId};
use crate::message::{Message, write_answer, write_request};
use crate::replica::Replica;
use crate::reply::{DbError, TxnReply};
use crate::server::ServerInfo;
use crate::server_db::{self, Memory, SERVER};
use crate::spec::MonitorSpec;
use crate::transaction::{Condition, list};
use crate::update::Update;
use crate::value::{Str, Uuid, write_string};

/// More lock notifications than this without a lock request of ours are a flood.
const MAX_LOCK_NOTES: u32 = 1000;

/// What outlives a connection.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) database: &'static DatabaseDesc,
    pub(crate) spec: MonitorSpec,
    pub(crate) leader_only: bool,
    pub(crate) memory: Memory,
    /// Id of the last transaction that the owner has got, `None` to start from the whole contents.
    pub(crate) last_txn_id: Option<Uuid>,
    /// Locks wanted.
    pub(crate) locks: Vec<Str>,
    pub(crate) next_id: Arc<AtomicU64>,
}

/// What the owner wants.
#[derive(Debug)]
pub(crate) enum Command {
    /// A whole `transact` request whose JSON id is that of `id`.
    Transact {
        id: TxnId,
        message: Vec<u8>,
        ops: usize,
    },
    Lock {
        name: Str,
        steal: bool,
    },
    Unlock {
        name: Str,
    },
    Conditions {
        table: &'static TableDesc,
        conditions: Vec<Condition>,
    },
    Reconnect,
    Shutdown,
}

/// The three monitor methods, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Since,
    Conditional,
    Classic,
}

/// A request whose reply is awaited.
#[derive(Debug)]
enum Pending {
    Schema,
    Server,
    Monitor(Method),
    Conditions,
    Transact { ops: usize },
    Lock(Str),
    Unlock,
    Probe,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Session {
    endpoint: String,
    pending: FxHashMap<u64, Pending>,
    server: Replica,
    server_ok: bool,
    info: Option<ServerInfo>,
    monitor: Option<Method>,
    ready: bool,
    conditions_in_flight: u32,
    lock_notes: u32,
}

/// Rows of the owner's database inside a message.
struct Rows<'a> {
    text: &'a str,
    reset: bool,
    last_txn_id: Option<Uuid>,
}

/// Where a session writes.
pub(crate) struct Output<'a> {
    /// To the server.
    pub(crate) bytes: &'a mut Vec<u8>,
    /// To the owner.
    pub(crate) events: &'a mut Vec<Event>,
}

type Outcome<T> = Result<T, SessionError>;

impl Session {
    /// Begins a session.
    pub(crate) fn start(endpoint: &str, lasting: &Lasting, out: &mut Output<'_>) -> Session {
        let spec = server_db::monitor(lasting.database.name);
        let mut session = Session {
            endpoint: endpoint.to_owned(),
            pending: FxHashMap::default(),
            server: Replica::new(&SERVER, &spec),
            server_ok: false,
            info: None,
            monitor: None,
            ready: false,
            conditions_in_flight: 0,
            lock_notes: 0,
        };
        session.request("get_schema", &text_params(lasting.database.name), Pending::Schema, lasting, out);
        let params = spec.request(SERVER.name, None, true);
        session.request("monitor_cond", &params, Pending::Server, lasting, out);
        session
    }

    /// True once the server has said what it is; from then on only its silence limits our patience.
    pub(crate) fn is_introduced(&self) -> bool {
        self.ready || self.monitor.is_some()
    }

    /// Asks for a sign of life.
    pub(crate) fn probe(&mut self, lasting: &Lasting, out: &mut Output<'_>) {
        self.request("echo", b"[]", Pending::Probe, lasting, out);
    }

    /// Takes a message.
    pub(crate) fn on_message(&mut self, text: String, lasting: &mut Lasting, out: &mut Output<'_>) -> Outcome<()> {
        let rows = match Message::parse(&text).map_err(SessionError::Protocol)? {
            Message::Request { id, method, params } => {
                write_answer(id, &method, params, out.bytes);
                None
            }
            Message::Notification { method, params } => self.on_notification(&method, params, lasting, out)?,
            Message::Reply { id, result } => {
                let known = id.get().parse().ok().and_then(|id| Some((id, self.pending.remove(&id)?)));
                let (id, pending) = known.ok_or_else(|| protocol("a reply that nobody waits for"))?;
                self.on_reply(TxnId(id), pending, result, lasting, out)?
            }
        };
        if let Some(Rows { text: rows, reset, last_txn_id }) = rows {
            lasting.last_txn_id = last_txn_id;
            let start = rows.as_ptr() as usize - text.as_ptr() as usize;
            let range = start..start + rows.len();
            out.events.push(Event::Update(Update::new(text, range, reset, last_txn_id)));
        }
        Ok(())
    }

    /// Takes a command that is the session's business.
    pub(crate) fn on_command(&mut self, command: Command, lasting: &mut Lasting, out: &mut Output<'_>) -> Outcome<()> {
        self.lock_notes = 0;
        match command {
            Command::Transact { id, message, ops } if self.ready => {
                self.pending.insert(id.0, Pending::Transact { ops });
                if out.bytes.is_empty() { *out.bytes = message } else { out.bytes.extend_from_slice(&message) }
            }
            Command::Lock { name, steal } if self.ready => {
                let waiting = lasting.locks.contains(&name);
                if waiting && steal {
                    self.request("unlock", &text_params(&name), Pending::Unlock, lasting, out);
                }
                if !waiting || steal {
                    let method = if steal { "steal" } else { "lock" };
                    self.request(method, &text_params(&name), Pending::Lock(name.clone()), lasting, out);
                }
                lasting.note(Command::Lock { name, steal }, out.events);
            }
            Command::Unlock { name } if self.ready && lasting.locks.contains(&name) => {
                self.request("unlock", &text_params(&name), Pending::Unlock, lasting, out);
                lasting.note(Command::Unlock { name }, out.events);
            }
            Command::Conditions { table, conditions } => {
                let last_txn_id = lasting.last_txn_id;
                lasting.note(Command::Conditions { table, conditions }, out.events);
                match self.monitor {
                    None | Some(Method::Classic) => {}
                    // The request that is under way has the old conditions.
                    Some(_) if !self.ready => return Err(SessionError::Requested),
                    Some(_) => {
                        lasting.last_txn_id = last_txn_id;
                        self.change_conditions(table, lasting, out);
                    }
                }
            }
            Command::Reconnect => {
                lasting.last_txn_id = None;
                return Err(SessionError::Requested);
            }
            other => lasting.note(other, out.events),
        }
        Ok(())
    }

    /// Ends the session: what is in flight is lost.
    pub(crate) fn end(self, lasting: &mut Lasting, events: &mut Vec<Event>) {
        if self.conditions_in_flight > 0 {
            lasting.last_txn_id = None;
        }
        let in_flight = self.pending.into_iter().filter(|(_, p)| matches!(p, Pending::Transact { .. }));
        let mut ids: Vec<u64> = in_flight.map(|(id, _)| id).collect();
        ids.sort_unstable();
        let lost = |id| Event::Reply { id: TxnId(id), result: Err(ClientError::Disconnected) };
        events.extend(ids.into_iter().map(lost));
    }

    fn request(&mut self, method: &str, params: &[u8], pending: Pending, lasting: &Lasting, out: &mut Output<'_>) {
        let id = lasting.next_id.fetch_add(1, Ordering::Relaxed);
        self.pending.insert(id, pending);
        write_request(method, |out| out.extend_from_slice(params), id, out.bytes);
    }

    fn on_notification<'a>(
        &mut self,
        method: &str,
        params: &'a str,
        lasting: &mut Lasting,
        out: &mut Output<'_>,
    ) -> Outcome<Option<Rows<'a>>> {
        match method {
            "update3" => {
                let (name, last_txn_id, rows): (String, Uuid, &RawValue) = parse("update3", params)?;
                self.on_rows(&name, rows, some(last_txn_id), lasting)
            }
            "update2" | "update" => {
                let (name, rows): (String, &RawValue) = parse("update", params)?;
                self.on_rows(&name, rows, None, lasting)
            }
            "locked" | "stolen" => {
                let (name,): (Str,) = parse(method, params)?;
                self.lock_notes += 1;
                if !lasting.locks.contains(&name) || self.lock_notes > MAX_LOCK_NOTES {
                    return Err(protocol(format!("{method}: a lock that was not asked for, or too often")));
                }
                out.events.push(if method == "locked" { Event::Locked(name) } else { Event::Stolen(name) });
                Ok(None)
            }
            "monitor_canceled" => {
                Err(protocol("the server cancelled the monitor: the database was removed or converted"))
            }
            _ => Ok(None),
        }
    }

    /// An update of either database.
    fn on_rows<'a>(
        &mut self,
        name: &str,
        rows: &'a RawValue,
        last_txn_id: Option<Uuid>,
        lasting: &mut Lasting,
    ) -> Outcome<Option<Rows<'a>>> {
        if name == SERVER.name && self.server_ok {
            return self.on_server_rows(rows.get(), lasting).map(|()| None);
        }
        if name == lasting.database.name && self.ready && self.monitor.is_some() {
            return Ok(Some(Rows { text: rows.get(), reset: false, last_txn_id }));
        }
        Err(protocol("an update of something that is not monitored"))
    }

    fn on_server_rows(&mut self, rows: &str, lasting: &mut Lasting) -> Outcome<()> {
        self.server.apply_json(rows, &mut Vec::new()).map_err(SessionError::Decode)?;
        server_db::judge(&self.server, lasting.database.name, lasting.leader_only, &mut lasting.memory)
    }

    fn on_reply<'a>(
        &mut self,
        id: TxnId,
        pending: Pending,
        result: Result<&'a str, DbError>,
        lasting: &mut Lasting,
        out: &mut Output<'_>,
    ) -> Outcome<Option<Rows<'a>>> {
        let refused = |method| move |source| SessionError::Refused { method, source };
        match pending {
            Pending::Transact { ops } => {
                let result = match result {
                    Ok(text) => Ok(TxnReply::parse(text, ops).map_err(SessionError::Decode)?),
                    Err(error) => Err(ClientError::Rejected(error)),
                };
                out.events.push(Event::Reply { id, result });
            }
            Pending::Schema => {
                let no_database = |error: DbError| match error.error.as_str() {
                    "unknown database" => SessionError::NoDatabase(lasting.database.name),
                    _ => SessionError::Refused { method: "get_schema", source: error },
                };
                let schema = result.map_err(no_database)?;
                let mut info = ServerInfo::from_schema(schema, lasting.database).map_err(SessionError::Decode)?;
                info.endpoint = std::mem::take(&mut self.endpoint);
                self.info = Some(info);
                self.introduced(lasting, out);
            }
            Pending::Server => {
                match result {
                    Ok(rows) => self.on_server_rows(rows, lasting)?,
                    // Servers before 2.9 have no _Server, and no clusters either.
                    Err(error) if ["unknown database", "unknown method"].contains(&error.error.as_str()) => {}
                    Err(error) => return Err(refused("monitor_cond of _Server")(error)),
                }
                self.server_ok = true;
                self.introduced(lasting, out);
            }
            Pending::Monitor(method) => match (result, method.next()) {
                (Ok(text), _) => return self.on_contents(method, text, lasting, out).map(Some),
                (Err(error), Some(next)) if error.error == "unknown method" => self.request_monitor(next, lasting, out),
                (Err(error), _) => return Err(refused(method.name())(error)),
            },
            Pending::Conditions => {
                result.map_err(refused("monitor_cond_change"))?;
                self.conditions_in_flight -= 1;
            }
            Pending::Lock(name) => {
                #[derive(serde::Deserialize)]
                struct Locked {
                    locked: bool,
                }
                let reply: Locked = parse("lock", result.map_err(refused("lock"))?)?;
                if reply.locked && lasting.locks.contains(&name) {
                    out.events.push(Event::Locked(name));
                }
            }
            Pending::Unlock => drop(result.map_err(refused("unlock"))?),
            Pending::Probe => {}
        }
        Ok(None)
    }

    /// Goes on once both the schema and the server's role are known.
    fn introduced(&mut self, lasting: &mut Lasting, out: &mut Output<'_>) {
        if self.server_ok && self.info.is_some() {
            if lasting.spec.tables.is_empty() {
                self.become_ready(lasting, out);
            } else {
                self.request_monitor(Method::Since, lasting, out);
            }
        }
    }

    fn request_monitor(&mut self, method: Method, lasting: &Lasting, out: &mut Output<'_>) {
        self.monitor = Some(method);
        let mut params = lasting.spec.request(lasting.database.name, self.info.as_ref(), method != Method::Classic);
        if method == Method::Since {
            params.pop();
            params.extend_from_slice(format!(",\"{}\"]", lasting.last_txn_id.unwrap_or_default()).as_bytes());
        }
        self.request(method.name(), &params, Pending::Monitor(method), lasting, out);
    }

    /// The reply to the monitor: the contents, or what we have missed.
    fn on_contents<'a>(
        &mut self,
        method: Method,
        text: &'a str,
        lasting: &mut Lasting,
        out: &mut Output<'_>,
    ) -> Outcome<Rows<'a>> {
        let rows = if method == Method::Since {
            let (found, last_txn_id, text) = since_parts(text).ok_or_else(|| protocol("monitor_cond_since"))?;
            Rows { text, reset: !found, last_txn_id: some(last_txn_id) }
        } else {
            Rows { text, reset: true, last_txn_id: None }
        };
        self.become_ready(lasting, out);
        Ok(rows)
    }

    fn become_ready(&mut self, lasting: &Lasting, out: &mut Output<'_>) {
        self.ready = true;
        out.events.extend(self.info.take().map(Event::Connected));
        for name in &lasting.locks {
            self.request("lock", &text_params(name), Pending::Lock(name.clone()), lasting, out);
        }
    }

    fn change_conditions(&mut self, table: &'static TableDesc, lasting: &Lasting, out: &mut Output<'_>) {
        let Some(spec) = lasting.spec.table(table) else {
            return;
        };
        let mut params = b"[".to_vec();
        for _ in 0..2 {
            write_string(lasting.database.name, &mut params);
            params.push(b',');
        }
        params.push(b'{');
        write_string(table.name, &mut params);
        params.extend_from_slice(b":[{\"where\":");
        list(&spec.conditions, &mut params, |c, out| c.write_json(out));
        params.extend_from_slice(b"}]}]");
        self.conditions_in_flight += 1;
        self.request("monitor_cond_change", &params, Pending::Conditions, lasting, out);
    }
}

impl Lasting {
    /// Takes a command when there is no session, or none that is ready.
    pub(crate) fn note(&mut self, command: Command, events: &mut Vec<Event>) {
        match command {
            Command::Transact { id, .. } => events.push(Event::Reply { id, result: Err(ClientError::NotConnected) }),
            Command::Lock { name, .. } if !self.locks.contains(&name) => self.locks.push(name),
            Command::Unlock { name } => self.locks.retain(|n| *n != name),
            Command::Conditions { table, conditions } => {
                if let Some(spec) = self.spec.tables.iter_mut().find(|t| t.table == table) {
                    spec.conditions = conditions;
                    self.last_txn_id = None;
                }
            }
            Command::Reconnect => self.last_txn_id = None,
            Command::Lock { .. } | Command::Shutdown => {}
        }
    }
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Method::Since => "monitor_cond_since",
            Method::Conditional => "monitor_cond",
            Method::Classic => "monitor",
        }
    }

    /// What older servers know instead.
    const fn next(self) -> Option<Method> {
        match self {
            Method::Since => Some(Method::Conditional),
            Method::Conditional => Some(Method::Classic),
            Method::Classic => None,
        }
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(what: &str, text: &'a str) -> Outcome<T> {
    serde_json::from_str(text).map_err(|e| protocol(format!("{what}: {e}")))
}

fn protocol(problem: impl Into<String>) -> SessionError {
    SessionError::Protocol(problem.into())
}

/// The parts of `[found, last-txn-id, rows]`. The rows, which may be the whole database, are not looked at: decoding does that.
fn since_parts(text: &str) -> Option<(bool, Uuid, &str)> {
    let (found, rest) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
    let (last_txn_id, rows) = rest.split_once(',')?;
    Some((serde_json::from_str(found).ok()?, serde_json::from_str(last_txn_id).ok()?, rows))
}

/// Servers that keep no history say so by the nil UUID.
fn some(last_txn_id: Uuid) -> Option<Uuid> {
    (!last_txn_id.is_nil()).then_some(last_txn_id)
}

/// `["text"]`
fn text_params(text: &str) -> Vec<u8> {
    let mut params = b"[".to_vec();
    write_string(text, &mut params);
    params.push(b']');
    params
}
