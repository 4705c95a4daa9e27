//! `ovenbird render`: the Northbound rows that a set of manifests means.
//!
//! ```text
//! files -> [manifests] -> facts -> [allocate] -> engine -> desired rows -> text | JSON | ovn-nbctl script
//! ```
//!
//! Annotations in the manifests are taken as they are; what they lack is allocated as the master would in an empty cluster.
//! Complaints about objects go to stderr and leave the rest as it is.

mod allocate;
mod manifests;
mod nbctl;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use ovenbird_reconcile::{Desired, Zone};
use ovenbird_schema::northbound::DATABASE;
use ovenbird_topology::{Change, Config, Engine, Fact, config, text};

/// Arguments of `ovenbird render`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Manifests (YAML or JSON, also lists as kubectl prints them): a file, a folder of *.yaml, *.yml and *.json, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE|DIR", required = true)]
    filenames: Vec<PathBuf>,
    /// Pod subnets with the prefix length of a node's part
    #[arg(long, value_name = "CIDR/LEN,...", default_value = config::DEFAULT_CLUSTER_SUBNETS)]
    cluster_subnets: String,
    /// Service subnets
    #[arg(long, value_name = "CIDR,...", default_value = config::DEFAULT_SERVICE_CIDRS)]
    k8s_service_cidrs: String,
    /// IPv4 subnet of the join switch
    #[arg(long, value_name = "CIDR", default_value = "100.64.0.0/16")]
    gateway_v4_join_subnet: String,
    /// IPv6 subnet of the join switch
    #[arg(long, value_name = "CIDR", default_value = "fd98::/64")]
    gateway_v6_join_subnet: String,
    /// IPv4 addresses that stand for host and OVN on the link between them
    #[arg(long, value_name = "CIDR", default_value = "169.254.169.0/29")]
    gateway_v4_masquerade_subnet: String,
    /// IPv6 addresses that stand for host and OVN on the link between them
    #[arg(long, value_name = "CIDR", default_value = "fd69::/125")]
    gateway_v6_masquerade_subnet: String,
    /// Pods keep their own address outside the cluster
    #[arg(long)]
    disable_snat: bool,
    /// Networks outside the cluster to which pods keep their own address
    #[arg(long, value_name = "CIDR,...", default_value = "")]
    non_masquerade_cidrs: String,
    /// text for people; json is {table: {uuid: {column: value}}} in OVSDB notation; nbctl is a script for an empty Northbound
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
    Nbctl,
}

/// Renders to stdout.
///
/// # Errors
/// When a file cannot be read or is not what it says, or the settings contradict each other.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let join = format!("{},{}", args.gateway_v4_join_subnet, args.gateway_v6_join_subnet);
    let config = Config::new(&config::Settings {
        cluster_subnets: &args.cluster_subnets,
        service_cidrs: &args.k8s_service_cidrs,
        join_subnets: &join,
        masquerade_subnets: &format!("{},{}", args.gateway_v4_masquerade_subnet, args.gateway_v6_masquerade_subnet),
        non_masquerade_cidrs: &args.non_masquerade_cidrs,
        snat: !args.disable_snat,
        ..config::Settings::default()
    })?;
    let read = manifests::read(&args.filenames)?;
    for note in &read.notes {
        eprintln!("{note}");
    }
    if read.facts.is_empty() {
        bail!("there is no object that has rows (Node, Pod, Service, ...) in the files given by --filename");
    }
    let (facts, problems) = allocate::fill(&config, read.facts);
    for problem in problems {
        eprintln!("{problem}");
    }
    let rows = translate(config, facts);
    let text = match args.output {
        Output::Text => text::rows(&rows),
        Output::Json => format!("{:#}\n", text::json(&rows)),
        Output::Nbctl => nbctl::script(&rows),
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to stdout")
}

/// The rows of all owners; complaints are printed.
fn translate(config: Config, facts: Vec<Fact>) -> Vec<ovenbird_reconcile::WholeRow> {
    let mut engine = Engine::new(config);
    facts.into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
    let mut desired = Desired::new(Zone(0), &DATABASE);
    for owner in engine.take_dirty() {
        let output = engine.translate(&owner);
        for d in desired.set(&owner, output) {
            eprintln!("{owner}: {:?}: {}", d.severity, d.message);
        }
    }
    desired.rows()
}
