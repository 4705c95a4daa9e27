//! The way to Open_vSwitch: a handle for the rest of the daemon to say what is wanted, and to wait until a row is as needed.
//!
//! ```text
//! set / remove --> [task: desired --> committer] --> transaction
//! wait(owner, test) <-- every change of the owner's Interface <-- [task: replica] <-- monitor
//! ```
//!
//! The task itself is `vswitch_task`. Must not: know what a row means, but for the few columns that make [`State`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ovenbird_api::name::INTEGRATION_BRIDGE;
use ovenbird_reconcile::{Output, Owner};
use ovenbird_schema::vswitch::interface;
use ovsdb::{Endpoint, Row};
use tokio::sync::{mpsc, oneshot, watch};

use crate::gateway::{Bridge, openflow};
use crate::rows::{Chassis, PodPort};
use crate::vswitch_task;

/// What the database says of the host as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// True while the session is up and the replica complete.
    pub synced: bool,
    /// `external_ids:system-id`.
    pub system_id: Option<String>,
    /// `external_ids:ovn-bridge-datapath-type` is `netdev`: OVS forwards in user space.
    pub userspace: bool,
    /// `iface_types`: what kinds of interfaces there can be; empty until vswitchd has said so.
    pub iface_types: BTreeSet<String>,
    /// br-int exists.
    pub bridge: bool,
    /// The other bridges, by name.
    pub bridges: BTreeMap<String, Bridge>,
    /// Ports of br-int by which it is on physical networks, by localnet port: their numbers in OpenFlow.
    pub localnets: BTreeMap<String, u16>,
    /// Transactions sent.
    pub transactions: u64,
    /// Rows written.
    pub rows: u64,
    /// Differences that others made and that were undone.
    pub healed: u64,
    /// Transactions that failed.
    pub errors: u64,
}

/// Why a row does not become what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The database refuses the owner's rows.
    #[error("Open_vSwitch rejects the rows: {0}")]
    Rejected(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Gets a row, or the reason why it will not come; true when it needs to hear no more.
pub(crate) type Waiter = Box<dyn FnMut(Result<Option<&Row>, RowError>) -> bool + Send>;

/// What the task is told.
pub(crate) enum Command {
    Set(Owner, Output),
    Chassis(Box<Chassis>),
    Remove(Owner, oneshot::Sender<()>),
    Wait(Owner, Waiter),
    Ports(oneshot::Sender<Vec<PodPort>>),
    AllowDeletes,
}

/// Handle to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vswitch {
    commands: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
    flows: Option<PathBuf>,
}

impl Vswitch {
    /// Starts the task, which compares everything each `audit`. It ends with the last handle, and leaves the data path as it is.
    pub fn spawn(endpoints: Vec<Endpoint>, audit: Duration) -> Vswitch {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (publish, state) = watch::channel(State::default());
        let flows = openflow::socket(&endpoints, INTEGRATION_BRIDGE);
        vswitch_task::spawn(endpoints, audit, inbox, publish);
        Vswitch { commands, state, flows }
    }

    /// The OpenFlow socket of br-int; `None` where the database's is not a unix socket.
    pub fn flows(&self) -> Option<&Path> {
        self.flows.as_deref()
    }

    /// What the database says of the host.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until the state passes a test.
    pub async fn until(&self, test: impl FnMut(&State) -> bool) -> Result<State, RowError> {
        let mut state = self.state.clone();
        state.wait_for(test).await.map(|s| s.clone()).map_err(|_| RowError::Stopping)
    }

    /// Replaces what an owner wants.
    pub fn set(&self, owner: Owner, output: Output) {
        self.send(Command::Set(owner, output));
    }

    /// Replaces what is wanted of the host as a whole.
    pub fn set_chassis(&self, chassis: Chassis) {
        self.send(Command::Chassis(Box::new(chassis)));
    }

    /// Withdraws what an owner wanted. Returns once its Interface is gone; at once while nothing can be removed (no session, or
    /// deletes are not allowed yet): then it goes later. The withdrawal itself is made by the call, not by the future.
    pub fn remove(&self, owner: &Owner) -> impl Future<Output = ()> + Send + use<> {
        let (tx, rx) = oneshot::channel();
        self.send(Command::Remove(owner.clone(), tx));
        // When the task has ended nothing can be waited for.
        async { drop(rx.await) }
    }

    /// Waits until a test of the owner's Interface yields something. It is made now and after each change of the row.
    pub async fn wait<T: Send + 'static>(
        &self,
        owner: &Owner,
        test: impl Fn(Option<interface::Ref<'_>>) -> Option<T> + Send + 'static,
    ) -> Result<T, RowError> {
        let (tx, rx) = oneshot::channel();
        let mut tx = Some(tx);
        let waiter = move |seen: Result<Option<&Row>, RowError>| {
            let answer = match seen {
                Ok(row) => test(row.map(interface::Ref)).map(Ok),
                Err(error) => Some(Err(error)),
            };
            let Some(answer) = answer else { return tx.as_ref().is_none_or(oneshot::Sender::is_closed) };
            // A caller that has gone away needs no answer.
            drop(tx.take().map(|tx| tx.send(answer)));
            true
        };
        self.send(Command::Wait(owner.clone(), Box::new(waiter)));
        rx.await.unwrap_or(Err(RowError::Stopping))
    }

    /// The attachments that our Interfaces tell of, once the replica is complete.
    pub async fn ports(&self) -> Result<Vec<PodPort>, RowError> {
        self.until(|s| s.synced).await?;
        let (tx, rx) = oneshot::channel();
        self.send(Command::Ports(tx));
        rx.await.map_err(|_| RowError::Stopping)
    }

    /// Says that everything that should stay is desired: what is ours and not desired goes.
    pub fn allow_deletes(&self) {
        self.send(Command::AllowDeletes);
    }

    fn send(&self, command: Command) {
        // After the end of the task, each answer channel is closed and says so.
        drop(self.commands.send(command));
    }
}

#[cfg(test)]
#[path = "vswitch_tests.rs"]
mod tests;
