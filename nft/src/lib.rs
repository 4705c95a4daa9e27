//! One table of nftables as a value, and the shortest transaction from one value to another.
//!
//! ```text
//! facts --(somebody's pure function)--> Table, new --+
//! nft -j list table --[read]----------> Table, old --+--[script]--> text for `nft -f -`, empty when nothing differs
//! many owners' [parts] --> what has changed, as two small tables --^
//! ```
//!
//! The kernel is the memory: every rule and every set carries a mark of the text it was made of, so a daemon that starts anew reads what
//! stands there and writes only what differs. Must not: run nft, or know what a rule means.

mod parts;
mod read;
mod script;
mod show;
mod table;

pub use parts::Parts;
pub use read::{ReadError, read};
pub use script::{delete, script};
pub use table::{Base, Chain, Set, Table, Text};
