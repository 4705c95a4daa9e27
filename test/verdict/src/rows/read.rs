//! Reads rows: which rules hold on which switch, and which addresses are at which port.
//!
//! Inputs: rows with the columns that are wanted. Output: [`Rows`]. A rule holds on the switches that list it, and, when a port group lists it, on each
//! that has a port in the group. Must not: judge packets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ovenbird_reconcile::WholeRow;
use ovenbird_schema::northbound::{
    acl, address_set, load_balancer_group, logical_router_port as lrp, logical_switch as ls,
    logical_switch_port as lsp, port_group,
};
use ovsdb::{Row, TableDesc, Uuid};

use super::{Action, Port, Rows, RowsError, Rule, Stage, Switch};
use crate::expression::{Constant, Expression, Format, Sets};

/// Rows by table and UUID.
struct Tables<'a>(HashMap<&'a str, BTreeMap<Uuid, Row>>);

impl Rows {
    /// Reads all rows of a Northbound.
    pub fn read(rows: &[WholeRow]) -> Result<Rows, RowsError> {
        let tables = Tables::of(rows);
        let ports_of = |switch: &Row| -> Vec<Uuid> { ls::Ref(switch).ports().collect() };
        let switches: Vec<(&Row, Vec<Uuid>)> = tables.all(&ls::TABLE).map(|(_, row)| (row, ports_of(row))).collect();
        let mut read = Rows::default();
        for (index, (_, uuids)) in switches.iter().enumerate() {
            let rows = uuids.iter().filter_map(|uuid| tables.row(&lsp::TABLE, uuid));
            read.ports.extend(rows.map(|row| tables.port(index, lsp::Ref(row))));
        }
        let sets = tables.sets()?;
        let mut rules: BTreeMap<Uuid, Arc<Rule>> = BTreeMap::new();
        for (uuid, row) in tables.all(&acl::TABLE) {
            rules.insert(*uuid, Arc::new(rule(*uuid, acl::Ref(row), &sets)?));
        }
        for (row, uuids) in switches {
            let groups = tables.all(&port_group::TABLE).map(|(_, row)| port_group::Ref(row));
            let groups = groups.filter(|group| group.ports().any(|port| uuids.contains(&port)));
            let listed: HashSet<Uuid> = ls::Ref(row).acls().chain(groups.flat_map(|group| group.acls())).collect();
            let rules: Vec<Arc<Rule>> =
                rules.iter().filter(|(u, _)| listed.contains(u)).map(|(_, r)| r.clone()).collect();
            let stateful = tables.is_balanced(ls::Ref(row)) || rules.iter().any(|rule| rule.action == Action::Allow);
            read.switches.push(Switch { name: ls::Ref(row).name().to_owned(), rules, stateful });
        }
        Ok(read)
    }
}

impl<'a> Tables<'a> {
    fn of(rows: &'a [WholeRow]) -> Tables<'a> {
        let mut tables: HashMap<&str, BTreeMap<Uuid, Row>> = HashMap::new();
        for whole in rows {
            let mut row = Row::new();
            for (column, value) in &whole.columns {
                row.set(*column, &whole.table.column(*column).ty, value.clone());
            }
            tables.entry(whole.table.name).or_default().insert(whole.uuid, row);
        }
        Tables(tables)
    }

    fn all(&self, table: &TableDesc) -> impl Iterator<Item = (&Uuid, &Row)> {
        self.0.get(table.name).into_iter().flatten()
    }

    fn row(&self, table: &TableDesc, uuid: &Uuid) -> Option<&Row> {
        self.0.get(table.name)?.get(uuid)
    }

    fn port(&self, switch: usize, port: lsp::Ref<'_>) -> Port {
        let words: Vec<&str> = port.addresses().flat_map(str::split_whitespace).collect();
        let peer = port.options().get("router-port");
        let is_peer = |router_port: &&Row| Some(lrp::Ref(router_port).name()) == peer;
        let router_mac = self.all(&lrp::TABLE).map(|(_, row)| row).find(is_peer).map(|row| lrp::Ref(row).mac());
        let mac =
            words.iter().copied().chain(router_mac).find_map(|word| number(word, Format::Mac)).unwrap_or_default();
        let is_router = port.type_() == "router";
        let addresses: Vec<IpAddr> = words.iter().filter_map(|word| word.parse().ok()).collect();
        Port { name: port.name().to_owned(), switch, mac, addresses, is_router }
    }

    /// Address sets, port groups, and the address sets that OVN makes of port groups.
    fn sets(&self) -> Result<Sets, RowsError> {
        let mut sets = Sets::default();
        let twice = |table, name: &str| RowsError::Name { table, name: name.to_owned() };
        for set in self.all(&address_set::TABLE).map(|(_, row)| address_set::Ref(row)) {
            let addresses = constants(set.name(), set.addresses())?;
            if sets.addresses.insert(set.name().to_owned(), addresses).is_some() {
                return Err(twice("Address_Set", set.name()));
            }
        }
        for group in self.all(&port_group::TABLE).map(|(_, row)| port_group::Ref(row)) {
            let ports = || group.ports().filter_map(|uuid| self.row(&lsp::TABLE, &uuid)).map(lsp::Ref);
            let names: HashSet<String> = ports().map(|port| port.name().to_owned()).collect();
            if sets.groups.insert(group.name().to_owned(), Arc::new(names)).is_some() {
                return Err(twice("Port_Group", group.name()));
            }
            for (suffix, is_v4) in [("_ip4", true), ("_ip6", false)] {
                let words = ports().flat_map(|port| port.addresses().flat_map(str::split_whitespace));
                let of_family = |word: &&str| word.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() == is_v4);
                let name = format!("{}{suffix}", group.name());
                let addresses = constants(&name, words.filter(of_family))?;
                sets.addresses.insert(name, addresses);
            }
        }
        Ok(sets)
    }

    /// A switch with load balancers tracks connections.
    fn is_balanced(&self, switch: ls::Ref<'_>) -> bool {
        let grouped = switch.load_balancer_group().filter_map(|uuid| self.row(&load_balancer_group::TABLE, &uuid));
        switch.load_balancer().next().is_some()
            || grouped.into_iter().any(|row| load_balancer_group::Ref(row).load_balancer().next().is_some())
    }
}

fn constants<'a>(set: &str, texts: impl Iterator<Item = &'a str>) -> Result<Arc<[Constant]>, RowsError> {
    let error = |problem| RowsError::Address { set: set.to_owned(), problem };
    texts.map(|text| Constant::parse(text).map_err(error)).collect()
}

fn number(text: &str, format: Format) -> Option<u64> {
    let constant = Constant::parse(text).ok().filter(|constant| constant.format == format)?;
    u64::try_from(constant.value).ok()
}

fn rule(uuid: Uuid, row: acl::Ref<'_>, sets: &Sets) -> Result<Rule, RowsError> {
    let unknown = |column, value: &str| RowsError::Value { uuid, column, value: value.to_owned() };
    let after_lb = row.options().get("apply-after-lb") == Some("true");
    let stage = match row.direction() {
        "from-lport" if after_lb => Stage::FromPortAfterLb,
        "from-lport" => Stage::FromPort,
        "to-lport" => Stage::ToPort,
        other => return Err(unknown("direction", other)),
    };
    let action = match row.action() {
        "allow" | "allow-related" => Action::Allow,
        "allow-stateless" => Action::AllowStateless,
        "drop" | "reject" => Action::Deny,
        "pass" => Action::Pass,
        other => return Err(unknown("action", other)),
    };
    let text = row.match_();
    let expression = Expression::parse(text, sets);
    let expression = expression.map_err(|source| RowsError::Match { uuid, text: text.to_owned(), source })?;
    Ok(Rule {
        uuid,
        name: row.name().map(str::to_owned),
        external_ids: row.external_ids().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        stage,
        tier: row.tier(),
        priority: row.priority(),
        action,
        expression,
    })
}
