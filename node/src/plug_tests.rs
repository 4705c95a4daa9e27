//! ADD, DEL, CHECK and GC over a kernel in memory and a real ovsdb-server. The test plays ovn-controller.

use std::net::IpAddr;
use std::time::Duration;

use ovenbird_api::PodNetwork;
use ovenbird_cni_server::{Attach, Check, Del, PodRef};
use ovenbird_reconcile::Owner;
use ovenbird_schema::vswitch::interface;
use tokio::time::Instant;

use super::requests::MARGIN;
use super::*;
use crate::net::fake::Fake;
use crate::pods::{Lookup, Pod};
use crate::rows::Chassis;
use crate::testing::Ovsdb;

const NETWORK: &str = concat!(
    r#"{"default":{"ip_addresses":["10.128.0.3/24","fd01::3/64"],"mac_address":"0a:58:0a:80:00:03","#,
    r#""gateway_ips":["10.128.0.1","fd01::1"],"routes":[{"dest":"10.128.0.0/14","nextHop":"10.128.0.1"}]}}"#
);

struct Lab {
    ovsdb: Ovsdb,
    net: Arc<Fake>,
    pods: Arc<PodBook>,
    plug: Arc<Plug<Fake>>,
    told: Arc<Mutex<Vec<Diagnostic>>>,
    entered: Arc<watch::Sender<Entered>>,
    reported: Arc<Mutex<Vec<String>>>,
}

fn pod(uid: &str) -> Pod {
    Pod { uid: uid.into(), node: "n1".into(), network: Some(NETWORK.into()), ..Pod::default() }
}

fn chassis() -> Chassis {
    Chassis {
        system_id: "sys".into(),
        node: "n1".into(),
        sb_address: "tcp:127.0.0.1:6642".into(),
        encap_type: "geneve",
        encap_ip: "127.0.0.1".parse().unwrap(),
        bridge_mappings: None,
        external_bridge: None,
        providers: None,
        entered: Entered::default(),
        monitor_all: true,
        userspace: true,
    }
}

/// A plug that is ready, on a host with the sandbox /ns/a.
async fn lab() -> Option<Lab> {
    let ovsdb = Ovsdb::start("external_ids:ovn-bridge-datapath-type=netdev")?;
    Some(lab_on(ovsdb).await)
}

async fn lab_on(ovsdb: Ovsdb) -> Lab {
    let vswitch = Vswitch::spawn(vec![ovsdb.endpoint()], Duration::from_secs(300));
    vswitch.set_chassis(chassis());
    let lookup: Lookup = Box::new(|_, _| Box::pin(std::future::ready(Ok(None))));
    let (net, pods) = (Arc::new(Fake::default()), Arc::new(PodBook::new("n1", lookup)));
    net.add_netns("/ns/a");
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell: Tell = Arc::new({
        let told = told.clone();
        move |_, _, _, diagnostic| told.lock().unwrap().push(diagnostic)
    });
    let reported = Arc::new(Mutex::new(Vec::new()));
    let report: Report = Box::new({
        let reported = reported.clone();
        move |network: &str, ip, mac| {
            reported.lock().unwrap().push(format!("{network} {ip} {mac}"));
            Box::pin(std::future::ready(()))
        }
    });
    let readiness = Arc::new(Readiness::with(&[Part::ManagementPort]));
    readiness.set(Part::Restored, true);
    vswitch.until(|s| s.synced).await.unwrap();
    vswitch.allow_deletes();
    let entered: Arc<watch::Sender<Entered>> = Arc::default();
    let parts = Parts {
        net: net.clone(),
        cable: vswitch.into(),
        pods: pods.clone(),
        readiness,
        metrics: Arc::default(),
        tell,
        report,
        leases: Arc::new(Leases::new(
            net.clone(),
            Arc::new(|_, _, _, _| {}),
            Box::new(|_, _, _, _| Box::pin(std::future::ready(Ok(())))),
        )),
        entered: entered.clone(),
        mtu: 1400,
    };
    Lab { ovsdb, net, pods, plug: Arc::new(Plug::new(parts)), told, entered, reported }
}

fn attachment(id: &str) -> Attachment {
    Attachment { container_id: id.into(), ifname: "eth0".into() }
}

fn add(id: &str, netns: &str, uid: &str) -> Add {
    let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: Some(uid.into()) };
    Add { attachment: attachment(id), netns: netns.into(), pod }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn owner(id: &str) -> Owner {
    PodPort::owner_of(&attachment(id))
}

impl Lab {
    /// Does what ovn-controller does once it has the port.
    async fn install(&self, id: &str) {
        self.plug.cable.wait(&owner(id), |row| row.map(|_| ())).await.unwrap();
        let name = PodPort::host_name(&attachment(id));
        self.ovsdb.vsctl(&format!("--no-wait set Interface {name} external_ids:ovn-installed=true"));
    }

    async fn add_installed(&self, add: Add) -> Attached {
        let id = add.attachment.container_id.clone();
        let (attached, ()) = tokio::join!(self.plug.add(add, soon()), self.install(&id));
        attached.unwrap()
    }

    /// A pod of its own, named as its sandbox, attached.
    async fn add_pod(&self, id: &str) {
        self.add(id, pod(id)).await;
    }

    async fn add(&self, id: &str, what: Pod) {
        let netns = format!("/ns/{id}");
        self.net.add_netns(&netns);
        self.pods.apply(format!("default/{id}"), what);
        let pod = PodRef { namespace: "default".into(), name: id.into(), uid: None };
        self.add_installed(Add { attachment: attachment(id), netns: netns.into(), pod }).await;
    }

    /// Makes the port of br-int that ovn-controller makes for a Network.
    async fn connect(&self, network: &str) {
        self.plug.cable.until(|s| s.bridge).await.unwrap();
        let port = format!("patch-br-int-to-localnet-NET_{network}");
        self.ovsdb.vsctl(&format!("--no-wait add-port br-int {port} -- set Interface {port} ofport=7"));
    }

    fn ports(&self) -> Vec<String> {
        let mut ports: Vec<_> = self.ovsdb.vsctl("list-ports br-int").lines().map(str::to_owned).collect();
        ports.retain(|p| !p.is_empty());
        ports
    }
}

fn check(id: &str, previous: Attached) -> Check {
    Check { attachment: attachment(id), netns: "/ns/a".into(), previous }
}

#[tokio::test]
async fn the_first_pod_of_a_network_is_told() {
    let Some(lab) = lab().await else { return };
    let told = || lab.entered.borrow().get("v100").copied();
    let on = |id: &str| Pod { on: Some("v100".into()), ..pod(id) };
    lab.add("c1", on("c1")).await;
    let first = told().unwrap();
    lab.add("c2", on("c2")).await;
    lab.add("c3", pod("c3")).await;
    assert_eq!((told(), lab.entered.borrow().len()), (Some(first), 1), "not the first, or on the node's own network");
    for id in ["c1", "c2"] {
        lab.plug.unplug(&attachment(id)).await.unwrap();
    }
    // Also of the same sandbox, as when a first ADD has failed.
    lab.add("c1", on("c1")).await;
    assert_eq!(told(), Some(first + 1), "the first one after all have gone");
}

#[tokio::test]
async fn pods_that_an_earlier_daemon_attached_are_not_told_again() {
    let Some(before) = lab().await else { return };
    let on = |id: &str| Pod { on: Some("v100".into()), ..pod(id) };
    before.add("c1", on("c1")).await;
    let Lab { ovsdb, plug, .. } = before;
    drop(plug);
    let lab = lab_on(ovsdb).await;
    for port in lab.plug.cable().ports().await.unwrap() {
        assert!(lab.plug.take_over(port));
    }
    lab.add("c2", on("c2")).await;
    assert_eq!(*lab.entered.borrow(), Entered::new(), "c1 is there");
    for id in ["c1", "c2"] {
        lab.plug.unplug(&attachment(id)).await.unwrap();
    }
    lab.add("c3", on("c3")).await;
    assert!(lab.entered.borrow().contains_key("v100"), "the first one after all have gone");
}

#[tokio::test]
async fn probes_wait_for_the_way_to_the_wire() {
    let Some(lab) = lab().await else { return };
    let network = PodNetwork { probe: true, ..PodNetwork::parse(NETWORK).unwrap() }.format();
    let on = |id: &str| Pod { on: Some("v100".into()), network: Some(network.clone()), ..pod(id) };
    let adding = async { tokio::join!(lab.add("c1", on("c1")), lab.add("c2", on("c2"))) };
    let connecting = async {
        lab.entered.subscribe().wait_for(|all| all.contains_key("v100")).await.unwrap();
        for id in ["c1", "c2"] {
            let installed = |row: Option<interface::Ref<'_>>| row?.external_ids().get("ovn-installed").map(drop);
            lab.plug.cable.wait(&owner(id), installed).await.unwrap();
        }
        assert_eq!(lab.ports().len(), 2);
        assert!(lab.net.probed().is_empty());
        lab.connect("v100").await;
    };
    tokio::join!(adding, connecting);
    assert_eq!(lab.net.probed().len(), 4);
}

#[tokio::test]
async fn a_pod_comes_up_where_there_is_no_way_to_the_wire() {
    let Some(lab) = lab().await else { return };
    let network = PodNetwork { probe: true, ..PodNetwork::parse(NETWORK).unwrap() }.format();
    lab.add("c1", Pod { on: Some("v100".into()), network: Some(network), ..pod("c1") }).await;
    assert_eq!(lab.plug.attachments().len(), 1);
}

#[tokio::test]
async fn an_address_that_another_has_is_not_used() {
    let Some(lab) = lab().await else { return };
    let network = PodNetwork { probe: true, ..PodNetwork::parse(NETWORK).unwrap() }.format();
    let on = || Pod { on: Some("v100".into()), network: Some(network.clone()), ..pod("u1") };
    lab.pods.apply("default/web".into(), on());
    lab.connect("v100").await;
    let other: IpAddr = "fd01::3".parse().unwrap();
    lab.net.set_other(other, Some(Mac([2, 0, 0, 0, 0, 9])));
    let (failed, ()) = tokio::join!(lab.plug.add(add("c1", "/ns/a", "u1"), soon()), lab.install("c1"));
    let failed = failed.unwrap_err().to_string();
    assert!(failed.starts_with("address fd01::3 of Network v100 is in use: 02:00:00:00:00:09 answers"), "{failed}");
    assert_eq!(*lab.reported.lock().unwrap(), ["v100 fd01::3 02:00:00:00:00:09"]);
    let event = lab.told.lock().unwrap().pop().unwrap();
    assert!(event.reason == "AddressConflict" && event.message.contains("excludeIPs"), "{event:?}");
    assert_eq!(lab.plug.attachments(), [], "nothing is left");
    // It has gone; and what is attached is not asked for again.
    lab.net.set_other(other, None);
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    let probed = lab.net.probed();
    assert_eq!(probed.iter().filter(|ip| **ip == other).count(), 2, "{probed:?}");
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    assert_eq!(lab.net.probed(), probed);
    // Nor where nobody wants it.
    lab.pods.apply("default/web".into(), Pod { network: Some(NETWORK.into()), ..on() });
    lab.add_installed(add("c2", "/ns/a", "u1")).await;
    assert_eq!(lab.net.probed(), probed);
}

#[tokio::test]
async fn add_check_del() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    let attached = lab.add_installed(add("c1", "/ns/a", "u1")).await;

    let addresses: Vec<_> = attached.ips.iter().map(|ip| ip.address.to_string()).collect();
    assert_eq!(addresses, ["10.128.0.3/24", "fd01::3/64"]);
    let routes: Vec<_> = attached.routes.iter().map(|r| r.dst.to_string()).collect();
    assert_eq!(routes, ["10.128.0.0/14", "0.0.0.0/0", "::/0"]);
    assert_eq!(attached.interfaces[1].sandbox.as_deref(), Some("/ns/a"));
    let veths = lab.net.veths();
    assert_eq!((veths.len(), veths[0].mtu, veths[0].checksum_in_software), (1, 1400, true));
    let host = PodPort::host_name(&attachment("c1"));
    assert_eq!(lab.ports(), [host.as_str()]);
    assert_eq!(lab.ovsdb.vsctl("get Bridge br-int datapath_type fail_mode"), "netdev\nsecure");

    lab.plug.check(check("c1", attached.clone()), soon()).await.unwrap();
    let again = lab.plug.add(add("c1", "/ns/a", "u1"), soon()).await.unwrap();
    assert_eq!(again, attached, "ADD is idempotent");
    assert_eq!(lab.net.created(), 1, "and touches no link the second time");

    let del = Del { attachment: attachment("c1"), netns: None };
    lab.plug.del(del.clone(), soon()).await.unwrap();
    assert_eq!((lab.ports().len(), lab.net.veths().len()), (0, 0));
    assert_eq!(lab.ovsdb.vsctl("--columns=name --bare list Interface"), "br-int");
    lab.plug.del(del, soon()).await.expect("DEL of what is not there is a success");
    let gone = lab.plug.check(check("c1", attached), soon()).await.unwrap_err();
    assert_eq!(gone.code, Code::CheckFailed);
}

#[tokio::test]
async fn another_sandbox_under_the_same_path_is_plugged_anew() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    lab.net.remove_netns("/ns/a");
    lab.net.add_netns("/ns/b");
    lab.net.add_netns("/ns/a");
    let installed_again = async {
        lab.plug.cable.wait(&owner("c1"), |row| row.is_none().then_some(())).await.unwrap();
        lab.install("c1").await;
    };
    // The waiter is polled first, so that it sees the old row go.
    let ((), attached) = tokio::join!(installed_again, lab.plug.add(add("c1", "/ns/a", "u1"), soon()));
    attached.unwrap();
    assert_eq!(lab.net.created(), 2);
}

#[tokio::test]
async fn what_add_waits_for_is_in_its_error() {
    let Some(lab) = lab().await else { return };
    let at_once = Instant::now() + MARGIN;
    lab.pods.apply("default/web".into(), Pod { network: None, ..pod("u1") });
    let error = lab.plug.add(add("c1", "/ns/a", "u1"), at_once).await.unwrap_err();
    assert_eq!(error.code, Code::TryAgainLater);
    assert_eq!(error.msg, "timed out waiting for annotation k8s.ovn.org/pod-networks on pod default/web");

    lab.pods.apply("default/web".into(), pod("u1"));
    let waiting = tokio::spawn({
        let plug = lab.plug.clone();
        async move { plug.add(add("c1", "/ns/a", "u1"), Instant::now() + MARGIN + Duration::from_millis(300)).await }
    });
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.msg, "timed out waiting for ovn-controller to install the port (external_ids:ovn-installed)");
    assert!(error.details.contains("default_web"), "{}", error.details);
    assert_eq!((lab.ports().len(), lab.net.veths().len()), (0, 0), "what a failed ADD made is taken back");
}

#[tokio::test]
async fn errors_of_add_name_their_cause() {
    let Some(lab) = lab().await else { return };
    let error = lab.plug.add(add("c1", "/ns/a", "u1"), soon()).await.unwrap_err();
    assert_eq!((error.code, error.msg.as_str()), (Code::UnknownContainer, "pod default/web does not exist"));
    lab.pods.apply("default/web".into(), pod("u1"));
    let error = lab.plug.add(add("c1", "/ns/nowhere", "u1"), soon()).await.unwrap_err();
    assert_eq!((error.code, error.msg.as_str()), (Code::UnknownContainer, "CNI_NETNS /ns/nowhere cannot be opened"));
}

#[tokio::test]
async fn del_ends_an_add_under_way() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    let adding = tokio::spawn({
        let plug = lab.plug.clone();
        async move { plug.add(add("c1", "/ns/a", "u1"), soon()).await }
    });
    lab.plug.cable.wait(&owner("c1"), |row| row.map(|_| ())).await.unwrap();
    lab.plug.del(Del { attachment: attachment("c1"), netns: None }, soon()).await.unwrap();
    assert_eq!(adding.await.unwrap().unwrap_err().msg, "DEL came while ADD was under way");
    assert_eq!((lab.ports().len(), lab.net.veths().len()), (0, 0));
}

#[tokio::test]
async fn a_new_sandbox_of_a_pod_replaces_the_old_one() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    lab.net.add_netns("/ns/b");
    lab.add_installed(add("c2", "/ns/b", "u1")).await;
    assert_eq!(lab.ports(), [PodPort::host_name(&attachment("c2"))], "one port of this name");
}

/// The host has booted: the row is there and the sandbox is not.
#[tokio::test]
async fn a_port_that_was_left_goes_before_one_of_its_name_comes() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    let left = lab.plug.attachments().remove(0);
    lab.plug.known().ports.clear();
    lab.plug.leave(vec![left]);
    lab.net.add_netns("/ns/b");
    let adding = lab.add_installed(add("c2", "/ns/b", "u1"));
    tokio::pin!(adding);
    let waits = async {
        lab.plug.cable.wait(&owner("c1"), |row| row.is_none().then_some(())).await.unwrap();
        assert_eq!(lab.ports(), [""; 0], "the later port came before the earlier was gone");
    };
    let ((), (), _) = tokio::join!(waits, lab.plug.await_stale(), &mut adding);
    assert_eq!(lab.ports(), [PodPort::host_name(&attachment("c2"))], "one port of this name");
}

#[tokio::test]
async fn a_tag_is_one_pods() {
    let Some(lab) = lab().await else { return };
    let tagged = |uid: &str| {
        let Pod { network, .. } = pod(uid);
        let network = PodNetwork { tag: Some(7), ..PodNetwork::parse(&network.unwrap()).unwrap() };
        Pod { network: Some(network.format()), ..pod(uid) }
    };
    lab.pods.apply("default/web".into(), tagged("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    // The first was deleted by force, and nobody has taken its port away.
    lab.net.add_netns("/ns/b");
    lab.pods.apply("default/other".into(), tagged("u2"));
    let pod = PodRef { namespace: "default".into(), name: "other".into(), uid: Some("u2".into()) };
    lab.add_installed(Add { attachment: attachment("c2"), netns: "/ns/b".into(), pod }).await;
    assert_eq!(lab.ports(), [PodPort::host_name(&attachment("c2"))], "one port of this tag");
}

#[tokio::test]
async fn a_del_that_comes_before_the_take_over_holds() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    let port = lab.plug.attachments().remove(0);
    lab.plug.readiness.set(Part::Restored, false);
    lab.plug.del(Del { attachment: attachment("c1"), netns: None }, soon()).await.unwrap();
    assert!(!lab.plug.take_over(port));
    assert!(lab.plug.attachments().is_empty());
}

#[tokio::test]
async fn gc_removes_what_is_not_named() {
    let Some(lab) = lab().await else { return };
    for id in ["c1", "c2", "c3"] {
        lab.add_pod(id).await;
    }
    lab.plug.gc(vec![attachment("c2")], soon()).await.unwrap();
    assert_eq!(lab.ports(), [PodPort::host_name(&attachment("c2"))]);
    assert_eq!(lab.net.veths().len(), 1);
}

#[tokio::test]
async fn a_port_whose_pod_is_missed_twice_goes() {
    let Some(lab) = lab().await else { return };
    // A kubelet's own UID; it has no mirror for a while.
    let alone = "0123456789abcdef0123456789abcdef";
    for id in ["lives", "goes", "again", "static", alone] {
        lab.add_pod(id).await;
    }
    let look = async |before| crate::sweep::look(&lab.plug, &lab.pods, before).await;
    assert!(look([].into()).await.is_empty(), "all are there");
    lab.pods.delete("default/goes");
    lab.pods.delete(&format!("default/{alone}"));
    lab.pods.apply("default/again".into(), pod("another"));
    // Its mirror in the API was made anew.
    lab.pods.apply("default/static".into(), Pod { static_uid: Some("static".into()), ..pod("mirror") });
    let missed = look([].into()).await;
    assert_eq!(missed, [attachment("again"), attachment("goes")].into());
    assert_eq!(lab.ports().len(), 5, "nothing goes at once");
    assert!(look(missed).await.is_empty());
    let mut left = [attachment("lives"), attachment("static"), attachment(alone)].map(|one| PodPort::host_name(&one));
    left.sort();
    assert_eq!(lab.ports(), left);
}

#[tokio::test]
async fn ports_that_come_together_are_committed_together() {
    let Some(lab) = lab().await else { return };
    let before = lab.plug.cable.until(|s| s.bridge).await.unwrap().transactions;
    let ids: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    futures::future::join_all(ids.iter().map(|id| lab.add_pod(id))).await;
    let transactions = lab.plug.cable.state().borrow().transactions - before;
    assert!(transactions <= 5, "{transactions} transactions for 20 ports that came at once");
    assert_eq!(lab.ports().len(), 20);
}

#[tokio::test]
async fn a_limit_that_cannot_be_enforced_is_told() {
    let Some(lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), Pod { limits: [Some("10M".into()), Some("5M".into())], ..pod("u1") });
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    assert_eq!(lab.told.lock().unwrap()[0].reason, "BandwidthNotEnforced");
    let name = PodPort::host_name(&attachment("c1"));
    assert_eq!(
        lab.ovsdb.vsctl(&format!("get Interface {name} ingress_policing_rate ingress_policing_burst")),
        "5000\n500"
    );
    assert_eq!(lab.ovsdb.vsctl("--bare --columns=type,other_config list QoS"), "linux-htb\nmax-rate=10000000");
    lab.plug.del(Del { attachment: attachment("c1"), netns: None }, soon()).await.unwrap();
    lab.plug.cable.until(|s| s.synced).await.unwrap();
    assert_eq!(lab.ovsdb.vsctl("--bare list QoS"), "", "the queue goes with the port");
}

#[tokio::test]
async fn a_database_that_comes_back_is_brought_up_to_date() {
    let Some(mut lab) = lab().await else { return };
    lab.pods.apply("default/web".into(), pod("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    lab.ovsdb.restart();
    lab.plug.cable.until(|s| !s.synced).await.unwrap();
    lab.plug.cable.until(|s| s.synced).await.unwrap();
    let name = PodPort::host_name(&attachment("c1"));
    lab.ovsdb.vsctl(&format!("--no-wait del-port {name}"));
    lab.plug.cable.wait(&owner("c1"), |row| row.is_none().then_some(())).await.unwrap();
    lab.plug.cable.wait(&owner("c1"), |row| row.map(|_| ())).await.expect("a deleted port is made again");
}

#[tokio::test]
async fn a_restart_writes_nothing_on_a_bridge_that_others_made() {
    let Some(ovsdb) = Ovsdb::start("external_ids:ovn-bridge-datapath-type=netdev") else { return };
    ovsdb.vsctl("--no-wait add-br br-int");
    let lab = lab_on(ovsdb).await;
    lab.pods.apply("default/web".into(), pod("u1"));
    lab.add_installed(add("c1", "/ns/a", "u1")).await;
    let Lab { ovsdb, net, plug, .. } = lab;
    let port = plug.attachments().remove(0);
    drop(plug);
    let before = ovsdb.vsctl("--bare --columns=_uuid,ports list Bridge");

    // As the daemon does it: first the chassis, then the ports, and deletes when all are wanted.
    let vswitch = Vswitch::spawn(vec![ovsdb.endpoint()], Duration::from_secs(300));
    vswitch.until(|s| s.synced).await.unwrap();
    vswitch.set_chassis(chassis());
    assert_eq!(vswitch.ports().await.unwrap(), std::slice::from_ref(&port));
    vswitch.set(PodPort::owner_of(&port.attachment), port.output());
    vswitch.ports().await.unwrap();
    vswitch.allow_deletes();
    vswitch.ports().await.unwrap();
    vswitch.remove(&Owner::new(crate::rows::SANDBOX, "nobody")).await;
    assert_eq!(vswitch.state().borrow().transactions, 0);
    assert_eq!(ovsdb.vsctl("--bare --columns=_uuid,ports list Bridge"), before);
    drop(net);
}
