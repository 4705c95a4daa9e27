//! The kernel itself, in namespaces of our own. Needs root: without it each test says SKIP, and fails in CI.

use std::process::Command;

use super::*;

/// A named network namespace, removed at the end.
pub struct Netns(String);

impl Netns {
    pub fn new(name: &str) -> Option<Netns> {
        let name = format!("ovnb-{name}-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if made.is_ok_and(|o| o.status.success()) {
            return Some(Netns(name));
        }
        assert!(std::env::var_os("CI").is_none(), "no network namespaces in CI");
        eprintln!("SKIP: network namespaces need root");
        None
    }

    pub fn path(&self) -> std::path::PathBuf {
        format!("/run/netns/{}", self.0).into()
    }

    pub fn ip(&self, args: &str) -> String {
        let out = Command::new("ip").args(["-n", &self.0]).args(args.split(' ')).output().unwrap();
        assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// The kernel operations from inside this namespace.
    async fn enter(&self) -> Linux {
        netns::run(&self.path(), Linux::new).await.unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).output());
    }
}

fn veth(netns: &Netns) -> Veth {
    let route = |dst: &str, via: &str| Route::to(dst.parse().unwrap(), via.parse().ok());
    Veth {
        host: "ov0123456789ab".into(),
        netns: netns.path(),
        ifname: "eth0".into(),
        mac: "0a:58:0a:80:00:03".parse().unwrap(),
        mtu: 1400,
        addresses: vec!["10.128.0.3/24".parse().unwrap(), "fd01::3/64".parse().unwrap()],
        routes: vec![route("0.0.0.0/0", "10.128.0.1"), route("::/0", "fd01::1"), route("10.0.0.0/8", "10.128.0.1")],
        // The offload ioctl goes to the namespace of the calling thread, which tests do not leave.
        checksum_in_software: false,
    }
}

#[tokio::test]
async fn a_veth_is_made_configured_seen_and_removed() {
    let (Some(host), Some(pod)) = (Netns::new("vh"), Netns::new("vp")) else { return };
    let (linux, veth) = (host.enter().await, veth(&pod));
    let before = host.ip("-o link");

    let mac = linux.create_veth(&veth).await.unwrap();
    linux.configure_veth(&veth).await.unwrap();
    linux.configure_veth(&veth).await.expect("a second time is no error");

    let host_end = host.ip("-o link show ov0123456789ab");
    assert!(host_end.contains(&mac.to_string()) && host_end.contains("NOARP"), "{host_end}");
    assert!(pod.ip("route").contains("default via 10.128.0.1 dev eth0"));
    assert!(pod.ip("-6 route").contains("default via fd01::1 dev eth0"));
    let addresses = pod.ip("-6 -o addr show dev eth0 scope global");
    assert!(addresses.contains("fd01::3/64") && !addresses.contains("tentative"), "{addresses}");
    let link = linux.sandbox_link(&pod.path(), "eth0").await.unwrap().unwrap();
    assert_eq!((link.mac, link.mtu, link.up), (Some(veth.mac), 1400, true));
    assert_eq!(link.addresses, veth.addresses);
    assert_eq!(linux.sandbox_link(&pod.path(), "eth1").await.unwrap(), None);

    linux.create_veth(&veth).await.expect("a left-over is replaced");
    linux.delete_link(&veth.host).await.unwrap();
    linux.delete_link(&veth.host).await.expect("a second time is no error");
    assert_eq!(host.ip("-o link"), before);
}

#[tokio::test]
async fn an_interface_of_somebody_else_stays() {
    let (Some(host), Some(pod)) = (Netns::new("th"), Netns::new("tp")) else { return };
    pod.ip("link add eth0 type bridge");
    let error = host.enter().await.create_veth(&veth(&pod)).await.unwrap_err();
    assert!(matches!(error, NetError::Taken { .. }), "{error}");
    assert!(pod.ip("-o link show eth0").contains("eth0"));
}

#[tokio::test]
async fn a_vanished_sandbox_is_an_error_that_names_it() {
    let Some(host) = Netns::new("gh") else { return };
    let linux = host.enter().await;
    let mut veth = veth(&host);
    veth.netns = "/run/netns/nowhere".into();
    let error = linux.create_veth(&veth).await.unwrap_err();
    assert_eq!(error.to_string(), "opening network namespace /run/netns/nowhere");
}

#[tokio::test]
async fn a_host_link_is_healed_and_a_second_time_changes_nothing() {
    let Some(host) = Netns::new("mh") else { return };
    let linux = host.enter().await;
    let want = HostLink {
        name: "mp0".into(),
        mac: "0a:58:0a:80:00:02".parse().unwrap(),
        mtu: 1400,
        addresses: vec!["10.128.0.2/24".parse().unwrap(), "fd01::2/64".parse().unwrap()],
        routes: vec![Route {
            src: "10.128.0.2".parse().ok(),
            ..Route::to("10.128.0.0/14".parse().unwrap(), "10.128.0.1".parse().ok())
        }],
        checksum_in_software: false,
    };
    assert!(matches!(linux.apply_host_link(&want).await, Err(NetError::NoLink(_))));
    host.ip("link add mp0 type bridge");
    host.ip("addr add 192.0.2.1/24 dev mp0");
    assert!(linux.apply_host_link(&want).await.unwrap());
    assert!(!linux.apply_host_link(&want).await.unwrap(), "{}", host.ip("addr"));
    assert!(host.ip("route").contains("10.128.0.0/14 via 10.128.0.1 dev mp0 proto 111 src 10.128.0.2"));
    host.ip("addr del 10.128.0.2/24 dev mp0");
    assert!(linux.apply_host_link(&want).await.unwrap());
    host.ip("route add default via 10.128.0.1");
    let network = linux.host_network().await.unwrap();
    let link = network.links.iter().find(|l| l.name == "mp0").unwrap();
    assert_eq!((network.default_link(true), network.default_link(false)), (Some(link.index), None));
    let mut addresses = link.addresses.clone();
    addresses.sort();
    assert_eq!(addresses, want.addresses);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_link_keeps_what_is_others_and_routes_replace_each_other_by_metric() {
    let Some(host) = Netns::new("ms") else { return };
    let linux = host.enter().await;
    let route = |dst: &str, via: &str| Route::to(dst.parse().unwrap(), via.parse().ok());
    let want = SharedLink {
        name: "br-ex".into(),
        addresses: vec!["169.254.169.2/29".parse().unwrap(), "fd69::2/125".parse().unwrap()],
        neighbours: ["169.254.169.4", "fd69::4"]
            .map(|ip| (ip.parse().unwrap(), "0a:58:a9:fe:a9:04".parse().unwrap()))
            .into(),
        routes: vec![
            Route { mtu: Some(1400), ..route("10.96.0.0/16", "169.254.169.4") },
            Route { mtu: Some(1400), ..route("fd96::/112", "fd69::4") },
            Route { metric: Some(2000), ..route("fd97::/112", "fd69::4") },
        ],
    };
    assert!(matches!(linux.apply_shared_link(&want).await, Err(NetError::NoLink(_))));
    for line in [
        "link add br-ex type bridge",
        "link set br-ex up",
        "addr add 192.0.2.1/24 dev br-ex",
        "route add default via 192.0.2.9",
    ] {
        host.ip(line);
    }
    host.ip("route add 10.96.0.0/16 via 192.0.2.9 metric 2000");
    assert!(linux.apply_shared_link(&want).await.unwrap());
    assert!(!linux.apply_shared_link(&want).await.unwrap(), "{}", host.ip("-6 route"));
    for (line, has) in [
        ("addr show dev br-ex", "192.0.2.1/24"),
        ("route", "default via 192.0.2.9"),
        ("route", "10.96.0.0/16 via 192.0.2.9 dev br-ex metric 2000"),
        ("route get 10.96.0.1", "via 169.254.169.4"),
        ("route get 10.96.0.1", "mtu 1400"),
        ("-6 route get fd96::1", "via fd69::4"),
        ("neigh", "169.254.169.4 dev br-ex lladdr 0a:58:a9:fe:a9:04 PERMANENT"),
    ] {
        assert!(host.ip(line).contains(has), "{has}: {}", host.ip(line));
    }
    assert!(linux.apply_shared_link(&SharedLink { routes: Vec::new(), ..want.clone() }).await.unwrap());
    assert!(host.ip("route get 10.96.0.1").contains("via 192.0.2.9"));
    assert!(!host.ip("-6 route").contains("fd96::"));
    assert!(linux.apply_shared_link(&want).await.unwrap());
    linux.clear_shared_link(&want).await.unwrap();
    linux.clear_shared_link(&want).await.unwrap();
    let left = ["addr", "route", "-6 route", "neigh"].map(|line| host.ip(line)).concat();
    assert!(!["169.254", "fd69:", "proto 111", "fd96:"].iter().any(|ours| left.contains(ours)), "{left}");
    assert!(left.contains("192.0.2.1/24") && left.contains("metric 2000"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_asked_for_at_once_are_all_answered() {
    let Some(host) = Netns::new("lh") else { return };
    // Enough for a list to take more than one message.
    for i in 0..60 {
        host.ip(&format!("link add br{i} type bridge"));
        host.ip(&format!("addr add 10.0.{i}.1/24 dev br{i}"));
    }
    let linux = Arc::new(host.enter().await);
    let ask = |_| {
        tokio::spawn({
            let linux = linux.clone();
            async move { linux.host_network().await }
        })
    };
    for network in futures::future::join_all((0..50).map(ask)).await {
        assert_eq!(network.unwrap().unwrap().links.iter().filter(|l| !l.addresses.is_empty()).count(), 60);
    }
}
