//! The one task that owns replica, desired rows and committer of Open_vSwitch. See `vswitch` for its outside.
//!
//! Events and commands that have arrived together are taken together, and then one transaction is made of all of it.
//! Nothing of ours is removed before `AllowDeletes`. Must not: wait for anything but its two inboxes and its clock.

use std::error::Error;
use std::time::Duration;

use ovenbird_reconcile::{CommitConfig, Committer, Desired, Outcome, Output, Owner, Zone, is_ours};
use ovenbird_schema::vswitch::{DATABASE, bridge, datapath, interface, open_vswitch, port, qos};
use ovsdb::{Atom, Client, Config, Endpoint, Event, Handle, MonitorSpec, Replica, RowChange, TableSpec, TxnId, Uuid};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use crate::gateway::bridge as bridges;
use crate::rows::{BRIDGE_MAPPINGS, Chassis, Known, PROVIDER_MAPPINGS, PodPort, interface_uuid};
use crate::vswitch::{Command, RowError, State, Waiter};

/// Starts the task.
pub(crate) fn spawn(
    endpoints: Vec<Endpoint>,
    audit: Duration,
    inbox: mpsc::UnboundedReceiver<Command>,
    publish: watch::Sender<State>,
) {
    let spec = monitor();
    let (handle, events) = Client::spawn(Config::new(endpoints), &DATABASE, spec.clone());
    // A pod's port goes when the runtime says so: no share of the rows is too large to remove.
    let limits = CommitConfig { brake_percent: 100, ..CommitConfig::default() };
    let task = Task {
        handle,
        replica: Replica::new(&DATABASE, &spec),
        desired: Desired::new(Zone(0), &DATABASE),
        committer: Committer::new(limits, None),
        chassis: None,
        waiters: FxHashMap::default(),
        removing: Vec::new(),
        in_flight: None,
        start: Instant::now(),
        synced: false,
        deletes: false,
        publish,
    };
    tokio::spawn(task.run(events, inbox, audit));
}

/// What is replicated: no statistics, which change all the time.
fn monitor() -> MonitorSpec {
    let interfaces = [
        interface::EXTERNAL_IDS,
        interface::NAME,
        interface::TYPE,
        interface::MAC,
        interface::MTU_REQUEST,
        interface::OFPORT,
        interface::OFPORT_REQUEST,
        interface::OPTIONS,
        interface::IFINDEX,
        interface::ERROR,
        interface::INGRESS_POLICING_RATE,
        interface::INGRESS_POLICING_BURST,
    ];
    let ports = [port::EXTERNAL_IDS, port::NAME, port::INTERFACES, port::OTHER_CONFIG, port::QOS, port::TAG];
    let bridges = [
        bridge::NAME,
        bridge::PORTS,
        bridge::DATAPATH_TYPE,
        bridge::FAIL_MODE,
        bridge::EXTERNAL_IDS,
        bridge::OTHER_CONFIG,
        bridge::STP_ENABLE,
        bridge::RSTP_ENABLE,
    ];
    let roots =
        [open_vswitch::BRIDGES, open_vswitch::EXTERNAL_IDS, open_vswitch::IFACE_TYPES, open_vswitch::OVS_VERSION];
    MonitorSpec::new()
        .with(TableSpec::columns(&open_vswitch::TABLE, roots))
        .with(TableSpec::columns(&datapath::TABLE, [datapath::CAPABILITIES]))
        .with(TableSpec::columns(&bridge::TABLE, bridges).index(bridge::NAME))
        .with(TableSpec::columns(&port::TABLE, ports).index(port::NAME))
        .with(TableSpec::columns(&interface::TABLE, interfaces).index(interface::NAME))
        .with(TableSpec::columns(&qos::TABLE, [qos::TYPE, qos::OTHER_CONFIG, qos::EXTERNAL_IDS]))
}

/// True of versions before 3.1.3, and before 3.2.3 of 3.2; see [`Known::fragile`].
pub(crate) fn is_fragile(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    version < (3, 1, 3) || ((3, 2, 0)..(3, 2, 3)).contains(&version)
}

struct Task {
    handle: Handle,
    replica: Replica,
    desired: Desired,
    committer: Committer,
    /// What is wanted of the host as a whole, and what its rows were made with.
    chassis: Option<(Box<Chassis>, Known)>,
    /// Who waits for an Interface.
    waiters: FxHashMap<Uuid, Vec<Waiter>>,
    /// Who waits for an Interface to be gone.
    removing: Vec<(Uuid, oneshot::Sender<()>)>,
    in_flight: Option<TxnId>,
    start: Instant,
    synced: bool,
    deletes: bool,
    publish: watch::Sender<State>,
}

impl Task {
    async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        audit: Duration,
    ) {
        let mut next_audit = self.start + audit;
        loop {
            let wake = self.committer.next_wake().map_or(next_audit, |at| next_audit.min(self.start + at));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return error!("the client of Open_vSwitch has ended"),
                },
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return self.handle.shutdown(),
                },
                () = sleep_until(wake) => {
                    if Instant::now() >= next_audit {
                        self.desired.request_audit();
                        next_audit += audit;
                    }
                }
            }
            while let Ok(event) = events.try_recv() {
                self.on_event(event);
            }
            while let Ok(command) = inbox.try_recv() {
                self.on_command(command);
            }
            self.commit();
            self.tell_removed();
            self.tell_state();
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Set(owner, output) => {
                self.want(&owner, output);
            }
            Command::Chassis(chassis) => {
                let known = self.known();
                self.want(&Chassis::owner(), chassis.output(&known));
                self.chassis = Some((chassis, known));
            }
            Command::Remove(owner, done) => {
                self.desired.remove(&owner);
                self.removing.push((interface_uuid(&owner), done));
            }
            Command::Wait(owner, mut waiter) => {
                let uuid = interface_uuid(&owner);
                let rejected = self.committer.quarantined().find(|(o, _)| **o == owner).map(|(_, d)| d.message.clone());
                let seen = match rejected {
                    Some(message) => Err(RowError::Rejected(message)),
                    None => Ok(self.replica.row(&interface::TABLE, &uuid)),
                };
                if !waiter(seen) {
                    self.waiters.entry(uuid).or_default().push(waiter);
                }
            }
            Command::Ports(reply) => {
                let ours = self.replica.rows(&interface::TABLE).filter(|(uuid, _)| is_ours(uuid));
                let ports = ours.filter_map(|(_, row)| PodPort::from_interface(interface::Ref(row))).collect();
                drop(reply.send(ports));
            }
            Command::AllowDeletes => {
                self.deletes = true;
                self.committer.allow_deletes(&mut self.desired, true);
            }
        }
    }

    fn want(&mut self, owner: &Owner, output: Output) {
        for diagnostic in self.desired.set(owner, output) {
            warn!(%owner, "{}", diagnostic.message);
        }
    }

    /// Others map networks to bridges in the same text: what they write is seen here before the next transaction is made.
    fn follow(&mut self) {
        let now = self.known();
        if let Some((chassis, then)) = &mut self.chassis
            && *then != now
        {
            let output = chassis.output(&now);
            *then = now;
            self.want(&Chassis::owner(), output);
        }
    }

    fn known(&self) -> Known {
        let root = self.replica.rows(&open_vswitch::TABLE).next().map(|(_, row)| open_vswitch::Ref(row));
        Known {
            mappings: root.and_then(|r| r.external_ids().get(BRIDGE_MAPPINGS)).map(str::to_owned),
            provider_mappings: root.and_then(|r| r.external_ids().get(PROVIDER_MAPPINGS)).map(str::to_owned),
            // A version that nobody told may be an old one.
            fragile: is_fragile(root.and_then(|r| r.ovs_version()).unwrap_or_default())
                && self.replica.rows(&datapath::TABLE).count() == 1,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected(server) => {
                self.replica.set_server(&server);
                self.synced = false;
            }
            Event::Update(update) => {
                let mut changes = Vec::new();
                if let Err(e) = self.replica.apply(&update, &mut changes) {
                    error!("an update of Open_vSwitch does not decode ({e}); connecting again");
                    self.synced = false;
                    return self.handle.force_reconnect();
                }
                changes.iter().for_each(|change| self.on_change(change));
                if !self.synced {
                    info!("Open_vSwitch is replicated");
                    self.synced = true;
                    self.committer.reset(&mut self.desired);
                }
            }
            Event::Reply { id, result } if self.in_flight == Some(id) => {
                self.in_flight = None;
                let result = result.as_ref().map_err(|e| e as &(dyn Error + 'static));
                let outcome = self.committer.on_reply(&mut self.desired, result, self.start.elapsed());
                outcome.into_iter().for_each(|o| self.on_outcome(o));
            }
            Event::Disconnected(e) => {
                warn!("no session with Open_vSwitch: {e}");
                self.synced = false;
            }
            Event::Reply { .. } | Event::Locked(_) | Event::Stolen(_) => {}
        }
    }

    fn on_change(&mut self, change: &RowChange) {
        self.desired.mark(change, &self.replica);
        if change.table != &interface::TABLE {
            return;
        }
        if let Some(mut waiting) = self.waiters.remove(&change.uuid) {
            let row = self.replica.row(change.table, &change.uuid);
            waiting.retain_mut(|waiter| !waiter(Ok(row)));
            if !waiting.is_empty() {
                self.waiters.insert(change.uuid, waiting);
            }
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Committed { rows } => debug!(rows, "committed"),
            Outcome::Quarantined(owners) => {
                for (owner, diagnostic) in owners {
                    error!(%owner, "{}", diagnostic.message);
                    self.fail(&owner, &diagnostic.message);
                }
            }
            other => warn!("transaction on Open_vSwitch: {other:?}"),
        }
    }

    fn fail(&mut self, owner: &Owner, message: &str) {
        for mut waiter in self.waiters.remove(&interface_uuid(owner)).unwrap_or_default() {
            waiter(Err(RowError::Rejected(message.to_owned())));
        }
    }

    fn commit(&mut self) {
        if !self.synced {
            return;
        }
        self.follow();
        if let Some(batch) = self.committer.next(&mut self.desired, &self.replica, self.start.elapsed()) {
            self.in_flight = Some(self.handle.transact(&batch.ops));
        }
    }

    /// Answers those who wait for a removal that has happened, or that cannot happen now.
    fn tell_removed(&mut self) {
        let (replica, possible) = (&self.replica, self.deletes && self.synced);
        for (_, done) in
            self.removing.extract_if(.., |(uuid, _)| !possible || replica.row(&interface::TABLE, uuid).is_none())
        {
            // A caller that has gone away needs no answer.
            let _ = done.send(());
        }
    }

    fn tell_state(&self) {
        let root = self.replica.rows(&open_vswitch::TABLE).next().map(|(_, row)| open_vswitch::Ref(row));
        let id = |key| root.and_then(|r| r.external_ids().get(key));
        let counters = self.committer.counters();
        let name = Atom::from(ovenbird_api::name::INTEGRATION_BRIDGE);
        let state = State {
            synced: self.synced,
            system_id: id("system-id").map(str::to_owned),
            userspace: id("ovn-bridge-datapath-type") == Some("netdev"),
            iface_types: root.into_iter().flat_map(|r| r.iface_types()).map(str::to_owned).collect(),
            bridge: self.replica.find(&bridge::TABLE, bridge::NAME, &name).is_some(),
            bridges: bridges::read(&self.replica),
            localnets: bridges::localnets(&self.replica),
            transactions: counters.transactions,
            rows: counters.rows,
            healed: counters.healed + counters.audited,
            errors: counters.errors,
        };
        self.publish.send_if_modified(|old| std::mem::replace(old, state.clone()) != state);
    }
}
