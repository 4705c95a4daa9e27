//! What is written to a real Open_vSwitch that others write to as well.

use ovenbird_api::name::INTEGRATION_BRIDGE;

use super::*;
use crate::plug::Entered;
use crate::testing::Ovsdb;
use crate::vswitch_task::is_fragile;

fn chassis(external_bridge: Option<&str>) -> Chassis {
    Chassis {
        system_id: "n1".into(),
        node: "n1".into(),
        sb_address: "unix:/nowhere".into(),
        encap_type: "geneve",
        encap_ip: "127.0.0.1".parse().unwrap(),
        bridge_mappings: None,
        external_bridge: external_bridge.map(str::to_owned),
        providers: None,
        entered: Entered::default(),
        monitor_all: true,
        userspace: true,
    }
}

/// Waits until the database holds these mappings.
fn await_mappings(ovsdb: &Ovsdb, want: &str) {
    let column = "external_ids:ovn-bridge-mappings";
    ovsdb.vsctl(&format!("--timeout=30 --no-wait wait-until Open_vSwitch . {column}=\"{want}\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_mappings_of_others_are_never_dropped() {
    let Some(ovsdb) = Ovsdb::start("external_ids:ovn-bridge-mappings=provider:br-p") else { return };
    let vswitch = Vswitch::spawn(vec![ovsdb.endpoint()], Duration::from_secs(300));
    vswitch.set_chassis(chassis(None));
    vswitch.until(|s| s.bridge).await.unwrap();
    await_mappings(&ovsdb, "provider:br-p");
    vswitch.set_chassis(chassis(Some("br-ex")));
    await_mappings(&ovsdb, "provider:br-p,physnet:br-ex");
    // Somebody writes the whole text anew.
    for i in 0..20 {
        ovsdb.vsctl(&format!("--no-wait set Open_vSwitch . external_ids:ovn-bridge-mappings=\"other{i}:br-{i}\""));
        await_mappings(&ovsdb, &format!("other{i}:br-{i},physnet:br-ex"));
    }
}

/// ovn-controller's patch ports, for one.
#[tokio::test(flavor = "multi_thread")]
async fn ports_of_others_on_a_bridge_of_a_physical_network_stay() {
    let Some(ovsdb) = Ovsdb::start("") else { return };
    for round in 0..2 {
        let vswitch = Vswitch::spawn(vec![ovsdb.endpoint()], Duration::from_secs(300));
        let (owner, output) = crate::rows::provider_bridge("breth1", "eth1", true);
        vswitch.set(owner, output);
        vswitch.allow_deletes();
        vswitch.set_chassis(chassis(Some("br-ex")));
        let state = vswitch.until(|s| s.bridge && s.bridges.contains_key("breth1")).await.unwrap();
        assert!(state.bridges["breth1"].ports.contains_key("eth1"), "{state:?}");
        let before = ovsdb.vsctl("--bare --columns=_uuid,ports list Bridge breth1");
        ovsdb.vsctl(&format!("--no-wait add-port breth1 patch{round}"));
        vswitch.until(|s| s.bridges["breth1"].ports.contains_key(&format!("patch{round}"))).await.unwrap();
        vswitch.remove(&Owner::new(crate::rows::SANDBOX, "nobody")).await;
        let ports = ovsdb.vsctl("list-ports breth1");
        for patch in 0..=round {
            assert!(ports.contains(&format!("patch{patch}")), "{ports}, before {before}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bridges_are_seen_with_their_ports() {
    let Some(ovsdb) = Ovsdb::start("") else { return };
    ovsdb.vsctl("--no-wait add-br br-ex -- set bridge br-ex datapath_type=netdev external_ids:bridge-uplink=eth0");
    ovsdb.vsctl("--no-wait set port br-ex tag=42 -- add-port br-ex eth0 -- set interface eth0 ofport=1");
    let vswitch = Vswitch::spawn(vec![ovsdb.endpoint()], Duration::from_secs(300));
    vswitch.set_chassis(chassis(Some("br-ex")));
    let state = vswitch.until(|s| s.bridge && s.bridges.contains_key("br-ex")).await.unwrap();
    assert!(!state.bridges.contains_key(INTEGRATION_BRIDGE));
    let bridge = &state.bridges["br-ex"];
    assert!(bridge.userspace);
    assert_eq!(bridge.uplink.as_deref(), Some("eth0"));
    assert_eq!((bridge.ports["br-ex"].vlan, bridge.ports["br-ex"].kind.as_str()), (Some(42), "internal"));
    assert_eq!((bridge.ports["eth0"].ofport, bridge.ports["eth0"].interfaces), (Some(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn ovs_that_would_end_on_zero_snat_is_not_asked_for_it() {
    // Where nothing but ovs-vswitchd was started, nobody has told the version.
    for version in ["ovs_version=3.1.0", "external_ids:x=y"] {
        not_asked_for_zero_snat(version).await;
    }
}

async fn not_asked_for_zero_snat(version: &str) {
    let Some(ovsdb) = Ovsdb::start(version) else { return };
    let vswitch = Vswitch::spawn(vec![ovsdb.endpoint()], Duration::from_secs(300));
    vswitch.set_chassis(chassis(None));
    vswitch.until(|s| s.bridge).await.unwrap();
    // ovn-controller makes the row, ovs-vswitchd says what it can, again after each start.
    ovsdb.vsctl("--no-wait --id=@d create datapath datapath_version=x -- set Open_vSwitch . datapaths:netdev=@d");
    for _ in 0..3 {
        let uuid = ovsdb.vsctl("--bare --columns=_uuid list datapath");
        let uuid = uuid.trim();
        ovsdb.vsctl(&format!("--no-wait set datapath {uuid} capabilities:ct_zero_snat=true capabilities:recirc=true"));
        ovsdb.vsctl(&format!("--timeout=30 --no-wait wait-until datapath {uuid} capabilities:ct_zero_snat=false"));
        ovsdb.vsctl(&format!("--timeout=30 --no-wait wait-until datapath {uuid} capabilities:recirc=true"));
    }
    ovsdb.vsctl("--no-wait clear Open_vSwitch . datapaths");
    vswitch.set_chassis(chassis(Some("br-ex")));
    await_mappings(&ovsdb, "physnet:br-ex");
    assert_eq!(ovsdb.vsctl("--bare --columns=_uuid list datapath").trim(), "");
}

#[test]
fn fragile_versions() {
    for version in ["2.17.9", "3.1.0", "3.1.2", "3.2.2", ""] {
        assert!(is_fragile(version), "{version}");
    }
    for version in ["3.1.3", "3.2.3", "3.3.0", "3.5.0-1", "4.0.0"] {
        assert!(!is_fragile(version), "{version}");
    }
}
