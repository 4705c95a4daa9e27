//! Target: bytes of a server, through framing, session and replica of the OVSDB client.
//!
//! Promises: no panic; the same outcome however the bytes are cut; rows that were accepted read by the typed getters.

use ovenbird_schema::northbound::{self, logical_switch_port as lsp};
use ovsdb::replay::{Replay, replay};
use ovsdb::{Event, MonitorSpec, Replica};

/// A session that a real server had with a client, schema first.
pub const SEEDS: &[&[u8]] = &[include_bytes!("../seeds/session.json")];

/// Limit of a message, small enough to be met.
const MAX_MESSAGE: usize = 1 << 16;
/// A size of pieces that cuts messages, strings and characters.
const PIECE: usize = 7;

/// Runs the target; ends with the replica that the stream led to.
pub fn ovsdb_stream(bytes: &[u8]) {
    follow(bytes);
}

/// Number of rows changed by a stream.
pub fn follow(bytes: &[u8]) -> usize {
    let spec = MonitorSpec::everything(&northbound::DATABASE);
    let play = |piece: usize| replay(&northbound::DATABASE, &spec, MAX_MESSAGE, bytes.chunks(piece));
    let (whole, cut) = (play(bytes.len().max(1)), play(PIECE));
    assert_eq!(outline(&whole), outline(&cut), "the same outcome however the bytes are cut");

    let mut replica = Replica::new(&northbound::DATABASE, &spec);
    let mut changes = Vec::new();
    for event in &whole.events {
        match event {
            Event::Connected(server) => replica.set_server(server),
            Event::Update(update) if replica.apply(update, &mut changes).is_err() => break,
            _ => {}
        }
    }
    for (_, row) in replica.rows(&lsp::TABLE) {
        let port = lsp::Ref(row);
        let _ = (port.name(), port.up(), port.tag(), port.options().len(), port.addresses().count());
    }
    changes.len()
}

fn outline(replay: &Replay) -> (&[u8], Vec<String>, Option<String>) {
    let events = replay.events.iter().map(|event| format!("{event:?}")).collect();
    (&replay.sent, events, replay.error.as_ref().map(|error| format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_goes_all_the_way() {
        assert_eq!(follow(SEEDS[0]), 10, "3 rows at first, then 1 inserted and 3 modified, then 3 deleted");
    }
}
