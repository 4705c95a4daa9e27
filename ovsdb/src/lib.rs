//! An OVSDB client: RFC 7047 and the ovsdb-server(7) extensions. Knows no OVN and no Kubernetes.

mod decode;
pub mod desc;
mod diff;
mod endpoint;
mod intern;
mod replica;
mod reply;
mod row;
mod server;
mod spec;
mod transaction;
mod update;
pub mod value;

pub use decode::DecodeError;
pub use desc::{AtomKind, BaseType, ColumnDesc, ColumnId, ColumnType, DatabaseDesc, Shape, TableDesc};
pub use endpoint::{Endpoint, EndpointError};
pub use replica::{ChangeKind, Replica, RowChange};
pub use reply::{DbError, OpResult, TxnReply};
pub use row::{Row, is_default};
pub use server::ServerInfo;
pub use spec::{MonitorSpec, TableSpec};
pub use transaction::{Condition, Function, Mutation, Mutator, NamedColumns, Op, Until};
pub use update::Update;
pub use value::{Atom, Datum, Str, Uuid};
