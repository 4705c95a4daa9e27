//! What the end-to-end tests share: pods, the Northbound as it is and as it should be, the wire, and streams under fault.
//!
//! In: a running lab. Out: facts to assert on. It must not hold assertions about one scenario: those are in `tests/`.

pub mod datapath;
pub mod fault;
pub mod master;
pub mod northbound;
pub mod oracle;
pub mod pods;
pub mod pour;
pub mod pulse;
pub mod reach;
pub mod real;
pub mod sctp;
pub mod service;
pub mod stream;
pub mod wire;
pub mod witness;

use std::time::Duration;

/// How long a lab may take to come to rest after a fault. Only ever reached when something is broken.
pub const LIMIT: Duration = Duration::from_secs(60);
