//! What people may write: flags, which are environment variables and keys of the file, too. Nothing is validated here.
//!
//! In: the command line. Out: texts and numbers, each optional. Must not: know a default.

use std::path::PathBuf;

use clap::Parser;
use ovenbird_daemon::merge;
use ovenbird_daemon::settings::{self, SettingError};
use serde::{Deserialize, Serialize};

use super::Config;

const EXAMPLES: &str = "\
Examples:
  A node of a cluster whose Southbound is on 10.0.0.1:
    ovenbird-node --node-name $(hostname) --sb-address tcp:10.0.0.1:6642 --cluster-subnets 10.128.0.0/14/23

  The same from a file:
    ovenbird-node --config /etc/ovenbird/node.yaml

  The flags' names serve in the file (sb-address: tcp:10.0.0.1:6642) and in the environment (OVENBIRD_SB_ADDRESS=...).";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "ovenbird-node", version, about = "Attaches the pods of one node to OVN", after_help = EXAMPLES)]
pub struct Args {
    /// YAML file with settings; its keys are the names of the flags.
    #[arg(long, env = "OVENBIRD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Remove flows, routes, addresses, nftables rules and bridge mappings of gateway and physical networks, give back NICs that were taken
    /// over, and end. Stop the daemon first.
    #[arg(long)]
    pub cleanup: bool,
    /// Remove everything of a node from this host, of any network mode: what --cleanup removes, ports of pods, bridges, tunnels, nftables,
    /// settings for ovn-controller, the CNI configuration; and end. Stop the daemon and ovn-controller first.
    #[arg(long, conflicts_with_all = ["cleanup", "dry_run", "restore_uplink"])]
    pub remove_network: bool,
    /// Print the steps by which the NIC of --gateway-interface would be taken over (with --cleanup: all that were taken over would be given
    /// back), and end.
    #[arg(long)]
    pub dry_run: bool,
    /// At boot: put addresses and routes of NICs that were taken over onto their bridges again, and end.
    #[arg(long, conflicts_with_all = ["cleanup", "dry_run"])]
    pub restore_uplink: bool,
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

    /// Name of this host's Node object [default: the host name].
    #[arg(long, env = "OVENBIRD_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Network of the cluster, the same on all nodes and for the master: overlay (OVN's tunnels), underlay (OVN's, pods on VLANs alone) or
    /// classic (kbr0, obr0 and plain tunnels, without OVN); or nested, on a node that is a VM on an OVN hypervisor [default: overlay].
    #[arg(long, env = "OVENBIRD_NETWORK_MODE", value_name = "MODE")]
    pub network_mode: Option<String>,

    /// Of mode classic: flow (unicast by a flow for each subnet), stp or rstp (a tree among tunnels) [default: flow].
    #[arg(long, env = "OVENBIRD_CLASSIC_VARIANT", value_name = "VARIANT")]
    pub classic_variant: Option<String>,

    /// Of mode classic: tunnels by gre, vxlan or geneve [default: gre].
    #[arg(long, env = "OVENBIRD_CLASSIC_TUNNEL", value_name = "TYPE")]
    pub classic_tunnel: Option<String>,

    /// Of mode classic: key of all tunnels (VNI of vxlan and geneve) [default: none].
    #[arg(long, env = "OVENBIRD_CLASSIC_KEY", value_name = "NUMBER")]
    pub classic_key: Option<u32>,

    /// Of variants stp and rstp: tunnels between all nodes (full), each and the next by name (ring), or each and the first (hub)
    /// [default: full].
    #[arg(long, env = "OVENBIRD_CLASSIC_MESH", value_name = "MESH")]
    pub classic_mesh: Option<String>,

    /// Of mode classic: what joins the two bridges: the OVS bridge's own port (local), an internal port (internal) or a veth pair
    /// (veth) [default: internal].
    #[arg(long, env = "OVENBIRD_CLASSIC_ATTACH", value_name = "WAY")]
    pub classic_attach: Option<String>,

    /// Of mode classic: name of the Linux bridge [default: kbr0].
    #[arg(long, env = "OVENBIRD_CLASSIC_BRIDGE", value_name = "NAME")]
    pub classic_bridge: Option<String>,

    /// Of mode classic: name of the OVS bridge [default: obr0].
    #[arg(long, env = "OVENBIRD_CLASSIC_OVS_BRIDGE", value_name = "NAME")]
    pub classic_ovs_bridge: Option<String>,

    /// Of mode classic: serve Services by nftables; false where kube-proxy serves them [default: true].
    #[arg(long, env = "OVENBIRD_CLASSIC_SERVICES", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub classic_services: Option<bool>,

    /// Of variants stp and rstp: seconds that a port waits in each state, 4 to 30 [default: 15].
    #[arg(long, env = "OVENBIRD_CLASSIC_FORWARD_DELAY", value_name = "SECONDS")]
    pub classic_forward_delay: Option<u8>,

    /// Of mode classic, where each node enforces NetworkPolicies: false lets everything through [default: true].
    #[arg(long, env = "OVENBIRD_ENABLE_NETWORK_POLICY", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub enable_network_policy: Option<bool>,

    /// Of mode classic: packets per second that each rule of a policy logs, in namespaces that ask for it (annotation
    /// k8s.ovn.org/acl-logging) [default: 20].
    #[arg(long, env = "OVENBIRD_ACL_LOGGING_RATE_LIMIT", value_name = "NUMBER")]
    pub acl_logging_rate_limit: Option<u16>,

    /// Of mode nested: the OVS bridge that the VM's NIC is in [default: breth0].
    #[arg(long, env = "OVENBIRD_NESTED_BRIDGE", value_name = "NAME")]
    pub nested_bridge: Option<String>,

    /// Of mode nested: IPv4 network of the join switch, as the master has it [default: 100.64.0.0/16].
    #[arg(long, env = "OVENBIRD_GATEWAY_V4_JOIN_SUBNET", value_name = "CIDR")]
    pub gateway_v4_join_subnet: Option<String>,

    /// Of mode nested: its IPv6 network [default: fd98::/64].
    #[arg(long, env = "OVENBIRD_GATEWAY_V6_JOIN_SUBNET", value_name = "CIDR")]
    pub gateway_v6_join_subnet: Option<String>,

    /// Open_vSwitch database of this host [default: unix:/run/openvswitch/db.sock].
    #[arg(long, env = "OVENBIRD_OVS_ADDRESS", value_name = "ADDRESS")]
    pub ovs_address: Option<String>,

    /// Southbound servers for ovn-controller, separated by commas: unix:PATH, tcp:HOST:PORT, ssl:HOST:PORT
    /// [default: unix:/var/run/ovn/ovnsb_db.sock].
    #[arg(long, env = "OVENBIRD_SB_ADDRESS", value_name = "ADDRESS,...")]
    pub sb_address: Option<String>,

    /// Tunnels between nodes: geneve or vxlan [default: geneve].
    #[arg(long, env = "OVENBIRD_ENCAP_TYPE", value_name = "TYPE")]
    pub encap_type: Option<String>,

    /// Address of this host's tunnel endpoint [default: the address of the interface with the default route].
    #[arg(long, env = "OVENBIRD_ENCAP_IP", value_name = "IP")]
    pub encap_ip: Option<String>,

    /// MTU of pods [default: that of the interface with the tunnel endpoint, less the tunnel's overhead].
    #[arg(long, env = "OVENBIRD_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// Pod networks as CIDR/HOST-PREFIX, separated by commas [default: 10.128.0.0/14/23].
    #[arg(long, env = "OVENBIRD_CLUSTER_SUBNETS", value_name = "CIDR/LEN,...")]
    pub cluster_subnets: Option<String>,

    /// Service networks, separated by commas [default: 10.96.0.0/16].
    #[arg(long, env = "OVENBIRD_K8S_SERVICE_CIDRS", value_name = "CIDR,...")]
    pub k8s_service_cidrs: Option<String>,

    /// Physical networks and their bridges, e.g. physnet:br-ex; the gateway's is added. Without it those of others in OVS stay.
    #[arg(long, env = "OVENBIRD_BRIDGE_MAPPINGS", value_name = "NETWORK:BRIDGE,...")]
    pub bridge_mappings: Option<String>,

    /// Way out of this node: shared (by OVN's gateway router, on the host's uplink), local (by the host's routing) or none
    /// [default: shared where the external bridge is, else none].
    #[arg(long, env = "OVENBIRD_GATEWAY_MODE", value_name = "MODE")]
    pub gateway_mode: Option<String>,

    /// External bridge: an OVS bridge with the uplink inside and the host's addresses on it; or the uplink's NIC, which is taken over
    /// into a bridge brNIC [default: br-ex].
    #[arg(long, env = "OVENBIRD_GATEWAY_INTERFACE", value_name = "BRIDGE|NIC")]
    pub gateway_interface: Option<String>,

    /// Seconds in which the API server must answer after the NIC was taken over; else it is moved back [default: 60].
    #[arg(long, env = "OVENBIRD_TAKEOVER_TIMEOUT", value_name = "SECONDS")]
    pub takeover_timeout: Option<u32>,

    /// Folder for what must outlast a reboot: what was taken over [default: /var/lib/ovenbird].
    #[arg(long, env = "OVENBIRD_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Next hops of the gateway, separated by commas [default: those of the host's default routes over the bridge].
    #[arg(long, env = "OVENBIRD_GATEWAY_NEXTHOP", value_name = "IP,...")]
    pub gateway_nexthop: Option<String>,

    /// VLAN of the uplink, 0 for none [default: the one that the bridge's own port is in].
    #[arg(long, env = "OVENBIRD_GATEWAY_VLANID", value_name = "TAG")]
    pub gateway_vlanid: Option<u16>,

    /// IPv4 addresses for the link between host and OVN, as the master has them [default: 169.254.169.0/29].
    #[arg(long, env = "OVENBIRD_GATEWAY_V4_MASQUERADE_SUBNET", value_name = "CIDR")]
    pub gateway_v4_masquerade_subnet: Option<String>,

    /// IPv6 addresses for it [default: fd69::/125].
    #[arg(long, env = "OVENBIRD_GATEWAY_V6_MASQUERADE_SUBNET", value_name = "CIDR")]
    pub gateway_v6_masquerade_subnet: Option<String>,

    /// Pods keep their own address outside the cluster; as for the master, and of use in gateway mode local and in mode nested.
    #[arg(long, env = "OVENBIRD_DISABLE_SNAT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub disable_snat: Option<bool>,

    /// Networks outside the cluster to which pods keep their own address, separated by commas; as for the master, and of use in
    /// gateway mode local and in mode nested [default: none].
    #[arg(long, env = "OVENBIRD_NON_MASQUERADE_CIDRS", value_name = "CIDR,...")]
    pub non_masquerade_cidrs: Option<String>,

    /// Whether the node serves NodePorts [default: true].
    #[arg(long, env = "OVENBIRD_NODEPORT", value_name = "BOOL")]
    pub nodeport: Option<bool>,

    /// Networks on whose addresses of this host NodePorts are served, separated by commas [default: all addresses].
    #[arg(long, env = "OVENBIRD_NODEPORT_ADDRESSES", value_name = "CIDR,...")]
    pub nodeport_addresses: Option<String>,

    /// Whether this node answers ARP and neighbour discovery for external and load-balancer addresses of Services; on a link, one
    /// node should [default: false].
    #[arg(long, env = "OVENBIRD_ANSWER_EXTERNAL_ADDRESSES", value_name = "BOOL")]
    pub answer_external_addresses: Option<bool>,

    /// Whether ovn-controller replicates the whole Southbound: quicker, at the price of memory [default: true].
    #[arg(long, env = "OVENBIRD_MONITOR_ALL", value_name = "BOOL")]
    pub monitor_all: Option<bool>,

    /// Unix socket for the CNI plugin [default: /run/ovenbird/cni.sock].
    #[arg(long, env = "OVENBIRD_CNI_SOCKET", value_name = "PATH")]
    pub cni_socket: Option<PathBuf>,

    /// Folder of CNI configurations [default: /etc/cni/net.d].
    #[arg(long, env = "OVENBIRD_CNI_CONF_DIR", value_name = "PATH")]
    pub cni_conf_dir: Option<PathBuf>,

    /// Name of ours in it [default: 10-ovenbird.conflist].
    #[arg(long, env = "OVENBIRD_CNI_CONF_NAME", value_name = "NAME")]
    pub cni_conf_name: Option<String>,

    /// Seconds that a CNI request may take [default: 120].
    #[arg(long, env = "OVENBIRD_CNI_TIMEOUT", value_name = "SECONDS")]
    pub cni_timeout: Option<u32>,

    /// Address of /metrics, /healthz and /readyz; "" turns them off [default: 127.0.0.1:9410].
    #[arg(long, env = "OVENBIRD_METRICS_BIND_ADDRESS", value_name = "IP:PORT")]
    pub metrics_bind_address: Option<String>,

    /// Seconds between comparisons of everything in Open_vSwitch; each should find nothing [default: 300].
    #[arg(long, env = "OVENBIRD_AUDIT_INTERVAL", value_name = "SECONDS")]
    pub audit_interval: Option<u32>,

    /// Log filter: error, warn, info, debug, trace, or per module as `info,ovsdb=debug` [default: info].
    #[arg(long, env = "OVENBIRD_LOGLEVEL", value_name = "FILTER")]
    pub loglevel: Option<String>,
}

impl Args {
    /// Reads the file, merges it under the flags and the environment, and validates the whole.
    ///
    /// # Errors
    /// When the file or a setting cannot be used.
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
            kubeconfig node_name network_mode classic_variant classic_tunnel classic_key classic_mesh classic_attach classic_bridge
            classic_ovs_bridge classic_services classic_forward_delay nested_bridge gateway_v4_join_subnet gateway_v6_join_subnet enable_network_policy acl_logging_rate_limit
            ovs_address sb_address encap_type encap_ip mtu cluster_subnets k8s_service_cidrs bridge_mappings
            gateway_mode gateway_interface takeover_timeout state_dir gateway_nexthop gateway_vlanid gateway_v4_masquerade_subnet gateway_v6_masquerade_subnet
            disable_snat non_masquerade_cidrs nodeport nodeport_addresses answer_external_addresses monitor_all cni_socket cni_conf_dir cni_conf_name cni_timeout metrics_bind_address audit_interval loglevel
        }
    }
}
