//! The master against real servers: the embedded API server and a real ovsdb-server. No northd: rows are what is looked at.
//!
//! Each test says what happened to the world, then waits until the database holds exactly what a from-scratch translation of
//! the API server's objects yields, and nothing else of ours.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod faults;
mod leaders;
mod rows;
mod world;
