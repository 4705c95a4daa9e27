//! A model of the host for tests: what kernel, vswitchd and nft do with a step.

use ovenbird_api::Mac;

use super::choose::{Choice, choose};
use super::host::{Host, Interface};
use super::item::{Item, Kind};
use super::journal::Uplink;
use super::plan::Step;
use crate::gateway::{Bridge, BridgePort};

/// Of every interface.
pub const MAC: Mac = Mac([2, 0, 0xac, 0x1e, 0, 0x0b]);

/// A host with a NIC `eth0`, another `eth1`, and these items: `addr ..`, `route ..`, `neigh ..`, `rule ..`.
pub fn host(lines: &[&str]) -> Host {
    let nic = |index, name: &str| Interface {
        index,
        name: name.into(),
        mac: Some(MAC),
        mtu: 1500,
        up: true,
        ..Interface::default()
    };
    Host {
        interfaces: vec![nic(2, "eth0"), nic(3, "eth1")],
        items: lines.iter().map(|line| item(line)).collect(),
        ..Host::default()
    }
}

/// An item as `ip` would be told of it.
pub fn item(line: &str) -> Item {
    let (object, words) = line.split_once(' ').unwrap();
    let all = [Kind::Address, Kind::Route, Kind::Neighbour, Kind::Rule];
    let kind = all.into_iter().find(|k| k.object() == object).unwrap();
    Item::new(kind, !words.contains("::"), words)
}

/// The take-over of `eth0`.
pub fn uplink(host: &Host) -> Uplink {
    match choose(host, "eth0").unwrap() {
        Choice::TakeOver(uplink) => uplink,
        other => panic!("{other:?}"),
    }
}

/// Applies a step as kernel, vswitchd and nft do.
pub fn apply(host: &mut Host, step: &Step) {
    match step {
        Step::Ovs(args) if args[1] == "add-br" => {
            let bridge = Bridge { ports: [(args[2].clone(), BridgePort::default())].into(), ..Bridge::default() };
            host.bridges.insert(args[2].clone(), bridge);
            let made = Interface { index: 9, name: args[2].clone(), mac: Some(MAC), mtu: 1500, ..Interface::default() };
            host.interfaces.push(made);
        }
        Step::Ovs(args) if args[1] == "add-port" => {
            host.bridges.get_mut(&args[2]).unwrap().ports.insert(args[3].clone(), BridgePort::default());
        }
        Step::Ovs(args) => {
            host.bridges.remove(&args[2]).unwrap();
            host.interfaces.retain(|i| i.name != args[2]);
            host.items.retain(|i| i.kind == Kind::Rule || !i.is_on(&args[2]));
        }
        Step::Nft(text) if text.starts_with("table") => {
            let (name, nic) = (text.split(' ').nth(2).unwrap(), text.split('"').nth(1).unwrap());
            host.silenced.push((nic.into(), name.into()));
        }
        Step::Nft(text) => host.silenced.retain(|(_, table)| !text.ends_with(&format!(" {table}"))),
        Step::Up(name) => host.interfaces.iter_mut().find(|i| i.name == *name).unwrap().up = true,
        Step::Add(item, beside) => add(host, item, *beside),
        Step::Change(item) => *host.items.iter_mut().find(|i| i.is_nearly(item)).unwrap() = item.clone(),
        Step::Delete(item) => delete(host, item),
    }
}

fn add(host: &mut Host, item: &Item, beside: bool) {
    let twin = |i: &&Item| i.kind == Kind::Route && i.v4 == item.v4 && i.subject() == item.subject();
    assert!(!host.items.contains(item), "{item} is there");
    assert!(item.kind == Kind::Rule || item.devices().all(|d| host.interface(d).unwrap().up), "{item}: down");
    if item.kind == Kind::Route {
        assert!(beside || !host.items.iter().any(|i| twin(&i)), "{item}: another route to the same is there");
        let near = |i: &&Item| item.devices().any(|d| i.is_on(d)) && i.v4 == item.v4;
        let leads = |i: &Item| i.kind == Kind::Address || i.kind == Kind::Route && i.is_direct();
        assert!(item.is_direct() || host.items.iter().filter(near).any(leads), "{item}: no way to the gateway");
    }
    let words = if item.has_dad() { format!("{} nodad", item.words) } else { item.words.clone() };
    let first = host.items.iter().position(|i| i.kind == Kind::Address && !i.v4);
    let at = first.filter(|_| item.kind == Kind::Address && !item.v4).unwrap_or(host.items.len());
    host.items.insert(at, Item { words, ..item.clone() });
}

fn delete(host: &mut Host, item: &Item) {
    let at = host.items.iter().position(|i| i == item).unwrap_or_else(|| panic!("{item} is not there"));
    host.items.remove(at);
    if item.kind != Kind::Address || !item.v4 {
        return;
    }
    let (device, (own, _)) = (item.devices().next().unwrap(), item.subject().split_once('/').unwrap());
    let net = |i: &Item| i.subject().parse::<ipnet::IpNet>().unwrap().trunc();
    let late = |i: &Item| i.kind == Kind::Address && i.v4 && i.is_on(device);
    let secondary: Vec<_> = host.items[at..].iter().filter(|i| late(i) && net(i) == net(item)).cloned().collect();
    host.items.retain(|i| !secondary.contains(i));
    let source = format!(" src {own}");
    host.items.retain(|i| !(i.kind == Kind::Route && format!("{} ", i.words).contains(&format!("{source} "))));
    if !host.items.iter().any(late) {
        host.items.retain(|i| !(i.kind == Kind::Route && i.v4 && i.is_on(device)));
    }
}
