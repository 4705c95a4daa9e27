//! The shape of a classic network. Must not: read flags, which is the daemon's.

use std::net::IpAddr;

/// How frames find their way between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// By a flow for each subnet, through one tunnel port: unicast only, no loops, what no node has is dropped.
    #[default]
    Flow,
    /// By learning, on a tree that STP (IEEE 802.1D) finds among tunnels to single peers.
    Stp,
    /// The same with RSTP (IEEE 802.1w), which heals faster.
    Rstp,
}

/// Tunnel protocols, as `Interface:type` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tunnel {
    /// GRE (RFC 2784): IP protocol 47.
    #[default]
    Gre,
    /// VXLAN (RFC 7348): UDP port 4789.
    Vxlan,
    /// Geneve (RFC 8926): UDP port 6081.
    Geneve,
}

/// Which nodes have tunnels with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// Every two.
    #[default]
    Full,
    /// Each with the next by name, and the last with the first.
    Ring,
    /// Each with the first by name.
    Hub,
}

/// What joins the two bridges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The port of the OVS bridge's own name is a port of the Linux bridge.
    Local,
    /// An internal port `tun0` is.
    #[default]
    Internal,
    /// A pair of links, one end in each.
    Veth,
}

/// The shape of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How frames find their way.
    pub variant: Variant,
    /// Tunnel protocol.
    pub tunnel: Tunnel,
    /// Key of all tunnels (`options:key`); `None` for none, which is 0 on the wire where the protocol has a key.
    pub key: Option<u32>,
    /// Which nodes have tunnels.
    pub mesh: Mesh,
    /// What joins the bridges.
    pub attach: Attach,
    /// Name of the Linux bridge.
    pub bridge: String,
    /// Name of the OVS bridge.
    pub ovs_bridge: String,
    /// Services are served here; false where kube-proxy serves them.
    pub services: bool,
    /// Seconds that STP waits in each state (`other_config:stp-forward-delay`), 4 to 30; `None` for its 15.
    pub forward_delay: Option<u8>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            variant: Variant::default(),
            tunnel: Tunnel::default(),
            key: None,
            mesh: Mesh::default(),
            attach: Attach::default(),
            bridge: "kbr0".into(),
            ovs_bridge: "obr0".into(),
            services: true,
            forward_delay: None,
        }
    }
}

impl Variant {
    /// As people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Variant::Flow => "flow",
            Variant::Stp => "stp",
            Variant::Rstp => "rstp",
        }
    }
}

impl Tunnel {
    /// `Interface:type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tunnel::Gre => "gre",
            Tunnel::Vxlan => "vxlan",
            Tunnel::Geneve => "geneve",
        }
    }

    /// Bytes that a tunnel adds to a packet: outer IP header, own header with a key, inner Ethernet header.
    pub const fn overhead(self, endpoint: IpAddr) -> u32 {
        let ip = if endpoint.is_ipv4() { 20 } else { 40 };
        let own = match self {
            Tunnel::Gre => 8,
            // UDP and a header without options.
            Tunnel::Vxlan | Tunnel::Geneve => 16,
        };
        ip + own + 14
    }
}
