//! The interpreter on rows written by hand: stages, tiers, priorities, groups, ways through switches.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::net::IpAddr;

use ovenbird_reconcile::WholeRow;
use ovenbird_schema::northbound::acl::{self, Action, Direction};
use ovenbird_schema::northbound::{
    address_set, logical_router_port as lrp, logical_switch as ls, logical_switch_port as lsp, port_group,
};
use ovenbird_verdict::rows::RowsError;
use ovenbird_verdict::{Packet, Protocol, Rows};
use ovsdb::{ColumnId, Datum, TableDesc, Uuid};

/// A Northbound under construction: switches n1 (a .3, b .4) and n2 (c), both with a router port.
struct World {
    rows: Vec<WholeRow>,
    /// ACLs of the group `pg`, whose members are `a` and `c`.
    of_group: Vec<Uuid>,
    /// ACLs of the switch n1.
    of_switch: Vec<Uuid>,
}

const UUIDS: &str = "00000000-0000-4000-8000-0000000000";

fn uuid(number: usize) -> Uuid {
    format!("{UUIDS}{number:02}").parse().unwrap()
}

fn row(table: &'static TableDesc, number: usize, columns: Vec<(ColumnId, Datum)>) -> WholeRow {
    WholeRow { table, uuid: uuid(number), columns }
}

fn address(name: &str) -> IpAddr {
    let text = match name {
        "a" => "10.0.1.3",
        "a6" => "fd00:1::3",
        "b" => "10.0.1.4",
        "b6" => "fd00:1::4",
        "c" => "10.0.2.3",
        "c6" => "fd00:2::3",
        "out" => "192.0.2.1",
        "hairpin" => "169.254.169.5",
        other => panic!("{other}"),
    };
    text.parse().unwrap()
}

impl World {
    fn new() -> World {
        let mut rows = Vec::new();
        for (number, name, addresses) in [
            (1, "a", "0a:58:0a:00:01:03 10.0.1.3 fd00:1::3"),
            (2, "b", "0a:58:0a:00:01:04 10.0.1.4 fd00:1::4"),
            (3, "c", "0a:58:0a:00:02:03 10.0.2.3 fd00:2::3"),
        ] {
            rows.push(row(&lsp::TABLE, number, vec![lsp::name(name), lsp::addresses([addresses])]));
        }
        for (number, name, peer) in [(4, "stor-n1", "rtos-n1"), (5, "stor-n2", "rtos-n2")] {
            let columns = vec![lsp::name(name), lsp::type_("router"), lsp::addresses(["router"])];
            let options = lsp::options([("router-port", peer)]);
            rows.push(row(&lsp::TABLE, number, columns.into_iter().chain([options]).collect()));
        }
        for (number, name, mac) in [(6, "rtos-n1", "0a:58:0a:00:01:01"), (7, "rtos-n2", "0a:58:0a:00:02:01")] {
            rows.push(row(&lrp::TABLE, number, vec![lrp::name(name), lrp::mac(mac)]));
        }
        let set = vec![address_set::name("as"), address_set::addresses(["10.0.1.3", "192.0.2.0/24"])];
        rows.push(row(&address_set::TABLE, 8, set));
        World { rows, of_group: Vec::new(), of_switch: Vec::new() }
    }

    /// An ACL of the group, written `from|after|to TIER PRIORITY ACTION MATCH`.
    fn group(mut self, text: &str) -> World {
        let uuid = self.acl(text);
        self.of_group.push(uuid);
        self
    }

    /// The same of the switch n1.
    fn switch(mut self, text: &str) -> World {
        let uuid = self.acl(text);
        self.of_switch.push(uuid);
        self
    }

    fn acl(&mut self, text: &str) -> Uuid {
        let [stage, tier, priority, action, match_] = text.splitn(5, ' ').collect::<Vec<_>>()[..] else { panic!() };
        let action = match action {
            "allow" => Action::AllowRelated,
            "stateless" => Action::AllowStateless,
            "drop" => Action::Drop,
            "reject" => Action::Reject,
            "pass" => Action::Pass,
            other => panic!("{other}"),
        };
        let direction = if stage == "to" { Direction::ToLport } else { Direction::FromLport };
        let after = (stage == "after").then_some(("apply-after-lb", "true"));
        let number = 20 + self.of_group.len() + self.of_switch.len();
        let name = format!("{number}");
        self.rows.push(row(
            &acl::TABLE,
            number,
            vec![
                acl::action(action),
                acl::direction(direction),
                acl::match_(match_),
                acl::name(Some(name)),
                acl::options(after),
                acl::priority(priority.parse().unwrap()),
                acl::tier(tier.parse().unwrap()),
            ],
        ));
        uuid(number)
    }

    fn read(mut self) -> Result<Rows, RowsError> {
        let ports = |numbers: &[usize]| ls::ports(numbers.iter().map(|n| uuid(*n)));
        let n1 = vec![ls::name("n1"), ports(&[1, 2, 4]), ls::acls(self.of_switch)];
        self.rows.push(row(&ls::TABLE, 10, n1));
        self.rows.push(row(&ls::TABLE, 11, vec![ls::name("n2"), ports(&[3, 5])]));
        let members = [1, 3].map(uuid);
        let group = vec![port_group::name("pg"), port_group::ports(members), port_group::acls(self.of_group)];
        self.rows.push(row(&port_group::TABLE, 12, group));
        Rows::read(&self.rows)
    }

    /// For each `FROM > TO PROTOCOL[/PORT]`, whether it arrives and the ACLs that decided, by name.
    fn is(self, cases: &[(&str, &str)]) {
        let rows = self.read().unwrap();
        for (text, expected) in cases {
            let [from, ">", to, what] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            let (protocol, port) = what.split_once('/').unwrap_or((what, "0"));
            let (source, destination) = (address(from), address(to));
            let outcome = if protocol == "MAC" {
                rows.resolve(source, destination)
            } else {
                let protocol = Protocol::from_kubernetes(protocol).unwrap_or(Protocol::Icmp);
                rows.judge(&Packet { source, destination, protocol, source_port: 40000, port: port.parse().unwrap() })
            };
            let found = match outcome {
                Ok(outcome) => {
                    let steps: String = outcome
                        .steps
                        .iter()
                        .map(|s| format!(" {}:{}", s.switch, s.rule.name.as_ref().unwrap()))
                        .collect();
                    format!("{}{steps}", if outcome.allowed { "yes" } else { "no" })
                }
                Err(_) => "undefined".to_owned(),
            };
            assert_eq!(found, *expected, "{text}");
        }
    }
}

#[test]
fn without_rules_all_is_allowed() {
    World::new().is(&[("a > b TCP/80", "yes"), ("a > c TCP/80", "yes"), ("out > a ICMP", "yes")]);
}

#[test]
fn a_group_holds_on_every_switch_that_has_a_member() {
    World::new()
        .group("to 0 1000 drop outport == @pg")
        .group("to 0 1001 allow outport == @pg && ip4.src == $as && tcp && tcp.dst == 80")
        .is(&[
            ("a > c TCP/80", "yes n2:21"),
            ("b > c TCP/80", "no n2:20"),
            ("b > a TCP/80", "no n1:20"),
            ("out > c TCP/80", "yes n2:21"),
            ("out > c TCP/81", "no n2:20"),
            ("out > c ICMP", "no n2:20"),
            ("c > b TCP/81", "yes"),
            ("a6 > c6 TCP/80", "no n2:20"),
            // Not the hairpin's address.
            ("a > a TCP/80", "no n1:20"),
        ]);
}

#[test]
fn a_switch_s_rules_see_what_comes_from_and_goes_to_the_router() {
    World::new().switch("to 0 5 drop ip4 && udp").switch("from 0 5 drop ip4 && sctp").is(&[
        ("a > b UDP/1", "no n1:20"),
        ("a > c UDP/1", "no n1:20"),
        ("c > a UDP/1", "no n1:20"),
        ("out > a SCTP/1", "no n1:21"),
        ("out > c SCTP/1", "yes"),
    ]);
}

#[test]
fn each_stage_decides_for_itself() {
    World::new()
        .group("from 0 9 allow inport == @pg && tcp")
        .group("after 0 9 drop inport == @pg && tcp.dst == 81")
        .group("from 0 8 drop inport == @pg")
        .is(&[
            ("a > b TCP/80", "yes n1:20"),
            ("a > b TCP/81", "no n1:20 n1:21"),
            ("a > c UDP/80", "no n1:22"),
            ("b > a UDP/80", "yes"),
        ]);
    // The way out of a switch is not known in the ingress pipeline.
    World::new().switch("from 0 9 drop outport == @pg").is(&[("b > a TCP/1", "yes")]);
}

#[test]
fn tiers_are_asked_in_order_and_pass_goes_on() {
    World::new()
        .group("to 1 10 pass outport == @pg && tcp.dst == 80")
        .group("to 1 9 drop outport == @pg && tcp")
        .group("to 2 1000 allow outport == @pg && tcp.dst == {80, 81, 82}")
        .group("to 3 1 reject outport == @pg && ip")
        .group("to 0 1 allow outport == @pg && tcp.dst == 82")
        .is(&[
            ("b > a TCP/80", "yes n1:22"),
            ("b > a TCP/81", "no n1:21"),
            ("b > a TCP/82", "yes n1:24"),
            ("b > a UDP/1", "no n1:23"),
        ]);
    // After the last tier the default holds.
    World::new().group("to 3 9 pass outport == @pg").group("to 3 8 drop outport == @pg").is(&[("b > a TCP/1", "yes")]);
}

#[test]
fn a_rule_s_rival_of_equal_priority_is_reported() {
    World::new()
        .group("to 0 9 drop outport == @pg")
        .group("to 0 9 allow outport == @pg && tcp")
        .is(&[("b > a TCP/1", "undefined"), ("b > a UDP/1", "no n1:20")]);
    // Two that want the same are no rivals.
    World::new().group("to 0 9 drop tcp").group("to 0 9 reject tcp.dst == 1").is(&[("b > a TCP/1", "no n1:20")]);
}

#[test]
fn a_pod_that_meets_itself_comes_back_under_another_address() {
    World::new()
        .group("to 0 1000 drop outport == @pg")
        .group("to 0 1001 allow outport == @pg && ip4.src == 169.254.169.5")
        .group("after 0 1000 drop inport == @pg && tcp")
        .group("from 0 1000 drop inport == @pg && udp")
        .is(&[
            // It turns round before the stage after load balancing.
            ("a > a TCP/80", "yes n1:21"),
            ("a > b TCP/80", "no n1:22"),
            ("a > a UDP/80", "no n1:23"),
            ("hairpin > a TCP/80", "yes n1:21"),
        ]);
}

#[test]
fn the_way_to_a_mac_can_be_barred() {
    World::new().group("from 0 9 drop inport == @pg").is(&[
        ("a > b MAC", "no n1:20"),
        ("a6 > b6 MAC", "no n1:20"),
        ("b > a MAC", "yes"),
    ]);
    // Where connections are tracked, OVN lets neighbour discovery pass, but for the stage after load balancing.
    World::new()
        .group("from 0 9 drop inport == @pg")
        .group("from 0 10 allow inport == @pg && tcp")
        .is(&[("a > b MAC", "no n1:20"), ("a6 > b6 MAC", "yes")]);
    World::new()
        .group("after 0 9 drop inport == @pg")
        .group("from 0 10 allow inport == @pg && tcp")
        .is(&[("a6 > b6 MAC", "no n1:20")]);
    World::new()
        .group("after 0 9 drop inport == @pg")
        .group("after 0 10 allow inport == @pg && (arp || nd)")
        .is(&[("a > b MAC", "yes n1:21"), ("a6 > b6 MAC", "yes n1:21")]);
}

#[test]
fn sets_that_ovn_makes_of_groups_are_there() {
    World::new().switch("to 0 9 drop ip4.src == $pg_ip4 || ip6.src == $pg_ip6").is(&[
        ("a > b TCP/1", "no n1:20"),
        ("a6 > b6 TCP/1", "no n1:20"),
        ("c > b TCP/1", "no n1:20"),
        ("b > a TCP/1", "yes"),
    ]);
}

#[test]
fn macs_are_those_of_the_ports() {
    World::new().switch("from 0 9 drop eth.src == 0a:58:0a:00:01:03 && eth.dst == 0a:58:0a:00:01:01").is(&[
        ("a > c TCP/1", "no n1:20"),
        ("a > b TCP/1", "yes"),
        ("b > c TCP/1", "yes"),
    ]);
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_it() {
    let error = World::new().group("to 0 9 drop ip4.src == $nobody").read().unwrap_err();
    assert_eq!(error.to_string(), format!("ACL {UUIDS}20: match \"ip4.src == $nobody\""));
    let mut world = World::new();
    world.rows.push(row(
        &address_set::TABLE,
        9,
        vec![address_set::name("bad"), address_set::addresses(["10.0.0.1/8"])],
    ));
    assert_eq!(world.read().unwrap_err().to_string(), "Address_Set bad: 10.0.0.1/8 has bits outside its mask");
    let mut world = World::new();
    world.rows.push(row(&address_set::TABLE, 9, vec![address_set::name("as")]));
    assert_eq!(world.read().unwrap_err().to_string(), "Address_Set as: two rows have this name");
}
