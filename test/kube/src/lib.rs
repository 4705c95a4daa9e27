//! Real Kubernetes for the lab: its programs built from Go modules, its images assembled here, all in a cache outside the tree.
//!
//! ```text
//!   modules/*/go.{mod,sum}  --go build-->  CACHE/HASH/bin/*        --image-->  CACHE/HASH/images/*.tar
//!   (embedded, pinned)                     CACHE/HASH/SHA256SUMS (what was built, checked by every later run)
//! ```
//! In: the Go toolchain and what module proxy it is set up with. Out: a [`Cache`]. It must not write into the repository, and
//! it must not start anything of what it builds.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod archive;
mod build;
mod cache;
mod debian;
mod image;
pub mod version;

pub use build::build;
pub use cache::Cache;
