//! Takes this host off its physical networks, as Open_vSwitch has them. NICs that were taken over are given back by `uplink`.
//!
//! ```text
//! ovn-bridge-mappings without those of ProviderNetworks; bridges that we made for NICs without addresses, which are free again
//! ```
//!
//! Must not: touch mappings and bridges of others.

use ovsdb::Endpoint;

use crate::rows::{BRIDGE_MAPPINGS, MADE_FOR, PROVIDER_MAPPINGS};
use crate::tool::Vsctl;

/// Takes it off. vswitchd need not run.
///
/// # Errors
/// When ovs-vsctl fails.
pub async fn run(ovs: &[Endpoint]) -> anyhow::Result<()> {
    let vsctl = Vsctl::new(ovs);
    unmap(&vsctl).await?;
    for bridge in vsctl.find("Bridge", "name", &format!("external_ids:\"{MADE_FOR}\"!=\"\"")).await? {
        vsctl.run(&["--no-wait", "--if-exists", "del-br", &bridge]).await?;
    }
    Ok(())
}

/// Takes the mappings of ProviderNetworks out of the text that others write to as well.
async fn unmap(vsctl: &Vsctl) -> anyhow::Result<()> {
    let keys = [BRIDGE_MAPPINGS, PROVIDER_MAPPINGS].map(|key| format!("external_ids:{key}"));
    let all = vsctl.run(&["--no-wait", "--if-exists", "get", "Open_vSwitch", ".", &keys[0]]).await?;
    let ours = vsctl.run(&["--no-wait", "--if-exists", "get", "Open_vSwitch", ".", &keys[1]]).await?;
    let [all, ours] = [&all, &ours].map(|text| text.trim_matches('"'));
    let others: Vec<&str> = all.split(',').filter(|mapping| !ours.split(',').any(|own| own == *mapping)).collect();
    let others = others.join(",");
    if others.is_empty() {
        vsctl.run(&["--no-wait", "remove", "Open_vSwitch", ".", "external_ids", BRIDGE_MAPPINGS]).await?;
    } else if others != all {
        let value = format!("external_ids:{BRIDGE_MAPPINGS}=\"{others}\"");
        vsctl.run(&["--no-wait", "set", "Open_vSwitch", ".", &value]).await?;
    }
    vsctl.run(&["--no-wait", "remove", "Open_vSwitch", ".", "external_ids", PROVIDER_MAPPINGS]).await?;
    Ok(())
}
