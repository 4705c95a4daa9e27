//! The node's way out: what the external bridge is, what it tells the cluster of itself, and how host and gateway router share it.
//!
//! ```text
//! Open_vSwitch, kernel, settings --> [discover] --> Gateway --> annotations, ovn-bridge-mappings  (written by `chassis`)
//! ```
//!
//! Each file's header says what it is for.

pub mod bridge;
pub mod discover;
pub mod settings;

pub use bridge::{Bridge, BridgePort};
pub use discover::{Gateway, discover};
pub use settings::GatewaySettings;
