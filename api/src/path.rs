//! Sockets and files that two of our programs, or a program and the host, agree on. All can be configured; these are the
//! defaults. Must not: look at the file system.

/// Unix socket on which the node daemon serves CNI requests of the shim, mode 0600.
pub const CNI_SOCKET: &str = "/run/ovenbird/cni.sock";
/// Folder of the runtime's CNI configurations.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// File name of the CNI plugin (the shim), and `type` in the configuration.
pub const CNI_PLUGIN: &str = "ovenbird-cni";
/// Name of the network in the CNI configuration.
pub const CNI_NETWORK: &str = "ovenbird";
/// Open_vSwitch database of the host.
pub const OVS_SOCKET: &str = "unix:/run/openvswitch/db.sock";
/// Folder of the node daemon for what must outlast a reboot.
pub const STATE_DIR: &str = "/var/lib/ovenbird";
