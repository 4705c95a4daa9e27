//! A node that is a VM on an OVN hypervisor: its pods are containers inside the VM (ovn-architecture(7), "Life Cycle of a Container Interface
//! Inside a VM"). They share the VM's one port, each with a VLAN tag of its own between VM and hypervisor.
//!
//! Inputs: the Node's annotation `parent-port`. Outputs: the parent's name; which tags are whose. Must not: choose a tag.

use crate::AnnotationError;
use crate::annotation::{At, PARENT_PORT, quote};

/// Tag of the host's own port, ovn-k8s-mp0.
pub const MANAGEMENT_TAG: u16 = 1;
/// Tags of pods: 0 and 4095 are reserved (IEEE 802.1Q).
pub const POD_TAGS: std::ops::RangeInclusive<u16> = 2..=4094;

/// Reads `parent-port`: the name of a Logical_Switch_Port.
///
/// # Errors
/// When the text is empty, or has white space or control characters.
pub fn parse_parent_port(text: &str) -> Result<&str, AnnotationError> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let at = At { annotation: PARENT_PORT, field: "", remedy: "give the name of the VM's Logical_Switch_Port" };
        return Err(at.error(format!("{} is no name of a port", quote(text))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_port() {
        assert_eq!(parse_parent_port("vif-vm1"), Ok("vif-vm1"));
        for wrong in ["", " ", "a b", "a\n"] {
            let text = parse_parent_port(wrong).unwrap_err().to_string();
            assert!(
                text.starts_with("annotation ovenbird.io/parent-port: ") && text.contains("give the name"),
                "{text}"
            );
        }
    }
}
