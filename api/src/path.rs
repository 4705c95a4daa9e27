//! Sockets and files that two of our programs, or a program and the host, agree on. All can be configured; these are the
//! defaults. Must not: look at the file system.

/// Folder of the node daemon's run-time files, mode 0700.
pub const RUN_DIR: &str = "/run/ovenbird";
/// Unix socket on which the node daemon serves CNI requests of the shim, mode 0600.
pub const CNI_SOCKET: &str = "/run/ovenbird/cni.sock";
/// CNI configuration that the node daemon writes once it can serve.
pub const CNI_CONF: &str = "/etc/cni/net.d/10-ovenbird.conflist";
/// Folder of the runtime's CNI configurations.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// Folder of CNI plugins.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Name of the CNI plugin (the shim) in it, and `type` in the configuration.
pub const CNI_PLUGIN: &str = "ovenbird-cni";
/// Name of the network in the CNI configuration.
pub const CNI_NETWORK: &str = "ovenbird";
/// Open_vSwitch database of the host.
pub const OVS_SOCKET: &str = "unix:/run/openvswitch/db.sock";
