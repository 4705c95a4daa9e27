//! Typed rows of OVN_Northbound, OVN_Southbound and Open_vSwitch.
//!
//! Everything below `generated/` is written by `make gen` from `schema/input/` (schemas as real servers report them) and
//! `schema/docs/` (the meaning of each table and column). Each table is a module with
//!
//! - `TABLE`, its description, and one [`ovsdb::ColumnId`] constant per column (`lsp::PORT_SECURITY`),
//! - one function per column that makes a value to write: `lsp::name("a")` is a `(ColumnId, Datum)`,
//! - `Ref`, a view of a row with one getter per column: `lsp::Ref(row).name()`,
//! - one enum per column whose values are enumerated (`acl::Action::AllowRelated`).
//!
//! A name that Rust reserves has an underscore behind it: `type_`, `match_`.
//!
//! ```
//! use ovenbird_schema::northbound::logical_switch_port as lsp;
//!
//! let mut row = ovsdb::Row::new();
//! for (column, value) in [lsp::name("web-0"), lsp::tag(Some(7)), lsp::options([("requested-chassis", "node-1")])] {
//!     row.set(column, &lsp::TABLE.column(column).ty, value);
//! }
//! let port = lsp::Ref(&row);
//! assert_eq!((port.name(), port.tag(), port.up()), ("web-0", Some(7), None));
//! assert_eq!(port.options().get("requested-chassis"), Some("node-1"));
//! ```
//!
//! Must not: do I/O, or be edited below `generated/`. A described column may be absent on an older server: the doc text of
//! each names the versions, and the replica is asked before one is written.

mod describe;
mod generated {
    pub mod northbound;
    pub mod southbound;
    pub mod vswitch;
}
mod read;
mod write;

pub use generated::{northbound, southbound, vswitch};
pub use read::Strings;
