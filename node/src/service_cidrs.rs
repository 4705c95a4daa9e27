//! The networks of Services: those of the settings, and those of ServiceCIDR objects (KEP-1880), which come and go at run time.
//!
//! ```text
//! settings, watch ServiceCIDRs --> networks --> routes ([management], gateway), flows, nftables
//! ```
//!
//! Must not: take a network away while its object is there (one that is being deleted still has Services), or give pods' addresses to
//! Services.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client};
use ovenbird_api::address;
use tokio::sync::watch;
use tracing::info;

use crate::config::Config;
use crate::known::{self, Absence};

/// Watches ServiceCIDRs. The receiver holds `None` until they are listed or it is clear that they will not be, then the networks of
/// the settings followed by others, each once, but for those that overlap the pods': the master tells of these.
pub fn watch_all(client: Client, config: &Config) -> watch::Receiver<Option<Vec<IpNet>>> {
    let (settings, pods) = (config.service_cidrs.clone(), config.cluster_subnets.clone());
    let all = known::watch_all(Api::<ServiceCIDR>::all(client));
    // Before Kubernetes 1.33 there are the settings only; so they are where they alone may be read.
    let known = known::follow(all, "ServiceCIDRs", Absence::Kept, |cidr| Some(networks(cidr)));
    known::derive(known, move |known| {
        let new = merged(&settings, known.as_ref()?, &pods);
        info!(networks = new.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), "networks of Services");
        Some(new)
    })
}

fn networks(cidr: &ServiceCIDR) -> Vec<IpNet> {
    let texts = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Networks inside others are left out: a route to them would say nothing new, and nftables takes no interval twice.
fn merged(settings: &[IpNet], known: &BTreeMap<String, Vec<IpNet>>, pods: &[IpNet]) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = Vec::new();
    let fits = |net: &&IpNet| !pods.iter().any(|other| address::overlap(**net, *other));
    for net in settings.iter().chain(known.values().flatten().filter(fits)).map(IpNet::trunc) {
        if !all.iter().any(|other| other.contains(&net)) {
            all.retain(|other| !net.contains(other));
            all.push(net);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_counts_once() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        let known = BTreeMap::from([
            ("kubernetes".to_owned(), nets(&["10.96.0.0/16", "fd96::/112"])),
            ("more".to_owned(), nets(&["10.97.0.0/24"])),
            ("of-pods".to_owned(), nets(&["10.128.9.0/24", "10.0.0.0/8"])),
            ("wide".to_owned(), nets(&["10.97.0.0/16", "10.97.8.0/24"])),
        ]);
        let (settings, pods) = (nets(&["10.96.0.0/16"]), nets(&["10.128.0.0/14"]));
        assert_eq!(merged(&settings, &known, &pods), nets(&["10.96.0.0/16", "fd96::/112", "10.97.0.0/16"]));
        assert_eq!(merged(&settings, &BTreeMap::new(), &pods), settings);
    }
}
