//! Tests of the writer against a model database and a real ovsdb-server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod commit;
mod live;
mod model;
mod plan;
mod properties;
mod server;
mod universe;
mod world;
