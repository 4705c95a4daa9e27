//! Ports of the node that lead to pods: the table of cases as golden text, that nft takes it, and that the oldest pod has a port.
//!
//! `golden/host-ports/NAME.yaml` is a list of pods, older first; `UPDATE_GOLDEN=1` rewrites `NAME.nft`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ovenbird_api::{HostPort, HostPorts, Protocol};
use ovenbird_classic::host_ports::{TABLE, changed, table};
use ovenbird_classic::services::Connection;
use ovenbird_nft::{Table, delete, script};
use proptest::prelude::*;
use serde_json::Value;

mod real;

use real::{enter, nft, shown};

fn load(file: &Path) -> Vec<HostPorts> {
    let pods: Vec<Value> = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let port = |value: &Value| {
        let number = |key: &str| value[key].as_i64().and_then(|n| n.try_into().ok());
        let text = |key: &str| value[key].as_str();
        HostPort::new(text("hostIP"), number("hostPort"), text("protocol"), number("containerPort").unwrap()).unwrap()
    };
    let list = |value: &Value| value.as_array().unwrap().clone();
    let pod = |pod: Value| HostPorts {
        ports: list(&pod["ports"]).iter().map(port).collect(),
        addresses: list(&pod["addresses"]).iter().map(|ip| ip.as_str().unwrap().parse().unwrap()).collect(),
    };
    pods.into_iter().map(pod).collect()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/host-ports");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut cases: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "yaml")).collect();
    cases.sort();
    assert!(cases.len() > 2);
    cases
}

#[test]
fn golden() {
    for case in cases() {
        let mut table = table(&load(&case), "kbr0");
        if !case.ends_with("none.yaml") {
            table.chains.clear();
        }
        let (text, expected) = (table.to_string(), case.with_extension("nft"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &text).unwrap();
        }
        let known = std::fs::read_to_string(&expected).unwrap_or_default();
        assert!(known == text, "{} differs; UPDATE_GOLDEN=1 rewrites it:\n{text}", expected.display());
    }
}

#[test]
fn connections_of_udp_to_a_pod_that_is_gone_are_told() {
    let pod = |own: &str| HostPorts {
        ports: HostPort::new(None, Some(53), Some("UDP"), 5353).into_iter().collect(),
        addresses: vec![own.parse().unwrap()],
    };
    let own: Vec<IpAddr> = vec!["192.168.1.11".parse().unwrap()];
    let connection = |called: &str, answering: &str| Connection {
        client: "192.168.1.1:4444".parse().unwrap(),
        called: called.parse().unwrap(),
        answering: answering.parse().unwrap(),
    };
    let (first, second) = ([pod("10.244.1.4")], [pod("10.244.1.5")]);
    let to_first = connection("192.168.1.11:53", "10.244.1.4:5353");
    assert!(changed(&first, &second, &own).is_stale(&to_first));
    assert!(changed(&first, &[], &own).is_stale(&to_first));
    assert!(!changed(&[], &first, &own).is_stale(&to_first));
    assert!(changed(&[], &first, &own).is_stale(&connection("192.168.1.11:53", "192.168.1.11:53")));
    assert!(!changed(&first, &second, &own).is_stale(&connection("192.168.1.12:53", "10.244.1.4:5353")));
    assert!(changed(&first, &first, &own).is_empty());
}

const ADDRESSES: [&str; 6] = ["192.168.1.11", "192.168.1.12", "fd30::11", "0.0.0.0", "::", ""];
const OWN: [&str; 3] = ["192.168.1.11", "192.168.1.12", "fd30::11"];

fn pods() -> impl Strategy<Value = Vec<HostPorts>> {
    let port = (0usize..6, 1i32..4, 0usize..3, 1i32..3).prop_map(|(at, port, protocol, target)| {
        HostPort::new(Some(ADDRESSES[at]), Some(port), Some(Protocol::ALL[protocol].as_str()), target).unwrap()
    });
    let pod = (prop::collection::vec(port, 1..4), 1u8..4);
    let numbered = |(i, (ports, families)): (usize, (Vec<HostPort>, u8))| {
        let all = [format!("10.244.1.{}", i + 2), format!("fd00:244:0:1::{}", i + 2)];
        let has = all.iter().enumerate().filter(|(family, _)| families & (1 << family) != 0);
        HostPorts { ports, addresses: has.map(|(_, ip)| ip.parse().unwrap()).collect() }
    };
    prop::collection::vec(pod, 0..6).prop_map(move |pods| pods.into_iter().enumerate().map(numbered).collect())
}

/// Where the table leads a packet to.
fn led(table: &Table, to: SocketAddr, protocol: Protocol) -> Option<String> {
    let (family, port) = (if to.is_ipv4() { "v4" } else { "v6" }, format!("{} . {}", protocol.name(), to.port()));
    let look = |stem: &str, key: String| table.sets[&format!("{stem}_{family}")].elements.get(&key).cloned();
    look("at", format!("{} . {port}", to.ip())).or_else(|| look("any", port))
}

/// The oldest of the pods that ask for a port has it everywhere, or nobody where it has no address of the family; and nft takes any table, from any other.
#[test]
fn the_oldest_has_it_and_nft_takes_it() {
    let real = enter();
    let before = RefCell::new(Table::new(TABLE));
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&pods(), |pods| {
        let table = table(&pods, "kbr0");
        for (to, protocol) in OWN
            .iter()
            .flat_map(|ip| (1..4).map(|port| SocketAddr::new(ip.parse().unwrap(), port)))
            .flat_map(|to| Protocol::ALL.map(|p| (to, p)))
        {
            let asks = |port: &&HostPort| (port.port, port.protocol) == (to.port(), protocol) && port.covers(to.ip());
            let answer = led(&table, to, protocol);
            if let Some(answer) = &answer {
                let of = |pod: &HostPorts| pod.addresses.iter().any(|own| answer.starts_with(&format!("{own} . ")));
                let who = pods.iter().position(of).unwrap();
                prop_assert!(pods[who].ports.iter().any(|port| asks(&port)), "{to}: {answer}");
                prop_assert!(
                    !pods[..who].iter().any(|older| older.ports.iter().any(|port| asks(&port))),
                    "{to}: {answer}"
                );
            }
            // The very oldest has lost nothing.
            let first = pods.first().and_then(|pod| Some((pod, pod.ports.iter().find(asks)?)));
            if let Some((pod, port)) = first
                && let Some(own) = pod.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4())
            {
                let at = |other: &&HostPort| asks(other) && other.address == Some(to.ip());
                let port = pod.ports.iter().find(at).unwrap_or(port);
                prop_assert_eq!(answer, Some(format!("{own} . {}", port.target)));
            }
        }
        if real {
            nft(&["-f", "-"], &script(&before.borrow(), &table));
            prop_assert_eq!(script(&shown(TABLE), &table), "");
            before.replace(table);
        }
        Ok(())
    });
    result.unwrap();
    if real {
        nft(&["-f", "-"], &delete(TABLE));
    }
}
