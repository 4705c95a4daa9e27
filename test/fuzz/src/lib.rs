//! Fuzz targets: functions that take any bytes and must neither panic nor break what they promise.
//!
//! `tests/fuzz.rs` runs them on the stable toolchain with random bytes and with edited seeds; `cargo-fuzz/` hands the same
//! functions to libFuzzer. Broken promises are assertions. Must not: do I/O.

mod cni;
pub mod edit;
mod objects;
mod rows;
mod stream;

pub use cni::cni_input;
pub use objects::api_objects;
pub use rows::ovsdb_rows;
pub use stream::ovsdb_stream;

/// A target, its name and the inputs to begin with.
pub struct Target {
    /// Name, as cargo-fuzz has it.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// Well-formed inputs.
    pub seeds: &'static [&'static [u8]],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "ovsdb_stream", run: ovsdb_stream, seeds: stream::SEEDS },
    Target { name: "ovsdb_rows", run: ovsdb_rows, seeds: rows::SEEDS },
    Target { name: "api_objects", run: api_objects, seeds: objects::SEEDS },
    Target { name: "cni_input", run: cni_input, seeds: cni::SEEDS },
];
