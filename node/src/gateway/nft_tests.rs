//! Golden tables, which the real nft must accept.

use super::super::flows::tests::{check, served};
use super::*;

fn facts(served: &Served) -> Facts<'_> {
    Facts { served, node_port: true, node_port_addresses: &[], local_pods: &[], cluster_subnets: &[] }
}

fn dual() -> Served {
    let mut served = served();
    let both = Targets { addresses: vec!["10.96.0.8".parse().unwrap(), "fd96::8".parse().unwrap()], port: 443 };
    served.node_ports.insert((Protocol::Tcp, 30443), both.clone());
    served.vips.insert(("2001:db8::1".parse().unwrap(), Protocol::Tcp, 443), both);
    served
}

fn all() -> [(&'static str, String); 3] {
    let (none, dual) = (Served::default(), dual());
    let local = Facts {
        local_pods: &["10.128.0.0/24".parse().unwrap(), "fd01::/64".parse().unwrap()],
        cluster_subnets: &["10.128.0.0/14".parse().unwrap(), "fd01::/48".parse().unwrap()],
        node_port_addresses: &["172.30.0.0/24".parse().unwrap()],
        ..facts(&dual)
    };
    [("none.nft", ruleset(&facts(&none))), ("services.nft", ruleset(&facts(&dual))), ("local.nft", ruleset(&local))]
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
    replace("table inet others {}\n").await.unwrap();
    for (name, text) in all() {
        replace(&text).await.unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        replace(&text).await.unwrap();
        assert_eq!(shown().contains("fd96::8"), name != "none.nft", "{name}");
    }
    let error = replace("table inet ovenbird { nonsense }").await.unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");
    replace(&delete()).await.unwrap();
    replace(&delete()).await.unwrap();
    assert!(!shown().contains("ovenbird") && shown().contains("others"));
}
