//! Feature: networks of Services that are added at run time (ServiceCIDR, KEP-1880). OVN has no rows for them: whoever asks an address there
//! is led to its gateway as to anywhere else. What they must not do is overlap the cluster's own networks.
//!
//! Inputs: the ServiceCIDR. Outputs: complaints. Must not: refuse a Service that has its address from there; the API server gave it.

use ovenbird_api::address;
use ovenbird_reconcile::{Diagnostic, Output, Owner};

use crate::config::SERVICE_CIDRS;
use crate::view::View;

/// The owner's complaints.
pub(crate) fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let mut output = Output::default();
    let Some(fact) = view.own_service_cidr(owner) else { return output };
    for cidr in &fact.cidrs {
        let others = view.config().networks().filter(|(setting, _)| *setting != SERVICE_CIDRS);
        for (setting, net) in others.filter(|(_, net)| address::overlap(*cidr, *net)) {
            let message = format!(
                "{cidr} and {setting} {net} overlap: Services with an address in both are not reached; delete this ServiceCIDR and \
                 choose a network outside"
            );
            output.diagnostics.push(Diagnostic::error("NetworksOverlap", "spec.cidrs", message));
        }
    }
    output
}
