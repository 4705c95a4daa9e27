//! What a client tells its owner, in the server's order.

use crate::error::ClientError;
use crate::reply::TxnReply;
use crate::server::ServerInfo;
use crate::update::Update;
use crate::value::Str;

/// A transaction of this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub(crate) u64);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// Connected to a server that will do. The next event is the [`Event::Update`] that brings the replica up to date (unless
    /// the monitor specification is empty); transactions are taken from now on.
    Connected(ServerInfo),
    /// Rows changed.
    Update(Update),
    /// A transaction ended. The updates it made came before.
    Reply {
        /// Which, as [`crate::Handle::transact`] returned it.
        id: TxnId,
        /// How.
        result: Result<TxnReply, ClientError>,
    },
    /// A lock asked for is ours; it stays so until `Stolen` or `Disconnected`. Asked for again at the next connection.
    Locked(Str),
    /// Another client has stolen the lock.
    Stolen(Str),
    /// A connection ended, or an attempt to connect failed; the client goes on by itself. Every transaction that was in flight has
    /// got its `Reply` before.
    Disconnected(ClientError),
}
