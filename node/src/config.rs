//! The configuration of the node daemon: one validated struct from flags, environment, a YAML file and defaults.
//!
//! ```text
//! [flags]: flag  >  environment (OVENBIRD_*)  >  file (--config)   >   default
//! ```
//!
//! Flag names are those of ovn-kubernetes where the meaning is the same. The file has the flags' names as keys. Every error
//! names the flag and says what to do. Must not: open a connection, or be asked twice.

mod flags;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_api::path;
use ovenbird_daemon::settings::{self, SettingError, parse, seconds, wrong};
use ovenbird_topology::config::DEFAULT_ACL_LOGGING_RATE;
use ovsdb::Endpoint;

pub use flags::{Args, Settings};

use crate::gateway::GatewaySettings;
use crate::mode::NetworkMode;

/// Tunnel protocols that OVN speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encap {
    /// Geneve, UDP port 6081.
    Geneve,
    /// VXLAN, UDP port 4789.
    Vxlan,
}

/// The validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// kubeconfig file, `None` to infer.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Node.
    pub node: String,
    /// Network of the cluster.
    pub network: NetworkMode,
    /// The host's Open_vSwitch.
    pub ovs: Vec<Endpoint>,
    /// Southbound, for ovn-controller.
    pub sb_address: String,
    /// Tunnel protocol.
    pub encap: Encap,
    /// Tunnel endpoint, `None` to find it.
    pub encap_ip: Option<IpAddr>,
    /// MTU of pods, `None` to compute it.
    pub mtu: Option<u32>,
    /// Pod networks.
    pub cluster_subnets: Vec<IpNet>,
    /// Service networks.
    pub service_cidrs: Vec<IpNet>,
    /// Policies are enforced, where it is the node that does it.
    pub network_policy: bool,
    /// Packets per second that each rule of a policy logs there.
    pub acl_logging_rate: u16,
    /// `ovn-bridge-mappings`.
    pub bridge_mappings: Option<String>,
    /// The way out.
    pub gateway: GatewaySettings,
    /// Time in which the API server must answer after a take-over.
    pub takeover_timeout: Duration,
    /// Folder of the journals of take-overs.
    pub state_dir: PathBuf,
    /// `ovn-monitor-all`.
    pub monitor_all: bool,
    /// CNI socket.
    pub cni_socket: PathBuf,
    /// CNI configuration file.
    pub cni_conf: PathBuf,
    /// Deadline of a CNI request.
    pub cni_timeout: Duration,
    /// Address of the HTTP server, `None` for none.
    pub metrics: Option<SocketAddr>,
    /// Time between audits.
    pub audit_interval: Duration,
    /// Log filter.
    pub loglevel: String,
}

impl Encap {
    /// As ovn-controller spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encap::Geneve => "geneve",
            Encap::Vxlan => "vxlan",
        }
    }

    /// UDP port of tunnels (RFC 8926, RFC 7348).
    pub const fn port(self) -> u16 {
        match self {
            Encap::Geneve => 6081,
            Encap::Vxlan => 4789,
        }
    }

    /// Bytes that a tunnel adds to a packet. VXLAN in OVN is used as for IPv4; an IPv6 header has 20 bytes more.
    pub const fn overhead(self, endpoint: IpAddr) -> u32 {
        let v4 = match self {
            Encap::Geneve => 58,
            Encap::Vxlan => 50,
        };
        if endpoint.is_ipv4() { v4 } else { v4 + 20 }
    }
}

impl Config {
    /// Validates settings and fills in the defaults.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn new(s: Settings) -> Result<Config, SettingError> {
        let gateway = GatewaySettings::new(&s)?;
        let network = NetworkMode::new(&s)?;
        let conf_name = s.cni_conf_name.unwrap_or_else(|| "10-ovenbird.conflist".into());
        if conf_name.contains('/') || !conf_name.ends_with(".conflist") {
            let problem = format!("{conf_name:?} is no file name that ends in .conflist");
            return Err(wrong(
                "cni-conf-name",
                problem,
                "runtimes read lists by that ending, e.g. 10-ovenbird.conflist",
            ));
        }
        let ovs = s.ovs_address.as_deref().unwrap_or(path::OVS_SOCKET);
        let sb_address = s.sb_address.unwrap_or_else(|| "unix:/var/run/ovn/ovnsb_db.sock".into());
        let endpoints = |flag, text| {
            Endpoint::parse_list(text)
                .map_err(|e| wrong(flag, e.to_string(), "write unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT"))
        };
        endpoints("sb-address", &sb_address)?;
        Ok(Config {
            kubeconfig: s.kubeconfig,
            network,
            node: s.node_name.map_or_else(host_name, Ok)?,
            ovs: endpoints("ovs-address", ovs)?,
            sb_address,
            encap: match s.encap_type.as_deref().unwrap_or("geneve") {
                "geneve" => Encap::Geneve,
                "vxlan" => Encap::Vxlan,
                other => return Err(wrong("encap-type", format!("{other:?} is unknown"), "choose geneve or vxlan")),
            },
            encap_ip: s.encap_ip.map(|ip| parse("encap-ip", &ip, "write an address of this host")).transpose()?,
            mtu: s.mtu.map(checked_mtu).transpose()?,
            cluster_subnets: list(s.cluster_subnets.as_deref().unwrap_or("10.128.0.0/14/23"))
                .map(cluster_subnet)
                .collect::<Result<_, _>>()?,
            service_cidrs: list(s.k8s_service_cidrs.as_deref().unwrap_or("10.96.0.0/16"))
                .map(|text| parse("k8s-service-cidrs", text, "write CIDRs such as 10.96.0.0/16"))
                .collect::<Result<_, _>>()?,
            network_policy: s.enable_network_policy.unwrap_or(true),
            acl_logging_rate: s.acl_logging_rate_limit.unwrap_or(DEFAULT_ACL_LOGGING_RATE),
            bridge_mappings: s.bridge_mappings,
            gateway,
            takeover_timeout: seconds("takeover-timeout", s.takeover_timeout.unwrap_or(60))?,
            state_dir: s.state_dir.unwrap_or_else(|| path::STATE_DIR.into()),
            monitor_all: s.monitor_all.unwrap_or(true),
            cni_socket: s.cni_socket.unwrap_or_else(|| path::CNI_SOCKET.into()),
            cni_conf: s.cni_conf_dir.unwrap_or_else(|| path::CNI_CONF_DIR.into()).join(conf_name),
            cni_timeout: seconds("cni-timeout", s.cni_timeout.unwrap_or(120))?,
            metrics: settings::listen_address(
                "metrics-bind-address",
                s.metrics_bind_address.as_deref().unwrap_or("127.0.0.1:9410"),
            )?,
            audit_interval: seconds("audit-interval", s.audit_interval.unwrap_or(300))?,
            loglevel: s.loglevel.unwrap_or_else(|| "info".into()),
        })
    }
}

fn host_name() -> Result<String, SettingError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    (!name.is_empty())
        .then_some(name)
        .ok_or_else(|| wrong("node-name", "this host has no name".into(), "give the name of its Node object"))
}

fn checked_mtu(mtu: u32) -> Result<u32, SettingError> {
    match mtu {
        // IPv6 needs 1280 (RFC 8200 section 5); IPv4 alone could do with less, and no network has it.
        1280..=65535 => Ok(mtu),
        _ => Err(wrong("mtu", format!("{mtu} is out of range"), "choose 1280 to 65535")),
    }
}

/// `CIDR` or `CIDR/HOST-PREFIX`; the node needs only the first.
fn cluster_subnet(text: &str) -> Result<IpNet, SettingError> {
    let cidr = text.match_indices('/').nth(1).map_or(text, |(at, _)| &text[..at]);
    parse("cluster-subnets", cidr, "write CIDR/HOST-PREFIX, e.g. 10.128.0.0/14/23 or fd00:10:128::/48/64")
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn refused(settings: Settings) -> String {
        Config::new(settings).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_valid_and_flags_win_over_the_file() {
        let file: Settings = serde_saphyr::from_str("node-name: file\nmtu: 1400\nencap-type: vxlan").unwrap();
        let flags = Settings { node_name: Some("flag".into()), ..Settings::default() };
        let config = Config::new(flags.or(file)).unwrap();
        assert_eq!((config.node.as_str(), config.mtu, config.encap), ("flag", Some(1400), Encap::Vxlan));
        assert_eq!(config.cni_conf, Path::new("/etc/cni/net.d/10-ovenbird.conflist"));
        assert_eq!(config.cluster_subnets, ["10.128.0.0/14".parse().unwrap()]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn every_error_names_the_flag_and_the_way_out() {
        let s = Settings::default;
        let some = |text: &str| Some(text.to_owned());
        for (settings, flag) in [
            (Settings { encap_type: some("gre"), ..s() }, "--encap-type: \"gre\" is unknown; choose geneve or vxlan"),
            (Settings { encap_ip: some("x"), ..s() }, "--encap-ip: \"x\""),
            (Settings { mtu: Some(576), ..s() }, "--mtu: 576 is out of range; choose 1280"),
            (Settings { cluster_subnets: some("10.0.0.0"), ..s() }, "--cluster-subnets: \"10.0.0.0\""),
            (Settings { k8s_service_cidrs: some("y"), ..s() }, "--k8s-service-cidrs: \"y\""),
            (Settings { ovs_address: some("/run/db.sock"), ..s() }, "--ovs-address: "),
            (Settings { sb_address: some("udp:1.2.3.4:5"), ..s() }, "--sb-address: "),
            (Settings { cni_conf_name: some("../x.conflist"), ..s() }, "--cni-conf-name: "),
            (Settings { cni_timeout: Some(0), ..s() }, "--cni-timeout: 0 is not a duration"),
            (Settings { metrics_bind_address: some("9410"), ..s() }, "--metrics-bind-address: \"9410\""),
        ] {
            let text = refused(settings);
            assert!(text.starts_with(flag), "{text}");
        }
        assert!(serde_saphyr::from_str::<Settings>("no-such-flag: 1").is_err());
    }

    #[test]
    fn overheads_of_tunnels() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!((Encap::Geneve.overhead(v4), Encap::Geneve.overhead(v6), Encap::Vxlan.overhead(v4)), (58, 78, 50));
    }
}
