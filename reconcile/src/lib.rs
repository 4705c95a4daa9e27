//! Makes a database agree with a set of desired rows. Serves any typed database; does no I/O.

pub mod identity;
pub mod row;

pub use identity::{is_ours, row_uuid};
pub use row::{Contribution, DesiredRow, Diagnostic, Output, Owner, OwnerKind, RowId, Severity, Want, Zone};
