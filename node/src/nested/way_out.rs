//! Keeps what the VM's kernel does for its pods: settings, and the table of [`table`](super::table). Also: with which addresses the VM speaks for
//! others towards pods.
//!
//! Must not: write before the master has given the node its subnets.

use ipnet::IpNet;
use ovenbird_api::annotation::NODE_ID;
use ovenbird_api::name::MANAGEMENT_INTERFACE;
use ovenbird_api::{address, node};
use ovenbird_classic::services::Behind;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::table::{Facts, table};
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::mode::NetworkMode;
use crate::net::{causes, ensure_sysctl};
use crate::nft;

/// Pause after a failure.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// How Services lead to pods here; `None` while the master has not given the node its id.
pub fn behind(config: &Config, fact: &NodeFact) -> Option<Behind> {
    let NetworkMode::Nested(nested) = &config.network else { return None };
    let id = node::parse_id(fact.annotations.get(NODE_ID)?).inspect_err(|e| error!("{e}")).ok()?;
    let join = nested.join_subnets.iter().filter(|net| has_family(&fact.subnets, net));
    let for_others = join.filter_map(|net| address::nth(*net, u128::from(id))).collect();
    Some(Behind { interface: MANAGEMENT_INTERFACE.to_owned(), for_others })
}

fn has_family(subnets: &[IpNet], of: &IpNet) -> bool {
    subnets.iter().any(|net| net.addr().is_ipv4() == of.addr().is_ipv4())
}

/// Runs until the daemon stops; table and settings stay.
///
/// # Errors
/// When one of the daemon's other parts has ended.
pub async fn run(config: Config, mut node: watch::Receiver<NodeFact>) -> anyhow::Result<()> {
    loop {
        let fact = node.wait_for(|fact| !fact.subnets.is_empty()).await?.clone();
        let for_others = behind(&config, &fact).map(|behind| behind.for_others).unwrap_or_default();
        let pods = fact.subnets;
        let unmasked = [&config.cluster_subnets[..], &config.gateway.non_masquerade_cidrs].concat();
        let facts = Facts { pods: &pods, for_others: &for_others, snat: config.gateway.snat, unmasked: &unmasked };
        let mut again = config.audit_interval;
        match nft::replace(&table(&facts)).await {
            Ok(true) => info!("nftables masquerades what pods send out of the cluster"),
            Ok(false) => {}
            Err(e) => {
                warn!("the way out of pods: {e}: {}", causes(&e));
                again = RETRY;
            }
        }
        if !settle(&pods) {
            again = RETRY;
        }
        tokio::select! {
            changed = node.changed() => changed?,
            // Somebody else may have changed something.
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// Settings of the kernel: the VM routes, and tells no pod of a shorter way than through it, by which it would not find the pod again. True when all are so.
fn settle(pods: &[IpNet]) -> bool {
    let families = |v4: bool| pods.iter().any(|net| net.addr().is_ipv4() == v4);
    let mut keys = Vec::new();
    if families(true) {
        let redirects = |of: &str| (format!("net/ipv4/conf/{of}/send_redirects"), "0");
        keys.extend([("net/ipv4/ip_forward".to_owned(), "1"), redirects("all"), redirects(MANAGEMENT_INTERFACE)]);
    }
    if families(false) {
        keys.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    let mut done = true;
    for (key, value) in keys {
        match ensure_sysctl(&key, value) {
            Ok(true) => info!("{} = {value}", key.replace('/', ".")),
            Ok(false) => {}
            Err(e) => {
                warn!("{e}: {}", causes(&e));
                done = false;
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config() -> Config {
        let node =
            Settings { node_name: Some("n1".into()), network_mode: Some("nested".into()), ..Settings::default() };
        Config::new(Settings { gateway_v4_join_subnet: Some("100.65.0.0/16".into()), ..node }).unwrap()
    }

    #[test]
    fn the_vm_speaks_for_others_with_its_address_on_the_join_switch() {
        let mut fact = NodeFact { subnets: vec!["10.128.1.0/24".parse().unwrap()], ..NodeFact::default() };
        assert_eq!(behind(&config(), &fact), None, "the master has given no id yet");
        fact.annotations.insert(NODE_ID.into(), "5".into());
        let of = |fact: &NodeFact| behind(&config(), fact).map(|behind| behind.for_others);
        assert_eq!(of(&fact), Some(vec!["100.65.0.5".parse().unwrap()]));
        fact.subnets.push("fd01:0:0:1::/64".parse().unwrap());
        assert_eq!(of(&fact).map(|own| own.len()), Some(2));
        fact.annotations.insert(NODE_ID.into(), "x".into());
        assert_eq!(of(&fact), None);
    }
}
