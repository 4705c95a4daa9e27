//! Makes a database agree with a set of desired rows. Serves any typed database; does no I/O.
//!
//! ```text
//! Output --> desired --> planner --> plan --> commit --> transaction
//!               ^           ^                    ^
//!               +-- mark ---+-- replica          +-- reply
//! ```

mod batch;
mod brake;
mod commit;
mod desired;
mod diff;
mod dirty;
mod entry;
pub mod epoch;
pub mod identity;
mod owners;
pub mod ownership;
mod plan;
mod planner;
mod quarantine;
pub mod row;
mod shared;

pub use brake::Brake;
pub use commit::{Batch, CommitConfig, Committer, Counters, Outcome};
pub use desired::{Desired, ORPHAN, WaitReason, Waiting, WholeRow};
pub use epoch::Fence;
pub use identity::{is_ours, row_uuid};
pub use plan::{Action, Group, KeyChange, Plan, PlannedOp, Why};
pub use planner::{Scope, plan};
pub use row::{Contribution, DesiredRow, Diagnostic, Output, Owner, OwnerKind, RowId, Severity, Want, Zone};
pub use shared::Shared;
