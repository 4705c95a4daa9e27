//! The client without a connection: what the bytes of a server make it say and tell. For recorded streams and fuzzing.
//!
//! Input: bytes in pieces of any size. Output: the same requests and events as a live client has; request ids count from 1.
//! Must not: do I/O.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::desc::DatabaseDesc;
use crate::error::SessionError;
use crate::event::Event;
use crate::framing::Framer;
use crate::server_db::Memory;
use crate::session::{Lasting, Output, Session};
use crate::spec::MonitorSpec;

/// What one connection came to.
#[derive(Debug)]
pub struct Replay {
    /// What the client sent.
    pub sent: Vec<u8>,
    /// What its owner was told.
    pub events: Vec<Event>,
    /// Why the client left, if it did.
    pub error: Option<SessionError>,
}

/// Plays one connection. A message above `max_message` bytes ends it, as [`crate::Config::max_message`] says.
pub fn replay<'a>(
    database: &'static DatabaseDesc,
    spec: &MonitorSpec,
    max_message: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Replay {
    let mut lasting = Lasting {
        database,
        spec: spec.clone(),
        leader_only: false,
        memory: Memory::default(),
        last_txn_id: None,
        locks: Vec::new(),
        next_id: Arc::new(AtomicU64::new(1)),
    };
    let mut replay = Replay { sent: Vec::new(), events: Vec::new(), error: None };
    let mut out = Output { bytes: &mut replay.sent, events: &mut replay.events };
    let mut session = Session::start("replay", &lasting, &mut out);
    let mut framer = Framer::new(max_message);
    let feed = |piece: &[u8]| {
        framer.space().extend_from_slice(piece);
        while let Some(message) = framer.next().map_err(SessionError::Frame)? {
            session.on_message(message, &mut lasting, &mut out)?;
        }
        Ok(())
    };
    replay.error = pieces.into_iter().try_for_each(feed).err();
    replay
}
