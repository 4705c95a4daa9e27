//! Target: lines of JSON as table updates, schemas and replies of transactions, by the descriptions of OVN_Northbound.
//!
//! Promises: no panic; of a table that is monitored as a whole, the sum of changes is the contents.

use std::collections::BTreeSet;

use ovenbird_schema::northbound::{self, logical_switch as ls};
use ovsdb::{ChangeKind, MonitorSpec, Replica, ServerInfo, TxnReply};

/// Updates that a real server sent.
pub const SEEDS: &[&[u8]] = &[include_bytes!("../seeds/rows.json")];

/// Runs the target on each line.
pub fn ovsdb_rows(bytes: &[u8]) {
    follow(bytes);
}

/// Number of rows changed.
pub fn follow(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let mut replica = Replica::new(&northbound::DATABASE, &MonitorSpec::everything(&northbound::DATABASE));
    let (mut rows, mut count) = (BTreeSet::new(), 0);
    for line in text.lines() {
        // Any text is tried as a schema and as a reply as well: both come from the server too.
        let _ = ServerInfo::from_schema(line, &northbound::DATABASE);
        if let Ok(reply) = TxnReply::parse(line, 3) {
            let _ = reply.ops.iter().map(|op| op.rows(&ls::TABLE)).all(|rows| rows.is_ok());
        }

        let mut changes = Vec::new();
        if replica.apply_json(line, &mut changes).is_err() {
            break;
        }
        for change in &changes {
            let key = (change.table.index, change.uuid);
            let fits = match change.kind {
                ChangeKind::Inserted => rows.insert(key),
                ChangeKind::Deleted => rows.remove(&key),
                ChangeKind::Modified(_) => rows.contains(&key),
            };
            assert!(fits, "a change that the contents before it do not allow: {change:?}");
        }
        count += changes.len();
        for table in northbound::DATABASE.tables {
            let known = rows.iter().filter(|(index, _)| *index == table.index).count();
            assert_eq!(replica.len(table), known, "the sum of changes is the contents of {}", table.name);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_goes_all_the_way() {
        assert_eq!(follow(SEEDS[0]), 10);
    }
}
