//! The master's state for people: what `ovenbird status` shows. Serialised as JSON over the admin socket.
//!
//! Field names are a contract with `cli` and with scripts: add, do not rename. Must not: hold logic.

use serde::Serialize;

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Who we are in the Lease.
    pub identity: String,
    /// True while this master writes.
    pub leader: bool,
    /// Epoch that fences our transactions; none before the first.
    pub epoch: Option<u64>,
    /// Another leader has fenced us out.
    pub fenced: bool,
    /// Watches by kind.
    pub watches: Vec<Watch>,
    /// The Northbound.
    pub northbound: Northbound,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Objects that wait, and why.
    pub waiting: Vec<Waiting>,
    /// Rows that wait for another row or for a feature of the server, and why.
    pub waiting_rows: Vec<Waiting>,
    /// Last transactions, newest first.
    pub commits: Vec<Commit>,
    /// A mass removal that waits for `ovenbird status --release`.
    pub held: Option<Held>,
    /// Owners whose rows the database rejects.
    pub quarantined: Vec<Waiting>,
    /// What others changed.
    pub drift: Drift,
}

/// A watch.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Watch {
    /// Kind of object.
    pub kind: &'static str,
    /// It has delivered a complete list.
    pub complete: bool,
    /// Objects known.
    pub objects: usize,
    /// The last failure, until a later list or change.
    pub error: Option<String>,
}

/// The Northbound session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Northbound {
    /// The replica is complete.
    pub connected: bool,
    /// The server, or why there is none.
    pub detail: String,
    /// Seconds since it was last heard of.
    pub age_seconds: f64,
    /// Rows wanted.
    pub rows: usize,
    /// Transactions committed since the start.
    pub transactions: u64,
    /// About the bytes that they sent.
    pub bytes: u64,
    /// We lead, are connected, and the database is as it should be.
    pub settled: bool,
}

/// A node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Id, once written.
    pub id: Option<u16>,
    /// Subnets, once written.
    pub subnets: Vec<String>,
    /// Pods that have, or should have, a port.
    pub pods: usize,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Waiting {
    /// `Pod namespace/name`.
    pub object: String,
    /// Why.
    pub why: String,
}

/// A transaction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Commit {
    /// When its reply came, RFC 3339.
    pub time: String,
    /// Rows written.
    pub rows: usize,
    /// About the bytes sent.
    pub bytes: usize,
    /// Milliseconds from sending to the reply.
    pub milliseconds: f64,
    /// `committed`, or what went wrong.
    pub outcome: String,
}

/// A removal that is held.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Held {
    /// Rows that would go.
    pub removals: usize,
    /// Rows that are ours.
    pub owned: usize,
}

/// What others changed, or what we forgot.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drift {
    /// Operations that undid what others changed.
    pub healed: u64,
    /// Audits on the timer.
    pub audits: u64,
    /// Operations that those found necessary.
    pub findings: u64,
}
