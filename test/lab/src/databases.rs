//! The Northbound and Southbound servers: one each, or three each that form a Raft cluster (ovsdb(7), "Service Models").
//!
//! ```text
//!   standalone: central/nb                                unix, tcp 6641                           central/sb: tcp 6642
//!   raft:       central/nb1, central/nb2, central/nb3     unix, tcp 6641, 6651, 6661 on the        central/sb1, ...
//!               joined over the loopback, 6643, 6653, 6663    central addresses
//! ```
//! With `--tls` the fabric is served by `ssl:` in place of `tcp:`, and members join by it, too.
//! In: a layout. Out: names, addresses, running servers. It must not write rows.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::options::ServiceModel;
use crate::ovn::{self, START_LIMIT};
use crate::pki;
use crate::process::wait_for;

/// How many members a cluster has: the least that outlives the loss of one.
const MEMBERS: u16 = 3;
/// Between the ports of a member and of the next.
const PORT_STEP: u16 = 10;

/// One of OVN's central databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// OVN_Northbound, ovn-nb(5).
    Northbound,
    /// OVN_Southbound, ovn-sb(5).
    Southbound,
}

impl Database {
    /// Its name in OVSDB.
    pub fn schema(self) -> &'static str {
        if self == Self::Northbound { "OVN_Northbound" } else { "OVN_Southbound" }
    }

    fn short(self) -> &'static str {
        if self == Self::Northbound { "nb" } else { "sb" }
    }

    /// Ports of the first server: for clients and for other members (ovn-ctl(8)'s own).
    fn ports(self) -> (u16, u16) {
        if self == Self::Northbound { (6641, 6643) } else { (6642, 6644) }
    }
}

/// One server of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    database: Database,
    /// From 1; `None` when it is the only one.
    number: Option<u16>,
}

impl Member {
    /// All servers of a database.
    pub fn all(model: ServiceModel, database: Database) -> Vec<Self> {
        match model {
            ServiceModel::Standalone => vec![Self { database, number: None }],
            ServiceModel::Raft => (1..=MEMBERS).map(|number| Self { database, number: Some(number) }).collect(),
        }
    }

    /// Its name as a process, e.g. `central/nb`, `central/nb2`.
    pub fn component(self) -> String {
        format!("central/{}", self.name())
    }

    /// Where it listens on this machine, in any namespace.
    pub fn unix(self, layout: &Layout) -> String {
        format!("unix:{}", self.file(layout, "_db.sock").display())
    }

    /// Where it listens on the fabric.
    ///
    /// # Errors
    /// When the central namespace has no address.
    pub fn over_fabric(self, layout: &Layout) -> Result<String> {
        let address = *layout.options.central_addresses().first().context("the central namespace has no address")?;
        Ok(format!("{}:{}", method(layout), SocketAddr::new(address, self.ports().0)))
    }

    /// What it says of its cluster (ovsdb-server(1), `cluster/status`).
    ///
    /// # Errors
    /// When it does not run, or is no member of a cluster.
    pub fn cluster_status(self, layout: &Layout) -> Result<String> {
        let control = self.file(layout, "_db.ctl").display().to_string();
        let argv = ["ovs-appctl", "--timeout=5", "-t", &control, "cluster/status", self.database.schema()];
        layout.ovn_place("central").output(&argv)
    }

    fn name(self) -> String {
        format!("{}{}", self.database.short(), self.number.map(|number| number.to_string()).unwrap_or_default())
    }

    fn file(self, layout: &Layout, rest: &str) -> PathBuf {
        layout.home("central").join(format!("ovn{}{rest}", self.name()))
    }

    fn ports(self) -> (u16, u16) {
        let step = PORT_STEP * self.number.map_or(0, |number| number - 1);
        let (clients, members) = self.database.ports();
        (clients + step, members + step)
    }

    fn raft_address(self, layout: &Layout) -> String {
        format!("{}:127.0.0.1:{}", method(layout), self.ports().1)
    }

    fn create(self, layout: &Layout) -> Result<()> {
        let file = self.file(layout, ".db").display().to_string();
        let schema = format!("/usr/share/ovn/ovn-{}.ovsschema", self.database.short());
        let (own, first) = (self.raft_address(layout), Self { number: Some(1), ..self }.raft_address(layout));
        let argv = match self.number {
            None => vec!["ovsdb-tool", "create", &file, &schema],
            Some(1) => vec!["ovsdb-tool", "create-cluster", &file, &schema, &own],
            Some(_) => vec!["ovsdb-tool", "join-cluster", &file, self.database.schema(), &own, &first],
        };
        layout.ovn_place("central").output(&argv).map(drop)
    }

    fn start(self, layout: &Layout) -> Result<()> {
        let file = |rest: &str| self.file(layout, rest).display().to_string();
        let argv = [
            "ovsdb-server".to_owned(),
            file(".db"),
            format!("--remote=punix:{}", file("_db.sock")),
            format!(
                "--remote=db:{},{}_Global,connections",
                self.database.schema(),
                self.database.short().to_uppercase()
            ),
            format!("--remote=p{}:{}:[::]", method(layout), self.ports().0),
            format!("--unixctl={}", file("_db.ctl")),
            format!("--pidfile={}", file("_db.pid")),
        ];
        let tls = layout.tls("central").iter().flat_map(pki::flags).collect::<Vec<_>>();
        ovn::start(layout, "central", &self.component(), argv.into_iter().chain(tls))
    }

    /// Waits until it serves: it accepts, and has joined its cluster if it is to be in one.
    fn await_serving(self, layout: &Layout) -> Result<()> {
        let component = self.component();
        ovn::await_socket(layout, &component, &self.file(layout, "_db.sock"))?;
        if self.number.is_none() {
            return Ok(());
        }
        wait_for(&format!("{component} to join its cluster"), START_LIMIT, || {
            self.cluster_status(layout).is_ok_and(|status| status.contains("Status: cluster member"))
        })
        .with_context(|| layout.processes().log_tail(&component))
    }
}

/// How the servers are reached over a network (ovsdb(7), "Connection Methods").
fn method(layout: &Layout) -> &'static str {
    if layout.options.tls { "ssl" } else { "tcp" }
}

/// Makes and starts all servers.
///
/// # Errors
/// Names the server that does not come up.
pub fn start(layout: &Layout) -> Result<()> {
    fs::create_dir_all(layout.home("central")).context("creating the folder of the central databases")?;
    let members = [Database::Northbound, Database::Southbound]
        .into_iter()
        .flat_map(|database| Member::all(layout.options.databases, database))
        .collect::<Vec<_>>();
    for member in &members {
        member.create(layout)?;
        member.start(layout)?;
    }
    members.into_iter().try_for_each(|member| member.await_serving(layout))
}

/// The member that leads a database's cluster.
///
/// # Errors
/// When none does, now.
pub fn leader(layout: &Layout, database: Database) -> Result<Member> {
    let leads = |member: &Member| member.cluster_status(layout).is_ok_and(|status| status.contains("\nRole: leader\n"));
    match Member::all(layout.options.databases, database).into_iter().find(leads) {
        Some(member) => Ok(member),
        None => bail!("no member of {} leads now", database.schema()),
    }
}
