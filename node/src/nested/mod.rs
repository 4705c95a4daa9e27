//! The node in `--network-mode nested`: a VM on an OVN hypervisor. There is no OVN in it: ports of pods and of the host are access ports of
//! the VM's bridge, whose NIC is the trunk to the hypervisor, where each tag is a port of OVN's.
//!
//! ```text
//! pod-networks: tag --> [trunk]: access port of breth0 --802.1Q--> NIC of the VM = parent port in the hypervisor's br-int
//! pod --> OVN's router --> ovn-k8s-mp0 --> [way_out]: what the VM's kernel masquerades --> breth0 --> outside
//!                                    <---- Services as on a node of the classic network (`classic::services`) <---- host, clients outside
//! ```
//!
//! The bridge with the NIC inside is the operator's. Must not: know what OVN makes of a tag.

pub mod daemon;
pub mod table;
pub mod trunk;
pub mod way_out;
