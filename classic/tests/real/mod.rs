//! Tables as the kernel has them.

#[path = "../../../nft/tests/kernel/mod.rs"]
mod kernel;

pub use kernel::{enter, nft};
use ovenbird_nft::{Table, read};

/// By family and name.
pub fn shown(id: &str) -> Table {
    read(id, &kernel::listed(id)).unwrap()
}
