//! Rows of attachments, and the way back.

use ovenbird_api::bandwidth::Bandwidth;
use ovenbird_cni_server::Attachment;
use ovenbird_schema::vswitch::qos;
use ovsdb::Row;
use proptest::prelude::*;

use super::*;
use crate::net::NetnsId;
use crate::plug::Entered;
use crate::underlay::Mapped;

fn pod_port() -> PodPort {
    PodPort {
        attachment: Attachment { container_id: "c0ffee".into(), ifname: "eth0".into() },
        netns: "/run/netns/x".into(),
        netns_id: NetnsId { dev: 4, ino: 4_026_531_840 },
        lsp: "default_web-0".into(),
        uid: "u-1".into(),
        mac: "0a:58:0a:80:00:03".parse().unwrap(),
        addresses: vec!["10.128.0.3/24".parse().unwrap(), "fd01::3/64".parse().unwrap()],
        on: Some("v100".into()),
        bandwidth: Bandwidth { ingress: Some(10_000_000), egress: Some(5_000_000) },
        tag: None,
    }
}

/// The row of a table as it stands in a database that held nothing before.
fn written(output: &Output, table: &'static TableDesc) -> Row {
    let mut row = Row::new();
    let wanted = output.rows.iter().find(|r| r.table == table).unwrap();
    for (column, want) in &wanted.columns {
        let value = match want {
            Want::Exactly(value) => value.clone(),
            Want::Keys(_) | Want::Pairs(_) => Datum::Map(want.pairs()),
            Want::Members => continue,
        };
        row.set(*column, &table.column(*column).ty, value);
    }
    row
}

#[test]
fn an_interface_has_what_ovn_controller_and_people_look_for() {
    let port = pod_port();
    let row = written(&port.output(), &interface::TABLE);
    let row = interface::Ref(&row);
    let ids: Vec<_> = row.external_ids().iter().collect();
    assert_eq!(
        ids,
        [
            ("attached_mac", "0a:58:0a:80:00:03"),
            ("iface-id", "default_web-0"),
            ("iface-id-ver", "u-1"),
            ("ip_addresses", "10.128.0.3/24,fd01::3/64"),
            ("ovenbird.io/egress-bandwidth", "5000000"),
            ("ovenbird.io/ifname", "eth0"),
            ("ovenbird.io/ingress-bandwidth", "10000000"),
            ("ovenbird.io/netns", "/run/netns/x"),
            ("ovenbird.io/netns-id", "4:4026531840"),
            ("ovenbird.io/network", "v100"),
            ("sandbox", "c0ffee"),
        ]
    );
    assert_eq!(row.name(), PodPort::host_name(&port.attachment));
    assert_eq!((row.ingress_policing_rate(), row.ingress_policing_burst()), (5000, 500));
    let queue = written(&port.output(), &qos::TABLE);
    let limits: Vec<_> = qos::Ref(&queue).other_config().iter().collect();
    assert_eq!(limits, [("max-rate", "10000000")]);
    assert_eq!(port.pod(), ("default", "web-0"));
}

#[test]
fn without_limits_there_is_no_queue() {
    let output = PodPort { bandwidth: Bandwidth::default(), ..pod_port() }.output();
    assert_eq!(output.rows.len(), 2);
    assert_eq!(output.contributions.len(), 1);
}

#[test]
fn other_interfaces_are_no_attachments() {
    let (_, output) = management("n1", "0a:58:0a:80:00:02".parse().unwrap(), 1400, None, None);
    let row = written(&output, &interface::TABLE);
    assert_eq!(interface::Ref(&row).name(), "ovn-k8s-mp0");
    assert_eq!(interface::Ref(&row).external_ids().get("iface-id"), Some("k8s-n1"));
    assert_eq!(PodPort::from_interface(interface::Ref(&row)), None);
}

#[test]
fn a_host_name_is_short_and_differs_by_sandbox_and_interface() {
    let name =
        |id: &str, ifname: &str| PodPort::host_name(&Attachment { container_id: id.into(), ifname: ifname.into() });
    assert_eq!(name("c0ffee", "eth0").len(), 14);
    assert_ne!(name("c0ffee", "eth0"), name("c0ffee", "eth1"));
    assert_ne!(name("c0ffee", "eth0"), name("c0ffee2", "eth0"));
    // Of a full node, and then some.
    let all: std::collections::BTreeSet<String> = (0..5000).map(|id| name(&format!("sandbox{id}"), "eth0")).collect();
    assert_eq!(all.len(), 5000);
}

proptest! {
    #[test]
    fn an_interface_tells_its_attachment(
        id in "[a-f0-9]{1,64}", ifname in "[a-z0-9]{1,15}", ino in any::<u64>(),
        leased in any::<bool>(),
        ingress in prop::option::of(1_000u64..1_000_000_000_000_000), egress in prop::option::of(1_000u64..1_000_000_000_000_000),
    ) {
        let mut port = pod_port();
        port.attachment = Attachment { container_id: id, ifname };
        port.netns_id.ino = ino;
        port.bandwidth = Bandwidth { ingress, egress };
        port.addresses.retain(|_| !leased);
        let row = written(&port.output(), &interface::TABLE);
        prop_assert_eq!(PodPort::from_interface(interface::Ref(&row)), Some(port));
    }
}

/// `ovn-bridge-mappings` and our part of it, as written; `-` for what is left alone.
fn mapped(base: Option<&str>, gateway: Option<&str>, providers: Mapped, there: [Option<&str>; 2]) -> String {
    let chassis = Chassis {
        system_id: "n1".into(),
        node: "n1".into(),
        sb_address: "tcp:192.0.2.1:6642".into(),
        encap_type: "geneve",
        encap_ip: "192.0.2.2".parse().unwrap(),
        bridge_mappings: base.map(str::to_owned),
        external_bridge: gateway.map(str::to_owned),
        providers,
        entered: Entered::default(),
        monitor_all: true,
        userspace: false,
    };
    let [mappings, provider_mappings] = there.map(|text| text.map(str::to_owned));
    let ids = chassis.external_ids(&Known { mappings, provider_mappings, fragile: false });
    let value = |key: &str| {
        let found = ids.iter().find(|(id, _)| id.as_str() == Some(key));
        found.map_or("-".to_owned(), |(_, value)| value.as_ref().and_then(Atom::as_str).unwrap_or("none").to_owned())
    };
    format!("{} {}", value(BRIDGE_MAPPINGS), value(PROVIDER_MAPPINGS))
}

#[test]
fn networks_come_and_go_beside_the_mappings_of_others() {
    let on = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(n, b)| ((*n).to_owned(), (*b).to_owned())).collect());
    let (other, fabric) = (Some("other:br-o"), &[("fabric", "breth1")][..]);
    for (base, gateway, providers, there, want) in [
        (None, None, None, [other, None], "- -"),
        (None, None, on(&[]), [other, None], "- none"),
        (None, Some("br-ex"), None, [other, None], "other:br-o,physnet:br-ex -"),
        (None, Some("br-ex"), on(fabric), [other, None], "other:br-o,physnet:br-ex,fabric:breth1 fabric:breth1"),
        (None, None, on(fabric), [Some("fabric:br-old"), None], "fabric:breth1 fabric:breth1"),
        (Some("a:br-a"), None, on(fabric), [other, None], "a:br-a,fabric:breth1 fabric:breth1"),
        // Written before, and not known yet: it stays.
        (
            None,
            Some("br-ex"),
            None,
            [Some("fabric:breth1,physnet:br-ex"), Some("fabric:breth1")],
            "fabric:breth1,physnet:br-ex -",
        ),
        (
            None,
            Some("br-ex"),
            None,
            [Some("physnet:br-ex,fabric:breth1"), Some("fabric:breth1")],
            "physnet:br-ex,fabric:breth1 -",
        ),
        (Some("a:br-a"), None, None, [Some("a:br-a,fabric:breth1"), Some("fabric:breth1")], "a:br-a,fabric:breth1 -"),
        // Written before, and gone.
        (None, None, on(&[]), [Some("other:br-o,fabric:breth1"), Some("fabric:breth1")], "other:br-o none"),
        (None, None, on(&[]), [Some("fabric:breth1"), Some("fabric:breth1")], "none none"),
    ] {
        assert_eq!(mapped(base, gateway, providers, there), want);
    }
}

#[test]
fn on_a_nested_node_ports_are_access_ports_of_its_bridge() {
    let pod = PodPort { tag: Some(42), ..pod_port() };
    let (_, bridge) = trunk("breth0");
    let (_, host) = management("n1", "0a:58:0a:80:00:02".parse().unwrap(), 1400, Some("breth0"), Some("vif-vm1"));
    for (output, tag) in [(pod.output_in("breth0", pod.tag), 42), (host, 1)] {
        assert_eq!(port::Ref(&written(&output, &port::TABLE)).tag(), Some(tag));
        assert_eq!(output.contributions[0].row, bridge.rows[0].id);
    }
    let row = written(&pod.output_in("breth0", pod.tag), &interface::TABLE);
    assert_eq!(PodPort::from_interface(interface::Ref(&row)), Some(pod));
    assert_eq!(port::Ref(&written(&pod_port().output(), &port::TABLE)).tag(), None);
}
