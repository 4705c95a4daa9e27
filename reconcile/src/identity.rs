//! Row identity: a UUID that is a pure function of (table, owner, role).
//!
//! RFC 9562 version 8 (custom). Layout, most significant first:
//!
//! ```text
//! hhhhhhhh  hhhh  8hhh     [89ab]hhh  hhhh6f76656e
//! hash            version  variant    hash, owner tag      (90 bits of SHA-256)
//! ```
//!
//! The tag (ASCII "oven") marks ownership in every table, also in those without external_ids. It comes last, because OVS and OVN take
//! the first 32 bits of a UUID as its hash: were they the same in all, every look-up would walk through all rows. The scheme is
//! frozen: the test below pins vectors, and a change of it would orphan every row of every cluster.

use ovsdb::Uuid;
use sha2::{Digest, Sha256};

use crate::row::Owner;

/// Last four bytes of every UUID we choose: ASCII "oven".
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
    bytes[..12].copy_from_slice(&digest[..12]);
    bytes[12..].copy_from_slice(&OWNER_TAG);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    Uuid::from_bytes(bytes)
}

/// True when the UUID is of our making: our tag, version 8, the RFC variant.
pub fn is_ours(uuid: &Uuid) -> bool {
    let b = uuid.as_bytes();
    b[12..] == OWNER_TAG && b[6] >> 4 == 8 && b[8] >> 6 == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::OwnerKind;

    const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };

    #[test]
    fn pinned_vectors() {
        let owner = Owner::new(POD, "default/web-0");
        assert_eq!(row_uuid("Logical_Switch_Port", &owner, "").to_string(), "c6d8f284-22b9-82be-91f8-aa366f76656e");
        assert_eq!(row_uuid("Logical_Switch_Port", &owner, "a").to_string(), "0d5b34e7-04b7-820a-8fbc-46056f76656e");
    }

    /// `uuid_hash` of OVS is the first 32 bits.
    #[test]
    fn the_hash_of_ovs_tells_them_apart() {
        let pods = (0..1000).map(|i| row_uuid("T", &Owner::new(POD, format!("ns/{i}")), ""));
        let hashes: std::collections::BTreeSet<Vec<u8>> = pods.map(|uuid| uuid.as_bytes()[..4].to_vec()).collect();
        assert!(hashes.len() > 990, "{}", hashes.len());
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
