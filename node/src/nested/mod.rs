//! The node in `--network-mode nested`: a VM on an OVN hypervisor. There is no OVN in it: ports of pods and of the host are access ports of
//! the VM's bridge, whose NIC is the trunk to the hypervisor, where each tag is a port of OVN's.
//!
//! ```text
//! pod-networks: tag --> [trunk]: access port of breth0 --802.1Q--> NIC of the VM = parent port in the hypervisor's br-int
//! ```
//!
//! The bridge with the NIC inside is the operator's. Must not: know what OVN makes of a tag.

pub mod daemon;
pub mod trunk;
