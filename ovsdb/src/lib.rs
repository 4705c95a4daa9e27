//! An OVSDB client: RFC 7047 and the ovsdb-server(7) extensions. Knows no OVN and no Kubernetes.

pub mod desc;
mod row;
pub mod value;

pub use desc::{AtomKind, BaseType, ColumnDesc, ColumnId, ColumnType, DatabaseDesc, Shape, TableDesc};
pub use row::{Row, is_default};
pub use value::{Atom, Datum, Str, Uuid};
