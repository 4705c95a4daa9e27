//! A truth table: who asks whom, by which protocol and port, in which family; all rows at once; against what the evaluator says.
//!
//! ```text
//! world -> rows -> [evaluator] -> wanted --+
//!            +---> [probes, all at once] --+-> rows that do not hold -> again, until all hold, twice
//! ```
//! Inputs: a world and its policies. Output: how long it took until the table held, or what is wrong with which row. Must not: know
//! policies by name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use ovenbird_e2e::sctp;
use ovenbird_e2e::service::PORT;
use ovenbird_e2e::witness::{self, Silence};
use ovenbird_lab::Place;
use ovenbird_verdict::evaluate::admin::Tiers;
use ovenbird_verdict::{Cluster, Packet, Protocol};

use crate::world::{End, SERVICES, World, cluster_ips, node_port, socket};

/// How long a table may take to hold.
const LIMIT: Duration = Duration::from_secs(15);
/// After this, rows that do not hold are held against the datapath's cache, too.
const SLOW: Duration = Duration::from_millis(1500);
/// Ports of clients: of SCTP each row has its own, by which its answer is known.
const CLIENT: u16 = 20_000;

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Where none is wanted.
    pub denied: Duration,
    /// Where one is wanted.
    pub allowed: Duration,
}

/// While a table is on its way: whoever is silent is asked again.
const BRIEF: Patience = Patience { denied: Duration::from_millis(150), allowed: Duration::from_millis(400) };
/// For one look among many.
const LOOK: Patience = Patience { denied: Duration::from_millis(150), allowed: Duration::from_secs(4) };
/// For all rows: a SYN is sent twice within this.
const FULL: Patience = Patience { denied: Duration::from_millis(300), allowed: Duration::from_millis(1500) };
/// For the verdict on those that were wrong: a SYN is sent three times within this.
const LONG: Patience = Patience { denied: Duration::from_millis(400), allowed: Duration::from_secs(4) };

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who asks.
    pub from: String,
    place: Place,
    /// What is asked.
    pub to: SocketAddr,
    /// Who is to answer.
    pub target: String,
    /// The packet as policies see it.
    pub packet: Packet,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Somebody answered, and saw this source (not of SCTP).
    Answer(String, Option<IpAddr>),
    /// Nobody did.
    Silence,
    /// Something else.
    Other(String),
}

/// What the evaluator says of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It arrives.
    pub allowed: bool,
    /// What decides at both ends, for people.
    why: String,
}

/// How a table came to hold.
#[derive(Clone, Debug)]
pub struct Held {
    /// After this time.
    pub after: Duration,
    /// Rows that held only when the datapath had forgotten its flows.
    pub stale: Vec<String>,
}

/// Rows of a world, and what each must do.
#[derive(Clone)]
pub struct Table {
    rows: Arc<[Row]>,
    /// What the evaluator says.
    pub verdicts: Vec<Verdict>,
}

/// All rows, in the state of no policies; the sources that targets see are then known.
pub fn rows(world: &World) -> Result<Arc<[Row]>> {
    let mut rows = Vec::new();
    for family in [0, 1] {
        between_pods(world, family, &mut rows);
        with_hosts(world, family, &mut rows);
        through_services(world, family, &mut rows)?;
    }
    learn_sources(world, &mut rows)?;
    Ok(rows.into())
}

fn row(from: &End, to: SocketAddr, target: &str, family: usize, protocol: Protocol, behind: SocketAddr) -> Row {
    let packet = Packet {
        source: from.ips[family],
        destination: behind.ip(),
        protocol,
        source_port: CLIENT,
        port: behind.port(),
    };
    Row { from: from.name.clone(), place: from.place.clone(), to, target: target.to_owned(), packet }
}

fn between_pods(world: &World, family: usize, rows: &mut Vec<Row>) {
    for (i, from) in world.pods.iter().enumerate() {
        for (j, to) in world.pods.iter().enumerate().filter(|(j, _)| *j != i) {
            let mut add = |protocol, port| {
                let address = socket(to.ips[family], port);
                rows.push(row(from, address, &to.name, family, protocol, address));
            };
            add(Protocol::Tcp, 80);
            add(Protocol::Tcp, 8080);
            add(Protocol::Udp, if (i + j) % 2 == 0 { 80 } else { 53 });
            // Connection tracking in user space knows no ports of SCTP: what a pod once sent to another lets the other's INITs pass
            // as replies. So each pair has one direction, and one port.
            if i < j {
                add(Protocol::Sctp, 7002 + u16::from((i + j) % 2 == 0));
            }
        }
    }
}

fn with_hosts(world: &World, family: usize, rows: &mut Vec<Row>) {
    let outside = End { ips: world.beyond(), ..world.outside.clone() };
    for (index, pod) in world.pods.iter().enumerate() {
        for (turn, node) in world.nodes.iter().enumerate() {
            let (protocol, port) = [(Protocol::Tcp, 80), (Protocol::Udp, 53)][(index + turn) % 2];
            let address = socket(pod.ips[family], port);
            rows.push(row(node, address, &pod.name, family, protocol, address));
        }
        for (turn, host) in [&world.nodes[1], &outside].into_iter().enumerate() {
            let (protocol, port) = [(Protocol::Tcp, 8080), (Protocol::Udp, 53)][(index + turn) % 2];
            let address = socket(host.ips[family], port);
            rows.push(row(pod, address, &host.name, family, protocol, address));
        }
    }
}

fn through_services(world: &World, family: usize, rows: &mut Vec<Row>) -> Result<()> {
    for (index, (_, endpoint)) in SERVICES.into_iter().enumerate() {
        let behind = socket(world.pod(endpoint)?.ips[family], PORT);
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            let by_address = socket(cluster_ips(index)[family], port);
            // Half of the pods by TCP, half by UDP.
            let pods = world.pods.iter().skip(usize::from(protocol == Protocol::Udp)).step_by(2);
            rows.extend(pods.map(|pod| row(pod, by_address, endpoint, family, protocol, behind)));
            let by_node = socket(world.nodes[0].ips[family], node_port(index));
            rows.push(row(&world.outside, by_node, endpoint, family, protocol, behind));
        }
    }
    Ok(())
}

/// Asks all rows, with no policies, until everybody answers, and to pods other pods by their own addresses: in a VM the kernel serves a Service,
/// with the node's address, until OVN does. From where hosts' packets come is what their targets see.
fn learn_sources(world: &World, rows: &mut [Row]) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let indices: Vec<_> = (0..rows.len()).collect();
    let is_pod = |name: &str| world.pods.iter().any(|pod| pod.name == name);
    let outcomes = loop {
        let asked = Instant::now();
        let outcomes = ask(rows, &indices, |_| LONG.allowed)?;
        let fits = |(row, outcome): &(&Row, &Outcome)| {
            let Outcome::Answer(who, seen) = outcome else { return false };
            let by_itself = row.from != row.target && is_pod(&row.from) && is_pod(&row.target);
            *who == row.target && !(by_itself && seen.is_some_and(|seen| seen != row.packet.source))
        };
        let wrong = rows.iter().zip(&outcomes).filter(|pair| !fits(pair));
        let wrong: Vec<_> = wrong.map(|(row, outcome)| format!("{}: {outcome:?}", row.title())).collect();
        if wrong.is_empty() {
            println!("{} rows without policies in {:.1?}", rows.len(), asked.elapsed());
            break outcomes;
        }
        if Instant::now() > end {
            bail!("{} of {} rows do not hold without policies:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
        }
    };
    for (row, outcome) in rows.iter_mut().zip(outcomes) {
        if let Outcome::Answer(_, Some(seen)) = outcome
            && !is_pod(&row.from)
        {
            row.packet.source = seen;
        }
    }
    Ok(())
}

impl Row {
    /// For people.
    pub fn title(&self) -> String {
        let behind = SocketAddr::new(self.packet.destination, self.packet.port);
        let by = if behind == self.to { String::new() } else { format!(" by {}", self.to) };
        format!("{} -> {}{by} ({})", self.from, self.target, self.packet)
    }

    /// Where it is asked from.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The same row, asked from where its pod is now.
    pub fn relocated(&self, world: &World) -> Row {
        let now = world.pods.iter().find(|pod| pod.name == self.from);
        Row { place: now.map_or_else(|| self.place.clone(), |pod| pod.place.clone()), ..self.clone() }
    }

    /// Asks, in the place of the calling thread.
    fn ask(&self, number: usize, patience: Duration) -> Outcome {
        let here = Place::default();
        let plain = match self.packet.protocol {
            Protocol::Tcp => witness::Protocol::Tcp,
            Protocol::Udp => witness::Protocol::Udp,
            _ => {
                let from = socket(self.packet.source, CLIENT + u16::try_from(number).unwrap_or_default());
                return match sctp::ask(&here, from, self.to, patience) {
                    Ok(Some(answer)) if answer.from == self.to => Outcome::Answer(self.target.clone(), None),
                    Ok(None) => Outcome::Silence,
                    other => Outcome::Other(format!("{other:?}")),
                };
            }
        };
        match witness::ask(&here, plain, self.to, patience) {
            Ok(Ok(answer)) => Outcome::Answer(answer.who, Some(answer.seen)),
            Ok(Err(Silence::Timeout)) => Outcome::Silence,
            Ok(Err(Silence::Refused)) => Outcome::Other("refused".into()),
            Err(error) => Outcome::Other(format!("{error:#}")),
        }
    }
}

/// Asks rows, all at the same time.
fn ask(rows: &[Row], indices: &[usize], patience: impl Fn(usize) -> Duration + Sync) -> Result<Vec<Outcome>> {
    let mut by_place: Vec<(&Place, Vec<usize>)> = Vec::new();
    for index in indices {
        match by_place.iter_mut().find(|(place, _)| **place == rows[*index].place) {
            Some((_, of_place)) => of_place.push(*index),
            None => by_place.push((&rows[*index].place, vec![*index])),
        }
    }
    let patience = &patience;
    let of_place = |place: &Place, indices: &[usize]| {
        place.run(|| {
            // Threads that are started here inherit the namespace.
            Ok(thread::scope(|scope| {
                let start = |index: usize| (index, scope.spawn(move || rows[index].ask(index, patience(index))));
                let asked: Vec<_> = indices.iter().copied().map(start).collect();
                let panicked = |_| Outcome::Other("the probe panicked".into());
                asked
                    .into_iter()
                    .map(|(index, probe)| (index, probe.join().unwrap_or_else(panicked)))
                    .collect::<Vec<_>>()
            }))
        })
    };
    let mut found: Vec<(usize, Outcome)> = thread::scope(|scope| {
        let places: Vec<_> = by_place.iter().map(|(place, of)| scope.spawn(move || of_place(place, of))).collect();
        let joined = places.into_iter().map(|place| place.join().map_err(|_| anyhow!("a probe panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?
    .concat();
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, outcome)| outcome).collect())
}

impl Table {
    /// What the evaluator says of rows.
    pub fn new(rows: &Arc<[Row]>, cluster: &Cluster) -> Table {
        let verdict = |row: &Row| {
            let verdict = cluster.verdict(&row.packet);
            Verdict {
                allowed: verdict.allowed,
                why: format!("egress {:?}, ingress {:?}", verdict.egress, verdict.ingress),
            }
        };
        Table { rows: rows.clone(), verdicts: rows.iter().map(verdict).collect() }
    }

    /// The same where there are admin policies.
    pub fn of_tiers(rows: &Arc<[Row]>, tiers: &Tiers<'_>) -> Table {
        let verdict = |row: &Row| {
            let verdict = tiers.verdict(&row.packet);
            Verdict {
                allowed: verdict.allowed,
                why: format!("egress {:?}, ingress {:?}", verdict.egress, verdict.ingress),
            }
        };
        Table { rows: rows.clone(), verdicts: rows.iter().map(verdict).collect() }
    }

    /// How many rows are denied.
    pub fn denied(&self) -> usize {
        self.verdicts.iter().filter(|verdict| !verdict.allowed).count()
    }

    /// The rows that are denied.
    pub fn denied_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().zip(&self.verdicts).filter(|(_, verdict)| !verdict.allowed).map(|(row, _)| row)
    }

    /// One look at all rows: those that are denied and answered, and those that are wrong otherwise.
    ///
    /// # Errors
    /// When a place cannot be entered.
    pub fn look(&self) -> Result<(Vec<String>, Vec<String>)> {
        let wrong = self.wrong(&self.all(), LOOK)?;
        let (opened, silent): (Vec<_>, Vec<_>) = wrong
            .iter()
            .partition(|(index, outcome)| !self.verdicts[*index].allowed && matches!(outcome, Outcome::Answer(..)));
        let line = |wrong: &&(usize, Outcome)| self.line(wrong);
        Ok((opened.iter().map(line).collect(), silent.iter().map(line).collect()))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows of which another table of the same rows says the same.
    pub fn agreeing(&self, other: &Table) -> Table {
        let same = |index: &usize| self.verdicts[*index].allowed == other.verdicts[*index].allowed;
        let indices: Vec<_> = self.all().into_iter().filter(same).collect();
        let rows = indices.iter().map(|index| self.rows[*index].clone()).collect();
        Table { rows, verdicts: indices.iter().map(|index| self.verdicts[*index].clone()).collect() }
    }

    /// Waits until the whole table holds, and looks once more. Rows that differ from the table `before` are asked until they hold, then all.
    ///
    /// # Errors
    /// The rows that do not hold.
    pub fn hold(&self, world: &World, before: &[Verdict], began: Instant) -> Result<Held> {
        let differs =
            |index: &usize| before.get(*index).is_none_or(|verdict| verdict.allowed != self.verdicts[*index].allowed);
        let mut suspects: Vec<_> = self.all().into_iter().filter(differs).collect();
        let mut stale = Vec::new();
        let after = loop {
            let asked = Instant::now();
            suspects = self.wrong(&suspects, BRIEF)?.into_iter().map(|(index, _)| index).collect();
            let late = began.elapsed() > LIMIT;
            if suspects.is_empty() || late {
                let wrong = self.wrong_by_rules(world, &mut stale)?;
                if wrong.is_empty() {
                    break asked.saturating_duration_since(began);
                }
                ensure!(!late, "{}", self.report(&wrong));
                suspects = wrong.into_iter().map(|(index, _)| index).collect();
            } else if began.elapsed() > SLOW {
                world.forget_flows()?;
            }
        };
        let wrong = self.wrong_by_rules(world, &mut stale)?;
        ensure!(wrong.is_empty(), "it held only once: {}", self.report(&wrong));
        Ok(Held { after, stale })
    }

    fn all(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    /// Rows that do not hold, now, by the rules of OpenFlow. Those that hold once the datapath has forgotten its flows go to `stale`: in
    /// user space a flow may stay as the rules of a moment ago had it (the lab's README).
    fn wrong_by_rules(&self, world: &World, stale: &mut Vec<String>) -> Result<Vec<(usize, Outcome)>> {
        let first = self.wrong(&self.all(), FULL)?;
        if first.is_empty() {
            return Ok(first);
        }
        world.forget_flows()?;
        let indices: Vec<_> = first.iter().map(|(index, _)| *index).collect();
        let wrong = self.wrong(&indices, LONG)?;
        let holds = |(index, _): &&(usize, Outcome)| wrong.iter().all(|(other, _)| other != index);
        stale.extend(first.iter().filter(holds).map(|wrong| self.line(wrong)));
        Ok(wrong)
    }

    /// Rows that do not hold, now.
    fn wrong(&self, indices: &[usize], patience: Patience) -> Result<Vec<(usize, Outcome)>> {
        let allowed = |index: usize| self.verdicts[index].allowed;
        let limit = |index: usize| if allowed(index) { patience.allowed } else { patience.denied };
        let outcomes = ask(&self.rows, indices, limit)?;
        let holds = |index: usize, outcome: &Outcome| match outcome {
            Outcome::Answer(who, _) => allowed(index) && *who == self.rows[index].target,
            Outcome::Silence => !allowed(index),
            Outcome::Other(_) => false,
        };
        Ok(indices.iter().copied().zip(outcomes).filter(|(index, outcome)| !holds(*index, outcome)).collect())
    }

    fn line(&self, (index, outcome): &(usize, Outcome)) -> String {
        let verdict = &self.verdicts[*index];
        let word = if verdict.allowed { "allowed" } else { "denied" };
        let title = self.rows[*index].title();
        format!("  {title}: {outcome:?}, but {word}: {}", verdict.why)
    }

    fn report(&self, wrong: &[(usize, Outcome)]) -> String {
        let lines: Vec<_> = wrong.iter().take(24).map(|wrong| self.line(wrong)).collect();
        format!("{} of {} rows do not hold:\n{}", wrong.len(), self.rows.len(), lines.join("\n"))
    }
}
