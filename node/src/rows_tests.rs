//! Rows of attachments, and the way back.

use ovsdb::Row;
use proptest::prelude::*;

use super::*;

fn pod_port() -> PodPort {
    PodPort {
        attachment: Attachment { container_id: "c0ffee".into(), ifname: "eth0".into() },
        netns: "/run/netns/x".into(),
        netns_id: NetnsId { dev: 4, ino: 4_026_531_840 },
        lsp: "default_web-0".into(),
        uid: "u-1".into(),
        mac: "0a:58:0a:80:00:03".parse().unwrap(),
        addresses: vec!["10.128.0.3/24".parse().unwrap(), "fd01::3/64".parse().unwrap()],
        bandwidth: Bandwidth { ingress: Some(10_000_000), egress: Some(5_000_000) },
    }
}

/// The row of a table as it stands in a database that held nothing before.
fn written(output: &Output, table: &'static TableDesc) -> Row {
    let mut row = Row::new();
    let wanted = output.rows.iter().find(|r| r.table == table).unwrap();
    for (column, want) in &wanted.columns {
        let value = match want {
            Want::Exactly(value) => value.clone(),
            Want::Keys(keys) => Datum::map(keys.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?)))),
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
    let (_, output) = management("n1", "0a:58:0a:80:00:02".parse().unwrap(), 1400);
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
        ingress in prop::option::of(1_000u64..1_000_000_000_000_000), egress in prop::option::of(1_000u64..1_000_000_000_000_000),
    ) {
        let mut port = pod_port();
        port.attachment = Attachment { container_id: id, ifname };
        port.netns_id.ino = ino;
        port.bandwidth = Bandwidth { ingress, egress };
        let row = written(&port.output(), &interface::TABLE);
        prop_assert_eq!(PodPort::from_interface(interface::Ref(&row)), Some(port));
    }
}
