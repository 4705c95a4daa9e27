//! The table of what may pass pods' ports: nft takes it as it is written, with limits from the least to the most that a pod may ask for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use ovenbird_api::bandwidth::Bandwidth;
use ovenbird_classic::guard::{Link, Links, TABLE, table};
use ovenbird_nft::{Table, delete, script};

mod real;

use real::{enter, nft, shown};

#[test]
fn nft_takes_it_with_any_limit() {
    if !enter() {
        return;
    }
    let mut before = Table::new(TABLE);
    for bits in [None, Some(1_000), Some(99_999_999_999), Some(1_000_000_000_000_000), None] {
        let link = |n: u8| Link {
            addresses: vec![[10, 244, 1, n].into()],
            bandwidth: Bandwidth { ingress: bits, egress: bits.filter(|_| n == 1) },
        };
        let links: Links = (1..3).map(|n| (format!("ov00000000000{n}"), link(n))).collect();
        let table = table(&links);
        nft(&["-f", "-"], &script(&before, &table));
        assert_eq!(script(&shown(TABLE), &table), "", "{bits:?}: a second run changes nothing");
        before = table;
    }
    nft(&["-f", "-"], &delete(TABLE));
}
