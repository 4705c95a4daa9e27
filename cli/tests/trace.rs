//! Where packets go by the rows of `ovenbird render`: a real northd makes flows of them, and ovn-trace follows one packet
//! through these, without a datapath.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

mod common;

/// The MAC of everything outside.
const OUTSIDE: &str = "0a:58:00:00:00:99";

/// The wire of node n1.
const OUTSIDE_PORT: &str = "output(\"br-ex_n1\")";

/// Northbound, Southbound and northd.
struct Ovn {
    dir: tempfile::TempDir,
    _servers: [common::Server; 3],
}

impl Ovn {
    /// Two nodes with gateways of a mode, their subnets of different lengths, a pod on each.
    fn start(mode: &str, settings: &[&str]) -> Ovn {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("unix:{}", dir.path().join(name).display());
        let databases = [common::database(dir.path(), "nb"), common::database(dir.path(), "sb")];
        let mut northd = Command::new("ovn-northd");
        northd.arg(format!("--unixctl={}", dir.path().join("northd.ctl").display()));
        northd.args([format!("--ovnnb-db={}", at("nb.sock")), format!("--ovnsb-db={}", at("sb.sock"))]);
        let [nb, sb] = databases;
        let ovn = Ovn { _servers: [nb, sb, common::Server::spawn(&mut northd)], dir };

        let file = ovn.dir.path().join("manifests.yaml");
        std::fs::write(&file, manifests(mode)).unwrap();
        let dual = ["--cluster-subnets", "10.128.0.0/14/23,fd01::/48/64"];
        let script = ovn.dir.path().join("script");
        std::fs::write(&script, common::render(&file, "nbctl", &[&dual, settings].concat())).unwrap();
        ovn.run("sh", &[script.to_str().unwrap()]);
        ovn.run("ovn-nbctl", &["--timeout=20", "--wait=sb", "sync"]);
        ovn.learn_outside();
        ovn
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let at = |name: &str| format!("unix:{}", self.dir.path().join(name).display());
        let mut command = Command::new(program);
        command.args(args).env("OVN_NB_DB", at("nb.sock")).env("OVN_SB_DB", at("sb.sock")).stdin(Stdio::null());
        let out = command.output().unwrap();
        assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What ovn-controller would have learnt from ARP and ND: without it a trace ends in a question.
    fn learn_outside(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        for node in ["n1", "n2"] {
            let router = format!("external_ids:name=GR_{node}");
            let find = ["--bare", "--columns=_uuid", "find", "datapath_binding", &router];
            let datapath = format!("datapath={}", self.run("ovn-sbctl", &find).trim());
            let neighbours = ["172.18.0.1", "172.18.0.4", "172.18.0.5", "fc00::1"].map(|ip| ("rtoe-GR_", ip, OUTSIDE));
            let joined =
                [("rtoj-GR_", "100.64.0.1", "0a:58:64:40:00:01"), ("rtoj-GR_", "fd98::1", "0a:58:64:40:00:01")];
            for (stem, ip, mac) in neighbours.into_iter().chain(joined) {
                let columns = [
                    format!("logical_port={stem}{node}"),
                    format!("ip=\"{ip}\""),
                    format!("mac=\"{mac}\""),
                    format!("timestamp={now}"),
                ];
                let mut create = vec!["create", "mac_binding", &datapath];
                create.extend(columns.iter().map(String::as_str));
                self.run("ovn-sbctl", &create);
            }
        }
    }

    /// The trace of a packet of pod a on node n1.
    fn of_pod(&self, packet: &str) -> String {
        let from = "inport == \"default_a\" && eth.src == 0a:58:0a:80:00:03 && eth.dst == 0a:58:0a:80:00:01";
        let ip = if packet.contains("ip6") { "ip6.src == fd01::3" } else { "ip4.src == 10.128.0.3" };
        self.run("ovn-trace", &["--minimal", "n1", &format!("{from} && {ip} && ip.ttl == 64 && {packet}")])
    }

    /// The trace of a packet that enters node n1 from the wire.
    fn of_outside(&self, packet: &str) -> String {
        let from = format!("inport == \"br-ex_n1\" && eth.src == {OUTSIDE} && eth.dst == 0a:58:00:00:00:01");
        self.run("ovn-trace", &["--minimal", "ext_n1", &format!("{from} && ip.ttl == 64 && {packet}")])
    }
}

fn manifests(mode: &str) -> String {
    let node = |n: u8, subnets: &str| {
        let gateway = format!(
            r#"{{"default":{{"mode":"{mode}","interface-id":"br-ex_n{n}","mac-address":"0a:58:00:00:00:0{n}","ip-addresses":["172.18.0.{}/16","fc00::{}/64"],"next-hops":["172.18.0.1","fc00::1"]}}}}"#,
            n + 3,
            n + 3
        );
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: n{n}\n  annotations:\n    k8s.ovn.org/node-chassis-id: c{n}\n    \
             k8s.ovn.org/node-subnets: '{{\"default\":[{subnets}]}}'\n    k8s.ovn.org/l3-gateway-config: '{gateway}'\n---\n"
        )
    };
    let pod = |name: &str, n: u8| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, uid: u{n}}}, spec: {{nodeName: n{n}}}}}\n---\n")
    };
    let nodes = node(1, r#""10.128.0.0/26","fd01::/64""#) + &node(2, r#""10.128.2.0/23","fd01:0:0:1::/64""#);
    nodes + &pod("a", 1) + &pod("b", 2)
}

/// The trace says all of these, in this order.
#[track_caller]
fn says(trace: &str, wanted: &[&str]) {
    let mut rest = trace;
    for text in wanted {
        match rest.split_once(text) {
            Some((_, after)) => rest = after,
            None => panic!("no {text:?} (in this place) in\n{trace}"),
        }
    }
}

#[test]
fn shared_gateways() {
    if !common::has_ovn() {
        return;
    }
    let ovn = Ovn::start("shared", &["--non-masquerade-cidrs", "192.168.0.0/16"]);
    // The first SNAT decides; what follows it is the wire.
    says(&ovn.of_pod("tcp.dst == 80 && ip4.dst == 8.8.8.8"), &["ct_snat(ip4.src=172.18.0.4)", OUTSIDE_PORT]);
    says(&ovn.of_pod("tcp.dst == 80 && ip6.dst == 2001:db8::8"), &["ct_snat(ip6.src=fc00::4)", OUTSIDE_PORT]);
    let excluded = ovn.of_pod("udp.dst == 53 && ip4.dst == 192.168.1.1");
    says(&excluded, &[OUTSIDE_PORT]);
    assert!(!excluded.contains("ct_snat"), "its own address:\n{excluded}");

    let own_node = ovn.of_pod("tcp.dst == 80 && ip4.dst == 172.18.0.4");
    says(&own_node, &["output(\"k8s-n1\")"]);
    assert!(!own_node.contains("snat"), "the node sees the pod's own address:\n{own_node}");
    says(&ovn.of_pod("tcp.dst == 80 && ip4.dst == 172.18.0.5"), &["ct_snat(ip4.src=172.18.0.4)", OUTSIDE_PORT]);

    let other_pod = ovn.of_pod("tcp.dst == 80 && ip4.dst == 10.128.2.3");
    says(&other_pod, &["output(\"default_b\")"]);
    assert!(!other_pod.contains("snat"), "within the cluster nothing is translated:\n{other_pod}");
    says(&ovn.of_pod("tcp.dst == 80 && ip4.dst == 100.64.0.3"), &["eth.dst = 0a:58:64:40:00:03;"]);

    // Who has a route to pods reaches them, on whichever node they are.
    says(&ovn.of_outside("ip4.src == 192.168.1.1 && ip4.dst == 10.128.2.3 && tcp"), &["output(\"default_b\")"]);
    says(&ovn.of_outside("ip6.src == fc00::9 && ip6.dst == fd01::3 && tcp"), &["output(\"default_a\")"]);
}

#[test]
fn local_gateways_and_none() {
    if !common::has_ovn() {
        return;
    }
    let ovn = Ovn::start("local", &[]);
    let out = ovn.of_pod("tcp.dst == 80 && ip4.dst == 8.8.8.8");
    says(&out, &["output(\"k8s-n1\")"]);
    assert!(!out.contains("snat"), "the host translates:\n{out}");
    says(&ovn.of_outside("ip4.src == 8.8.8.8 && ip4.dst == 10.128.0.3 && tcp"), &["output(\"default_a\")"]);

    let ovn = Ovn::start("shared", &["--disable-snat"]);
    let out = ovn.of_pod("tcp.dst == 80 && ip4.dst == 8.8.8.8");
    says(&out, &[OUTSIDE_PORT]);
    assert!(!out.contains("ct_snat("), "its own address:\n{out}");
}
