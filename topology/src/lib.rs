//! Pure translation: facts from Kubernetes go in, Northbound rows come out.
//!
//! ```text
//! Change -> [snapshot] -> dirty owners -> [view] -> one function per feature -> Output (rows, members, complaints)
//! ```
//!
//! Must not: do I/O, read a clock, use randomness, remember what was written.

pub mod allocate;
pub mod config;
pub mod facts;
mod intern;

pub use config::{Config, ConfigError};
pub use facts::{Change, Fact, FactKey, NamespaceFact, NodeFact, PodAddresses, PodFact};
pub use intern::Interner;
