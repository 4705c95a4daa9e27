//! Golden tables, which the real nft must accept.

use ovenbird_api::{HostPort, HostPorts};

use super::super::flows::tests::{check, served};
use super::*;
use crate::nft::apply;

fn facts(served: &Served) -> Facts<'_> {
    Facts { served, node_port: true, node_port_addresses: &[], local_pods: &[], unmasked: &[], link: None }
}

fn dual() -> Served {
    let mut served = served();
    let both = Targets { addresses: vec!["10.96.0.8".parse().unwrap(), "fd96::8".parse().unwrap()], port: 443 };
    served.node_ports.insert((Protocol::Tcp, 30443), both.clone());
    served.vips.insert(("2001:db8::1".parse().unwrap(), Protocol::Tcp, 443), both);
    let own = ["172.30.0.11:8443", "[fd30::11]:8443"].map(|to| to.parse().unwrap());
    served.direct.node_ports.insert((Protocol::Tcp, 30443), own.to_vec());
    served.direct.vips.insert(("2001:db8::1".parse().unwrap(), Protocol::Tcp, 443), vec![own[1]]);
    served
}

/// A pod that asks for a port at all addresses, and a later one that asks for the same at one.
fn host_ports() -> Served {
    let pod = |address: Option<&str>, target: i32, own: [&str; 2]| HostPorts {
        ports: HostPort::new(address, Some(8080), None, target).into_iter().collect(),
        addresses: own.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let pods = [pod(None, 80, ["10.128.0.3", "fd01::3"]), pod(Some("172.30.0.11"), 81, ["10.128.0.4", "fd01::4"])];
    let mut served = Served::default();
    served.add_host_ports(&pods, &["172.30.0.11", "fd30::11", "127.0.0.1"].map(|a| a.parse().unwrap()));
    served
}

fn all() -> [(&'static str, String); 4] {
    let (none, dual, ports) = (Served::default(), dual(), host_ports());
    let masquerade = Masquerade::default();
    let service_cidrs = &["10.96.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()];
    let local = Facts {
        local_pods: &["10.128.0.0/24".parse().unwrap(), "fd01::/64".parse().unwrap()],
        unmasked: &["10.128.0.0/14".parse().unwrap(), "fd01::/48".parse().unwrap()],
        node_port_addresses: &["172.30.0.0/24".parse().unwrap()],
        link: Some(Link { bridge: "br-ex", masquerade: &masquerade, service_cidrs }),
        ..facts(&dual)
    };
    [
        ("none.nft", ruleset(&facts(&none))),
        ("services.nft", ruleset(&facts(&dual))),
        ("local.nft", ruleset(&local)),
        ("host-ports.nft", ruleset(&facts(&ports))),
    ]
}

#[test]
fn golden() {
    for (name, text) in all() {
        check(name, &text);
    }
    let dual = dual();
    let off = ruleset(&Facts { node_port: false, ..facts(&dual) });
    assert!(!off.contains("node_ports") && off.contains("vips_v4"));
}

#[tokio::test]
async fn nft_accepts_them_and_replaces_one_by_the_next() {
    if !nix::unistd::geteuid().is_root() || std::process::Command::new("nft").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no root, or no nft, in CI");
        eprintln!("SKIP: needs root and nft");
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let shown = || {
        let output = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    apply("table inet others {}\n").await.unwrap();
    for (name, text) in all() {
        apply(&text).await.unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        apply(&text).await.unwrap();
        assert_eq!(shown().contains("map vips_v6"), name != "none.nft", "{name}");
    }
    let error = apply("table inet ovenbird { nonsense }").await.unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");
    apply(&delete()).await.unwrap();
    apply(&delete()).await.unwrap();
    assert!(!shown().contains("ovenbird") && shown().contains("others"));
}
