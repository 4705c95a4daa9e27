//! Row identity: a UUID that is a pure function of (table, owner, role).
//!
//! RFC 9562 version 8 (custom). Layout, most significant first:
//!
//! ```text
//! 6f76656e  hhhh  8hhh  [89ab]hhh  hhhhhhhhhhhh
//! owner tag  hash  version  variant  hash          (90 bits of SHA-256)
//! ```
//!
//! The tag (ASCII "oven") marks ownership in every table, also in those without external_ids. The scheme is frozen: the test
//! below pins vectors, and a change of it would orphan every row of every cluster.

use ovsdb::Uuid;
use sha2::{Digest, Sha256};

use crate::row::Owner;

/// First four bytes of every UUID we choose: ASCII "oven".
pub const OWNER_TAG: [u8; 4] = *b"oven";

/// UUID of the row that `owner` has in `table` for `role`. `role` tells rows of one owner in one table apart; it is "" for
/// the only one.
pub fn row_uuid(table: &str, owner: &Owner, role: &str) -> Uuid {
    let mut hash = Sha256::new();
    for part in [table, owner.kind.name, &owner.key, role] {
        // Length first, so that no two lists of parts meet in one input.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes[..4].copy_from_slice(&OWNER_TAG);
    bytes[4..].copy_from_slice(&digest[..12]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    Uuid::from_bytes(bytes)
}

/// True when the UUID is of our making: our tag, version 8, the RFC variant.
pub fn is_ours(uuid: &Uuid) -> bool {
    let b = uuid.as_bytes();
    b[..4] == OWNER_TAG && b[6] >> 4 == 8 && b[8] >> 6 == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::OwnerKind;

    const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };

    #[test]
    fn pinned_vectors() {
        let owner = Owner::new(POD, "default/web-0");
        assert_eq!(row_uuid("Logical_Switch_Port", &owner, "").to_string(), "6f76656e-c6d8-8284-a2b9-62be11f8aa36");
        assert_eq!(row_uuid("Logical_Switch_Port", &owner, "a").to_string(), "6f76656e-0d5b-84e7-84b7-620a8fbc4605");
    }

    #[test]
    fn parts_do_not_run_together() {
        let a = row_uuid("T", &Owner::new(POD, "ab"), "c");
        let b = row_uuid("T", &Owner::new(POD, "a"), "bc");
        assert_ne!(a, b);
        assert!(is_ours(&a) && is_ours(&b));
        assert!(!is_ours(&Uuid::nil()));
        assert!(!is_ours(&Uuid::new_v4()));
    }
}
