//! An OVSDB client: RFC 7047 and the ovsdb-server(7) extensions. Knows no OVN and no Kubernetes.
//!
//! ```text
//!   bytes -> framing -> message -> session -> event -----------------> owner -> replica (decode, diff)
//!            cuts       envelope   protocol   Connected, Update, ...     |      rows by table and UUID
//!                                     ^                                  |
//!                                     +------ Handle: transact(Op), lock, monitor_cond_change, ...
//! ```
//!
//! The connection's task (`client`) is the only part that does I/O or knows the time; all else is plain values. [`Connection`] is
//! the small sister for tools that ask one thing and leave.
//!
//! An owner is one loop:
//!
//! ```no_run
//! use ovsdb::{Client, Config, DatabaseDesc, Endpoint, Event, MonitorSpec, Op, Replica};
//!
//! async fn own(database: &'static DatabaseDesc) -> Result<(), Box<dyn std::error::Error>> {
//!     let config = Config::new(Endpoint::parse_list("tcp:10.0.0.1:6641,tcp:10.0.0.2:6641")?);
//!     let spec = MonitorSpec::everything(database);
//!     let mut replica = Replica::new(database, &spec);
//!     let (handle, mut events) = Client::spawn(config, database, spec);
//!     let mut changes = Vec::new();
//!     while let Some(event) = events.recv().await {
//!         match event {
//!             Event::Connected(server) => replica.set_server(&server),
//!             Event::Update(update) => {
//!                 if replica.apply(&update, &mut changes).is_err() {
//!                     handle.force_reconnect();
//!                 }
//!                 handle.transact(&[Op::Comment("what the changes ask for".into())]);
//!             }
//!             // The updates that a transaction made came before its reply. After `Disconnected` its outcome is unknown: look
//!             // at the replica once the next connection's update has come.
//!             Event::Reply { id, result } => println!("{id:?}: {result:?}"),
//!             Event::Locked(_) | Event::Stolen(_) | Event::Disconnected(_) => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Run the owner as a task of the runtime that the client runs on, best a single-threaded one: a transaction then costs no
//! change of threads.

mod client;
mod config;
mod decode;
pub mod desc;
mod diff;
mod endpoint;
mod error;
mod event;
mod framing;
mod intern;
mod message;
mod oneshot;
pub mod replay;
mod replica;
mod reply;
mod row;
mod server;
mod server_db;
mod session;
mod spec;
mod stream;
mod tls;
mod transaction;
mod update;
pub mod value;

pub use client::{Client, Handle};
pub use config::{Config, TlsFiles};
pub use decode::DecodeError;
pub use desc::{AtomKind, BaseType, ColumnDesc, ColumnId, ColumnType, DatabaseDesc, Shape, TableDesc};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, SessionError};
pub use event::{Event, TxnId};
pub use framing::FrameError;
pub use oneshot::Connection;
pub use replica::{ChangeKind, Replica, RowChange};
pub use reply::{DbError, OpResult, TxnReply};
pub use row::{Row, default_value, is_default};
pub use server::ServerInfo;
pub use spec::{MonitorSpec, TableSpec};
pub use tls::TlsError;
pub use transaction::{Condition, Function, Mutation, Mutator, NamedColumns, Op, Until};
pub use update::Update;
pub use value::{Atom, Datum, Pairs, Str, Uuid};
