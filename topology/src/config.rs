//! Cluster networking as configured: subnets of pods, services and the join switch, and what gateways do, checked once and
//! then passed by value.
//!
//! Inputs: the texts of flags or of a configuration file. Output: [`Config`], or an error that names the setting and the
//! remedy. Must not: read files, know which nodes exist.

use std::fmt;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ovenbird_api::Masquerade;
use ovenbird_api::address::{self, LONGEST_V4_PREFIX, LONGEST_V6_PREFIX};
use ovenbird_api::node::NODE_IDS;

/// Setting name of pod subnets.
pub const CLUSTER_SUBNETS: &str = "cluster-subnets";
/// Setting name of service subnets.
pub const SERVICE_CIDRS: &str = "k8s-service-cidrs";
/// Setting name of the join switch's subnets.
pub const JOIN_SUBNETS: &str = "gateway-v4-join-subnet (or -v6-)";
/// Setting name of the masquerade subnets.
pub const MASQUERADE_SUBNETS: &str = "gateway-v4-masquerade-subnet (or -v6-)";
/// Setting name of the destinations to which pods keep their own address.
pub const NON_MASQUERADE_CIDRS: &str = "non-masquerade-cidrs";
/// Default of [`CLUSTER_SUBNETS`].
pub const DEFAULT_CLUSTER_SUBNETS: &str = "10.128.0.0/14/23";
/// Default of [`SERVICE_CIDRS`].
pub const DEFAULT_SERVICE_CIDRS: &str = "10.96.0.0/16";
/// Default of [`JOIN_SUBNETS`]; a family that the cluster does not use is left out.
pub const DEFAULT_JOIN_SUBNETS: &str = "100.64.0.0/16,fd98::/64";
/// Default of [`MASQUERADE_SUBNETS`].
pub const DEFAULT_MASQUERADE_SUBNETS: &str = "169.254.169.0/29,fd69::/125";
/// Default MTU of pods: a 1500-byte uplink less Geneve over IPv6 (78 bytes), rounded down.
pub const DEFAULT_MTU: u16 = 1400;

/// Default of the packets per second that ACLs log, as in ovn-kubernetes.
pub const DEFAULT_ACL_LOGGING_RATE: u16 = 20;

/// Shortest prefix of a subnet: a guard against slips such as 0.0.0.0/0.
const SHORTEST_PREFIX: u8 = 8;

/// A subnet that is cut into node subnets: `10.128.0.0/14/23` is 512 subnets of 510 addresses each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSubnet {
    /// The whole.
    pub net: IpNet,
    /// Prefix length of a node's part.
    pub host_prefix: u8,
}

/// Settings as texts; lists are separated by commas.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// [`CLUSTER_SUBNETS`], a list of `SUBNET[/HOST PREFIX]`.
    pub cluster_subnets: &'a str,
    /// [`SERVICE_CIDRS`], a list of subnets.
    pub service_cidrs: &'a str,
    /// [`JOIN_SUBNETS`], one of each family that the cluster uses.
    pub join_subnets: &'a str,
    /// [`MASQUERADE_SUBNETS`], one of each family.
    pub masquerade_subnets: &'a str,
    /// [`NON_MASQUERADE_CIDRS`], a list of subnets.
    pub non_masquerade_cidrs: &'a str,
    /// Pods have their node's address outside the cluster.
    pub snat: bool,
    /// Which pods are on Networks.
    pub on_networks: OnNetworks,
    /// MTU of pods, in bytes.
    pub mtu: u16,
    /// Policies are enforced.
    pub network_policy: bool,
    /// Packets per second that ACLs log, of each of them.
    pub acl_logging_rate: u16,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings {
            cluster_subnets: DEFAULT_CLUSTER_SUBNETS,
            service_cidrs: DEFAULT_SERVICE_CIDRS,
            join_subnets: DEFAULT_JOIN_SUBNETS,
            masquerade_subnets: DEFAULT_MASQUERADE_SUBNETS,
            non_masquerade_cidrs: "",
            snat: true,
            on_networks: OnNetworks::default(),
            mtu: DEFAULT_MTU,
            network_policy: true,
            acl_logging_rate: DEFAULT_ACL_LOGGING_RATE,
        }
    }
}

/// Which pods are on Networks, VLANs of physical networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNetworks {
    /// None: no OVN is there to put them on one.
    Nobody,
    /// Those that a Network takes.
    #[default]
    Selected,
    /// All: one that no Network takes gets no addresses.
    Everybody,
}

/// Cluster networking settings, valid in themselves and with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    cluster_subnets: Vec<ClusterSubnet>,
    service_cidrs: Vec<IpNet>,
    join_subnets: Vec<IpNet>,
    masquerade: Masquerade,
    snat: bool,
    non_masquerade_cidrs: Vec<IpNet>,
    on_networks: OnNetworks,
    mtu: u16,
    network_policy: bool,
    acl_logging_rate: u16,
}

/// A setting that cannot be used. The text names the setting and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A text that is not a subnet, or a list of none.
    #[error("{setting}: {text:?} is not {expected}; write e.g. {example}")]
    Syntax {
        /// Setting.
        setting: &'static str,
        /// Offending text.
        text: String,
        /// What belongs there.
        expected: &'static str,
        /// A value that works.
        example: &'static str,
    },
    /// A prefix length that leaves no room.
    #[error("{setting}: {net}: {problem}")]
    Size {
        /// Setting.
        setting: &'static str,
        /// Offending subnet.
        net: String,
        /// What is wrong and what fits.
        problem: String,
    },
    /// Two subnets share addresses.
    #[error("{first_setting} {first} and {second_setting} {second} overlap; choose one outside the other")]
    Overlap {
        /// Setting of the first.
        first_setting: &'static str,
        /// The first.
        first: IpNet,
        /// Setting of the second.
        second_setting: &'static str,
        /// The second.
        second: IpNet,
    },
    /// The join switch or the masquerade addresses lack a family, or have one twice.
    #[error("{setting}: {count} {family} subnets where one is needed; write e.g. {example}")]
    Families {
        /// Setting.
        setting: &'static str,
        /// A value that works.
        example: &'static str,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An MTU that the address family forbids.
    #[error("mtu: {mtu} is below {least}, the least that {family} allows")]
    Mtu {
        /// Offending value.
        mtu: u16,
        /// The least allowed.
        least: u16,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
}

impl Config {
    /// Checks and takes settings.
    ///
    /// # Errors
    /// The first setting that is wrong in itself or overlaps another.
    pub fn new(settings: &Settings<'_>) -> Result<Config, ConfigError> {
        let mut config = Config {
            cluster_subnets: list(settings.cluster_subnets).map(str::parse).collect::<Result<_, _>>()?,
            service_cidrs: subnets(SERVICE_CIDRS, DEFAULT_SERVICE_CIDRS, settings.service_cidrs)?,
            join_subnets: subnets(JOIN_SUBNETS, DEFAULT_JOIN_SUBNETS, settings.join_subnets)?,
            masquerade: masquerade(settings.masquerade_subnets)?,
            snat: settings.snat,
            non_masquerade_cidrs: subnets(NON_MASQUERADE_CIDRS, "192.168.0.0/16", settings.non_masquerade_cidrs)?,
            on_networks: settings.on_networks,
            mtu: settings.mtu,
            network_policy: settings.network_policy,
            acl_logging_rate: settings.acl_logging_rate,
        };
        if config.cluster_subnets.is_empty() {
            let text = settings.cluster_subnets;
            return Err(syntax(CLUSTER_SUBNETS, text, "a list of subnets", DEFAULT_CLUSTER_SUBNETS));
        }
        let families = [config.has_family(true), config.has_family(false)];
        config.join_subnets.retain(|net| families[usize::from(!is_v4(net))]);
        config.check_join(families)?;
        config.check_overlaps()?;
        let (least, family) = if config.has_family(false) { (1280, "IPv6") } else { (576, "IPv4") };
        if config.mtu < least {
            return Err(ConfigError::Mtu { mtu: config.mtu, least, family });
        }
        Ok(config)
    }

    /// As [`Config::new`], with the defaults for gateways.
    ///
    /// # Errors
    /// As [`Config::new`].
    pub fn parse(
        cluster_subnets: &str,
        service_cidrs: &str,
        join_subnets: &str,
        mtu: u16,
    ) -> Result<Config, ConfigError> {
        Config::new(&Settings { cluster_subnets, service_cidrs, join_subnets, mtu, ..Settings::default() })
    }

    /// For who translates policies alone, and asks for no gateways: only networks of pods are known.
    ///
    /// # Errors
    /// As [`Config::new`].
    pub fn of_pods(networks: &[IpNet], network_policy: bool, acl_logging_rate: u16) -> Result<Config, ConfigError> {
        // Parts are not chosen with it, so how large they are does not matter.
        let whole =
            |net: &IpNet| Ok(ClusterSubnet { net: aligned(CLUSTER_SUBNETS, *net)?, host_prefix: net.prefix_len() });
        Ok(Config {
            cluster_subnets: networks.iter().map(whole).collect::<Result<_, _>>()?,
            service_cidrs: Vec::new(),
            join_subnets: Vec::new(),
            masquerade: masquerade(DEFAULT_MASQUERADE_SUBNETS)?,
            snat: true,
            non_masquerade_cidrs: Vec::new(),
            on_networks: OnNetworks::default(),
            mtu: DEFAULT_MTU,
            network_policy,
            acl_logging_rate,
        })
    }

    /// Pod subnets, in the order given.
    pub fn cluster_subnets(&self) -> &[ClusterSubnet] {
        &self.cluster_subnets
    }

    /// Service subnets.
    pub fn service_cidrs(&self) -> &[IpNet] {
        &self.service_cidrs
    }

    /// Subnets of the join switch: one of each family that the cluster uses, IPv4 first.
    pub fn join_subnets(&self) -> &[IpNet] {
        &self.join_subnets
    }

    /// Masquerade addresses, of both families whatever the cluster uses.
    pub fn masquerade(&self) -> &Masquerade {
        &self.masquerade
    }

    /// True when pods have their node's address outside the cluster.
    pub fn snat(&self) -> bool {
        self.snat
    }

    /// Destinations outside to which pods keep their own address nevertheless, in the order given.
    pub fn non_masquerade_cidrs(&self) -> &[IpNet] {
        &self.non_masquerade_cidrs
    }

    /// Which pods are on Networks.
    pub fn on_networks(&self) -> OnNetworks {
        self.on_networks
    }

    /// MTU of pod interfaces, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Policies are enforced; otherwise they are not looked at, and everything is let through.
    pub fn network_policy(&self) -> bool {
        self.network_policy
    }

    /// Packets per second that ACLs log, of each of them.
    pub fn acl_logging_rate(&self) -> i64 {
        i64::from(self.acl_logging_rate)
    }

    /// The families of addresses that pods have: IPv4 is `true`.
    pub fn families(&self) -> impl Iterator<Item = bool> {
        [true, false].into_iter().filter(|v4| self.has_family(*v4))
    }

    /// True when pods have addresses of the family.
    fn has_family(&self, v4: bool) -> bool {
        self.cluster_subnets.iter().any(|s| is_v4(&s.net) == v4)
    }

    fn check_join(&mut self, families: [bool; 2]) -> Result<(), ConfigError> {
        self.join_subnets.sort_by_key(|net| !is_v4(net));
        for (used, v4) in families.into_iter().zip([true, false]) {
            let count = self.join_subnets.iter().filter(|net| is_v4(net) == v4).count();
            if used && count != 1 {
                return Err(families_wrong(JOIN_SUBNETS, DEFAULT_JOIN_SUBNETS, v4, count));
            }
        }
        match self.join_subnets.iter().find(|net| address::last_pod(**net) < u128::from(*NODE_IDS.end())) {
            None => Ok(()),
            Some(small) => {
                let problem = format!("has no room for node ids up to {}; use a /16 or /64", NODE_IDS.end());
                Err(ConfigError::Size { setting: JOIN_SUBNETS, net: small.to_string(), problem })
            }
        }
    }

    /// The cluster's own networks, with the settings that name them.
    pub(crate) fn networks(&self) -> impl Iterator<Item = (&'static str, IpNet)> {
        (self.cluster_subnets.iter().map(|s| (CLUSTER_SUBNETS, s.net)))
            .chain(self.service_cidrs.iter().map(|net| (SERVICE_CIDRS, *net)))
            .chain(self.join_subnets.iter().map(|net| (JOIN_SUBNETS, *net)))
            .chain([true, false].map(|v4| (MASQUERADE_SUBNETS, self.masquerade.subnet(v4))))
    }

    fn check_overlaps(&self) -> Result<(), ConfigError> {
        let all: Vec<(&'static str, IpNet)> = self.networks().collect();
        for (i, (first_setting, first)) in all.iter().enumerate() {
            if let Some((second_setting, second)) = all[i + 1..].iter().find(|(_, net)| address::overlap(*first, *net))
            {
                let (first, second) = (*first, *second);
                return Err(ConfigError::Overlap { first_setting, first, second_setting, second });
            }
        }
        Ok(())
    }
}

impl FromStr for ClusterSubnet {
    type Err = ConfigError;

    /// `10.128.0.0/14/23`; without a host prefix it is 24 for IPv4 and 64 for IPv6.
    fn from_str(text: &str) -> Result<ClusterSubnet, ConfigError> {
        let wrong = || syntax(CLUSTER_SUBNETS, text, "SUBNET/HOST PREFIX", DEFAULT_CLUSTER_SUBNETS);
        let mut parts = text.splitn(3, '/');
        let (Some(base), Some(length)) = (parts.next(), parts.next()) else { return Err(wrong()) };
        let net: IpNet = [base, "/", length].concat().parse().map_err(|_| wrong())?;
        let host_prefix = match parts.next() {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None if is_v4(&net) => 24,
            None => 64,
        };
        let net = aligned(CLUSTER_SUBNETS, net)?;
        let longest = if is_v4(&net) { LONGEST_V4_PREFIX } else { LONGEST_V6_PREFIX };
        if !(net.prefix_len()..=longest).contains(&host_prefix) {
            let problem = format!("host prefix {host_prefix} is not from {} to {longest}", net.prefix_len());
            return Err(ConfigError::Size { setting: CLUSTER_SUBNETS, net: text.to_owned(), problem });
        }
        Ok(ClusterSubnet { net, host_prefix })
    }
}

impl fmt::Display for ClusterSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.net, self.host_prefix)
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn subnets(setting: &'static str, example: &'static str, text: &str) -> Result<Vec<IpNet>, ConfigError> {
    let parse = |part: &str| aligned(setting, part.parse().map_err(|_| syntax(setting, part, "a subnet", example))?);
    list(text).map(parse).collect()
}

fn masquerade(text: &str) -> Result<Masquerade, ConfigError> {
    let nets = subnets(MASQUERADE_SUBNETS, DEFAULT_MASQUERADE_SUBNETS, text)?;
    let v4: Vec<Ipv4Net> =
        nets.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }).collect();
    let v6: Vec<Ipv6Net> =
        nets.iter().filter_map(|net| if let IpNet::V6(net) = net { Some(*net) } else { None }).collect();
    let wrong = |v4, count| families_wrong(MASQUERADE_SUBNETS, DEFAULT_MASQUERADE_SUBNETS, v4, count);
    let [one_v4] = v4[..] else { return Err(wrong(true, v4.len())) };
    let [one_v6] = v6[..] else { return Err(wrong(false, v6.len())) };
    Masquerade::new(one_v4, one_v6).map_err(|error| ConfigError::Size {
        setting: MASQUERADE_SUBNETS,
        net: error.0.to_string(),
        problem: "has no room for the masquerade addresses; use a prefix of at most 29 (IPv4) or 125 (IPv6)".to_owned(),
    })
}

fn families_wrong(setting: &'static str, example: &'static str, v4: bool, count: usize) -> ConfigError {
    ConfigError::Families { setting, example, family: if v4 { "IPv4" } else { "IPv6" }, count }
}

/// Refuses host bits (a likely slip) and subnets too large to mean.
fn aligned(setting: &'static str, net: IpNet) -> Result<IpNet, ConfigError> {
    let problem = if net != net.trunc() {
        format!("has host bits; write {}", net.trunc())
    } else if net.prefix_len() < SHORTEST_PREFIX {
        format!("is too large; use a prefix of at least {SHORTEST_PREFIX}")
    } else {
        return Ok(net);
    };
    Err(ConfigError::Size { setting, net: net.to_string(), problem })
}

fn syntax(setting: &'static str, text: &str, expected: &'static str, example: &'static str) -> ConfigError {
    ConfigError::Syntax { setting, text: text.to_owned(), expected, example }
}

/// True for an IPv4 subnet.
pub(crate) fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
