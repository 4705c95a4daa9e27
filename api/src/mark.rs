//! Keys of `external_ids` in Open_vSwitch by which the rows of the classic network say what they are.

/// Of the bridge with the tunnels: `classic VARIANT`.
pub const NETWORK: &str = "ovenbird.io/network";
/// Of that bridge, where flows steer one tunnel to all: `NODE=ADDRESS`, separated by blanks.
pub const PEERS: &str = "ovenbird.io/peers";
/// Of the interface of a tunnel to one node: the node's name.
pub const PEER: &str = "ovenbird.io/peer";
