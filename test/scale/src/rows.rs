//! Rows of the Northbound as a case sees them while a master writes.
//!
//! Input: a server, and what to watch of it. Output: a replica, and waits for a state of it. Must not: know a table.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ovenbird_schema::northbound::DATABASE;
use ovsdb::{Client, Config, Event, Handle, MonitorSpec, Replica};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::server::Server;

/// After this a row counts as never written.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is in the database.
pub struct Rows {
    events: UnboundedReceiver<Event>,
    /// What is there.
    pub replica: Replica,
    _handle: Handle,
}

impl Rows {
    /// Watches; returns when the first contents are there.
    pub async fn watch(northbound: &Server, spec: MonitorSpec) -> anyhow::Result<Rows> {
        let replica = Replica::new(&DATABASE, &spec);
        let (handle, events) = Client::spawn(Config::new(vec![northbound.endpoint()]), &DATABASE, spec);
        let mut rows = Rows { events, replica, _handle: handle };
        while !rows.next().await? {}
        Ok(rows)
    }

    /// Takes in one event. True when it was an update.
    async fn next(&mut self) -> anyhow::Result<bool> {
        match self.events.recv().await.context("the client ended")? {
            Event::Connected(info) => self.replica.set_server(&info),
            Event::Update(update) => {
                self.replica.apply(&update, &mut Vec::new())?;
                return Ok(true);
            }
            Event::Disconnected(error) => bail!("lost the database: {error}"),
            _ => {}
        }
        Ok(false)
    }

    /// Takes in events until the replica passes a test.
    pub async fn until(&mut self, mut met: impl FnMut(&Replica) -> bool) -> anyhow::Result<()> {
        let waiting = async {
            while !met(&self.replica) {
                self.next().await?;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("the rows never came")?
    }
}
