//! The configuration of the master: one validated struct from flags, environment, a YAML file and defaults.
//!
//! ```text
//! flag  >  environment (OVENBIRD_*)  >  file (--config)  >  default
//! ```
//!
//! Flag names are those of ovn-kubernetes where the meaning is the same. The file has the flags' names as keys. Every error
//! names the flag and says what to do. Must not: open a connection, read a key file, or be asked twice.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use ipnet::{Ipv4Net, Ipv6Net};
use ovenbird_daemon::merge;
use ovenbird_daemon::settings::{self, SettingError, parse, seconds, wrong};
use ovenbird_topology::config as topology;
use serde::{Deserialize, Serialize};

const EXAMPLES: &str = "\
Examples:
  A cluster with both families, Northbound on this host:
    ovenbird-master --cluster-subnets 10.128.0.0/14/23,fd00:10:128::/48/64 \\
      --k8s-service-cidrs 10.96.0.0/16,fd00:10:96::/112 --nb-address unix:/var/run/ovn/ovnnb_db.sock

  A Northbound of three members over TLS, everything else from a file:
    ovenbird-master --config /etc/ovenbird/master.yaml \\
      --nb-address ssl:10.0.0.1:6641,ssl:10.0.0.2:6641,ssl:10.0.0.3:6641 \\
      --nb-client-privkey key.pem --nb-client-cert cert.pem --nb-client-cacert ca.pem

  The same names serve in the file (cluster-subnets: 10.128.0.0/14/23) and in the environment
  (OVENBIRD_CLUSTER_SUBNETS=10.128.0.0/14/23).";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "ovenbird-master", version, about = "Turns Kubernetes objects into OVN Northbound rows", after_help = EXAMPLES)]
pub struct Args {
    /// YAML file with settings; its keys are the names of the flags.
    #[arg(long, env = "OVENBIRD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// All other settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Settings as they are written by people: each optional, none validated.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// kubeconfig file; without it $KUBECONFIG, ~/.kube/config or the service account of the pod.
    #[arg(long, env = "OVENBIRD_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Network of the cluster, as for the nodes: overlay; underlay, in which pods are on Networks alone; or classic, for which subnets
    /// and addresses are given out and no Northbound is written [default: overlay].
    #[arg(long, env = "OVENBIRD_NETWORK_MODE", value_name = "MODE")]
    pub network_mode: Option<String>,

    /// Pod networks as CIDR/HOST-PREFIX, separated by commas; at most one of each family [default: 10.128.0.0/14/23].
    #[arg(long, env = "OVENBIRD_CLUSTER_SUBNETS", value_name = "CIDR/LEN,...")]
    pub cluster_subnets: Option<String>,

    /// Service networks, separated by commas [default: 10.96.0.0/16].
    #[arg(long, env = "OVENBIRD_K8S_SERVICE_CIDRS", value_name = "CIDR,...")]
    pub k8s_service_cidrs: Option<String>,

    /// IPv4 network between the cluster router and the gateway routers [default: 100.64.0.0/16].
    #[arg(long, env = "OVENBIRD_GATEWAY_V4_JOIN_SUBNET", value_name = "CIDR")]
    pub gateway_v4_join_subnet: Option<String>,

    /// IPv6 network between the cluster router and the gateway routers [default: fd98::/64].
    #[arg(long, env = "OVENBIRD_GATEWAY_V6_JOIN_SUBNET", value_name = "CIDR")]
    pub gateway_v6_join_subnet: Option<String>,

    /// IPv4 addresses that stand for host and OVN on the link between them [default: 169.254.169.0/29].
    #[arg(long, env = "OVENBIRD_GATEWAY_V4_MASQUERADE_SUBNET", value_name = "CIDR")]
    pub gateway_v4_masquerade_subnet: Option<String>,

    /// IPv6 addresses that stand for host and OVN on the link between them [default: fd69::/125].
    #[arg(long, env = "OVENBIRD_GATEWAY_V6_MASQUERADE_SUBNET", value_name = "CIDR")]
    pub gateway_v6_masquerade_subnet: Option<String>,

    /// Pods keep their own address outside the cluster, not their node's: who answers needs routes to them.
    #[arg(long, env = "OVENBIRD_DISABLE_SNAT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub disable_snat: Option<bool>,

    /// Networks outside the cluster to which pods keep their own address, separated by commas [default: none].
    #[arg(long, env = "OVENBIRD_NON_MASQUERADE_CIDRS", value_name = "CIDR,...")]
    pub non_masquerade_cidrs: Option<String>,

    /// Enforce NetworkPolicies; false lets everything through and leaves the policies alone [default: true].
    #[arg(long, env = "OVENBIRD_ENABLE_NETWORK_POLICY", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub enable_network_policy: Option<bool>,

    /// Packets per second that each rule of a policy logs, in namespaces that ask for it (annotation k8s.ovn.org/acl-logging) [default: 20].
    #[arg(long, env = "OVENBIRD_ACL_LOGGING_RATE_LIMIT", value_name = "NUMBER")]
    pub acl_logging_rate_limit: Option<u16>,

    /// Northbound servers, separated by commas: unix:PATH, tcp:HOST:PORT, ssl:HOST:PORT
    /// [default: unix:/var/run/ovn/ovnnb_db.sock].
    #[arg(long, env = "OVENBIRD_NB_ADDRESS", value_name = "ADDRESS,...")]
    pub nb_address: Option<String>,

    /// Private key (PEM) for ssl: addresses.
    #[arg(long, env = "OVENBIRD_NB_CLIENT_PRIVKEY", value_name = "FILE")]
    pub nb_client_privkey: Option<PathBuf>,

    /// Certificate (PEM) for ssl: addresses.
    #[arg(long, env = "OVENBIRD_NB_CLIENT_CERT", value_name = "FILE")]
    pub nb_client_cert: Option<PathBuf>,

    /// Certificate authority (PEM) that signed the servers' certificates.
    #[arg(long, env = "OVENBIRD_NB_CLIENT_CACERT", value_name = "FILE")]
    pub nb_client_cacert: Option<PathBuf>,

    /// Address of /metrics, /healthz and /readyz; "" turns them off [default: 127.0.0.1:9409].
    #[arg(long, env = "OVENBIRD_METRICS_BIND_ADDRESS", value_name = "IP:PORT")]
    pub metrics_bind_address: Option<String>,

    /// Unix socket that `ovenbird status` asks; "" turns it off [default: /run/ovenbird/master.sock].
    #[arg(long, env = "OVENBIRD_ADMIN_SOCKET", value_name = "PATH", value_parser = PathBuf::from_str)]
    pub admin_socket: Option<PathBuf>,

    /// Namespace of the Lease that elects the one writer [default: kube-system].
    #[arg(long, env = "OVENBIRD_LEASE_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,

    /// Name of the Lease [default: ovenbird-master].
    #[arg(long, env = "OVENBIRD_LEASE_NAME", value_name = "NAME")]
    pub lease_name: Option<String>,

    /// Who we are in the Lease; must differ between replicas. A fixed one lets a killed process take its own lease back at
    /// once when it starts again [default: hostname and a random part].
    #[arg(long, env = "OVENBIRD_LEASE_IDENTITY", value_name = "NAME")]
    pub lease_identity: Option<String>,

    /// Seconds after the last renewal at which others may take the lease [default: 8].
    #[arg(long, env = "OVENBIRD_HA_ELECTION_LEASE_DURATION", value_name = "SECONDS")]
    pub ha_election_lease_duration: Option<u32>,

    /// Seconds after the last renewal at which the leader stops writing by itself [default: 5].
    #[arg(long, env = "OVENBIRD_HA_ELECTION_RENEW_DEADLINE", value_name = "SECONDS")]
    pub ha_election_renew_deadline: Option<u32>,

    /// Seconds between renewals [default: 1].
    #[arg(long, env = "OVENBIRD_HA_ELECTION_RETRY_PERIOD", value_name = "SECONDS")]
    pub ha_election_retry_period: Option<u32>,

    /// Seconds between passes over all rows; each should find nothing [default: 300].
    #[arg(long, env = "OVENBIRD_AUDIT_INTERVAL", value_name = "SECONDS")]
    pub audit_interval: Option<u32>,

    /// How many annotations are written to Kubernetes at once [default: 24].
    #[arg(long, env = "OVENBIRD_PATCH_CONCURRENCY", value_name = "N")]
    pub patch_concurrency: Option<u32>,

    /// Log filter: error, warn, info, debug, trace, or per module as `info,ovsdb=debug` [default: info].
    #[arg(long, env = "OVENBIRD_LOGLEVEL", value_name = "FILTER")]
    pub loglevel: Option<String>,
}

/// The validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// kubeconfig file, `None` to infer.
    pub kubeconfig: Option<PathBuf>,
    /// The cluster's networks.
    pub cluster: topology::Config,
    /// The Northbound.
    pub northbound: Option<Northbound>,
    /// Address of the HTTP server, `None` for none.
    pub metrics: Option<SocketAddr>,
    /// Admin socket, `None` for none.
    pub admin_socket: Option<PathBuf>,
    /// Leader election.
    pub lease: LeaseConfig,
    /// Time between audits.
    pub audit_interval: Duration,
    /// Annotations in flight.
    pub patch_concurrency: usize,
    /// Log filter.
    pub loglevel: String,
}

/// How the Northbound is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Northbound {
    /// Servers, at least one.
    pub endpoints: Vec<ovsdb::Endpoint>,
    /// Key, certificate and authority, when an address is `ssl:`.
    pub tls: Option<ovsdb::TlsFiles>,
}

/// Leader election; `retry_period < renew_deadline < duration`.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; `None` to make one up.
    pub identity: Option<String>,
    /// Others may take the lease this long after the last renewal that they saw.
    pub duration: Duration,
    /// The holder stops writing this long after its last successful renewal.
    pub renew_deadline: Duration,
    /// Time between renewals and between attempts.
    pub retry_period: Duration,
}

impl Args {
    /// Reads the file, merges it under the flags and the environment, and validates the whole.
    pub fn resolve(self) -> Result<Config, SettingError> {
        let settings = match &self.config {
            Some(path) => self.settings.or(settings::read(path)?),
            None => self.settings,
        };
        Config::new(settings)
    }
}

impl Settings {
    /// These settings, and those of `under` where these have none.
    pub fn or(self, under: Settings) -> Settings {
        merge! {
            Settings, self, under,
            kubeconfig network_mode cluster_subnets k8s_service_cidrs gateway_v4_join_subnet gateway_v6_join_subnet
            gateway_v4_masquerade_subnet gateway_v6_masquerade_subnet disable_snat non_masquerade_cidrs enable_network_policy
            acl_logging_rate_limit nb_address
            nb_client_privkey nb_client_cert nb_client_cacert metrics_bind_address admin_socket lease_namespace lease_name
            lease_identity ha_election_lease_duration ha_election_renew_deadline ha_election_retry_period audit_interval
            patch_concurrency loglevel
        }
    }
}

impl Config {
    /// Validates settings and fills in the defaults.
    pub fn new(s: Settings) -> Result<Config, SettingError> {
        let cluster = networks(&s)?;
        let northbound = match s.network_mode.as_deref() {
            None | Some("overlay" | "underlay") => Some(Northbound::new(
                s.nb_address.as_deref().unwrap_or("unix:/var/run/ovn/ovnnb_db.sock"),
                [s.nb_client_privkey, s.nb_client_cert, s.nb_client_cacert],
            )?),
            Some("classic") => None,
            Some(other) => {
                return Err(wrong(
                    "network-mode",
                    format!("{other:?} is unknown"),
                    "choose overlay, underlay or classic",
                ));
            }
        };
        let admin_socket = s.admin_socket.unwrap_or_else(|| "/run/ovenbird/master.sock".into());
        Ok(Config {
            kubeconfig: s.kubeconfig,
            cluster,
            northbound,
            metrics: settings::listen_address(
                "metrics-bind-address",
                s.metrics_bind_address.as_deref().unwrap_or("127.0.0.1:9409"),
            )?,
            admin_socket: Some(admin_socket).filter(|p| !p.as_os_str().is_empty()),
            lease: LeaseConfig::new(
                s.lease_namespace.unwrap_or_else(|| "kube-system".into()),
                s.lease_name.unwrap_or_else(|| "ovenbird-master".into()),
                s.lease_identity,
                [
                    s.ha_election_lease_duration.unwrap_or(8),
                    s.ha_election_renew_deadline.unwrap_or(5),
                    s.ha_election_retry_period.unwrap_or(1),
                ],
            )?,
            audit_interval: seconds("audit-interval", s.audit_interval.unwrap_or(300))?,
            patch_concurrency: match s.patch_concurrency.unwrap_or(24) {
                n @ 1..=256 => n as usize,
                n => return Err(wrong("patch-concurrency", format!("{n} is out of range"), "choose 1 to 256")),
            },
            loglevel: s.loglevel.unwrap_or_else(|| "info".into()),
        })
    }
}

/// The cluster's networks, refused by the name of the flag.
fn networks(s: &Settings) -> Result<topology::Config, SettingError> {
    fn or<'a>(value: Option<&'a String>, default: &'a str) -> &'a str {
        value.map_or(default, String::as_str)
    }
    fn pair(flags: [&'static str; 2], texts: [&str; 2]) -> Result<String, SettingError> {
        let v4: Ipv4Net = parse(flags[0], texts[0], "write an IPv4 CIDR such as 100.64.0.0/16")?;
        let v6: Ipv6Net = parse(flags[1], texts[1], "write an IPv6 CIDR such as fd98::/64")?;
        Ok(format!("{v4},{v6}"))
    }
    let join = pair(
        ["gateway-v4-join-subnet", "gateway-v6-join-subnet"],
        [or(s.gateway_v4_join_subnet.as_ref(), "100.64.0.0/16"), or(s.gateway_v6_join_subnet.as_ref(), "fd98::/64")],
    )?;
    let masquerade = pair(
        ["gateway-v4-masquerade-subnet", "gateway-v6-masquerade-subnet"],
        [
            or(s.gateway_v4_masquerade_subnet.as_ref(), "169.254.169.0/29"),
            or(s.gateway_v6_masquerade_subnet.as_ref(), "fd69::/125"),
        ],
    )?;
    topology::Config::new(&topology::Settings {
        cluster_subnets: or(s.cluster_subnets.as_ref(), topology::DEFAULT_CLUSTER_SUBNETS),
        service_cidrs: or(s.k8s_service_cidrs.as_ref(), topology::DEFAULT_SERVICE_CIDRS),
        join_subnets: &join,
        masquerade_subnets: &masquerade,
        non_masquerade_cidrs: or(s.non_masquerade_cidrs.as_ref(), ""),
        snat: !s.disable_snat.unwrap_or(false),
        on_networks: match s.network_mode.as_deref() {
            Some("classic") => topology::OnNetworks::Nobody,
            Some("underlay") => topology::OnNetworks::Everybody,
            _ => topology::OnNetworks::Selected,
        },
        network_policy: s.enable_network_policy.unwrap_or(true),
        acl_logging_rate: s.acl_logging_rate_limit.unwrap_or(topology::DEFAULT_ACL_LOGGING_RATE),
        ..topology::Settings::default()
    })
    .map_err(|e| SettingError::Contradiction(e.to_string()))
}

impl Northbound {
    fn new(addresses: &str, [key, cert, ca]: [Option<PathBuf>; 3]) -> Result<Northbound, SettingError> {
        let endpoints = ovsdb::Endpoint::parse_list(addresses)
            .map_err(|e| wrong("nb-address", e.to_string(), "give at least one server"))?;
        let tls = if endpoints.iter().any(|e| matches!(e, ovsdb::Endpoint::Ssl(..))) {
            let need = |flag, file: Option<PathBuf>| {
                file.ok_or_else(|| {
                    wrong(flag, "missing".into(), "an ssl: address needs key, certificate and authority")
                })
            };
            Some(ovsdb::TlsFiles {
                private_key: need("nb-client-privkey", key)?,
                certificate: need("nb-client-cert", cert)?,
                ca_certificate: need("nb-client-cacert", ca)?,
            })
        } else {
            None
        };
        Ok(Northbound { endpoints, tls })
    }
}

impl LeaseConfig {
    fn new(
        namespace: String,
        name: String,
        identity: Option<String>,
        [duration, deadline, retry]: [u32; 3],
    ) -> Result<LeaseConfig, SettingError> {
        let duration = seconds("ha-election-lease-duration", duration)?;
        let renew_deadline = seconds("ha-election-renew-deadline", deadline)?;
        let retry_period = seconds("ha-election-retry-period", retry)?;
        if renew_deadline >= duration {
            let problem = format!("{renew_deadline:?} is not below --ha-election-lease-duration ({duration:?})");
            return Err(wrong("ha-election-renew-deadline", problem, "leave a second or more between them"));
        }
        if retry_period >= renew_deadline {
            let problem = format!("{retry_period:?} is not below --ha-election-renew-deadline ({renew_deadline:?})");
            return Err(wrong("ha-election-retry-period", problem, "choose a third of it or less"));
        }
        Ok(LeaseConfig { namespace, name, identity, duration, renew_deadline, retry_period })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
