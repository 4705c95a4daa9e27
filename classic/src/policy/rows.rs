//! What rows say, indexed for a node: ACLs by the group that they begin with, members of Address_Sets, and the groups of the node's own ports.
//!
//! ```text
//! Output of an owner --[set]--> Part (what it added, to be taken back) --> Rows
//! ```
//!
//! Must not: know policies, or nftables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovenbird_api::Mac;
use ovenbird_reconcile::{Contribution, DesiredRow, Output, Owner, Want};
use ovenbird_schema::northbound::{acl, address_set, logical_switch_port as lsp, port_group};
use ovsdb::{ColumnId, Datum, Str, Uuid};
use rustc_hash::FxHashMap;

use super::expression::{self, All, Unreadable};

/// See the file header.
#[derive(Debug, Default)]
pub(super) struct Rows {
    parts: FxHashMap<Owner, Part>,
    /// Names of Port_Groups.
    groups: FxHashMap<Uuid, Str>,
    /// Address_Sets by name.
    sets: FxHashMap<Str, (Uuid, Contents)>,
    /// Members of sets that owners have added, each with how many did.
    members: FxHashMap<Uuid, BTreeMap<Str, usize>>,
    acls: FxHashMap<Uuid, Acl>,
    /// ACLs by the name of the group that they begin with.
    by_group: FxHashMap<Str, BTreeSet<Uuid>>,
    /// Own pods by `namespace/name`.
    ports: BTreeMap<Str, Port>,
}

/// What is in an Address_Set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// These networks and addresses.
    Fixed(Vec<Str>),
    /// What owners add: addresses.
    Members,
}

/// An ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    /// What goes into pods; otherwise what comes out of them.
    pub ingress: bool,
    /// The highest is asked first.
    pub priority: i64,
    /// It lets through; otherwise it drops.
    pub allows: bool,
    /// `match`.
    pub alternatives: Vec<All>,
    /// Column `match`, by which ACLs of equal priority are in order.
    pub text: Str,
    /// Name and severity, if it is logged.
    pub log: Option<(Str, Str)>,
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Port {
    /// UID of the pod.
    pub uid: Str,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// MAC.
    pub mac: Option<Mac>,
    /// Port_Groups.
    groups: Vec<Uuid>,
}

/// What an owner's output has added.
#[derive(Debug, Default, PartialEq)]
struct Part {
    groups: Vec<(Uuid, Str)>,
    sets: Vec<(Str, Uuid, Contents)>,
    members: Vec<(Uuid, Str)>,
    acls: Vec<(Uuid, Acl)>,
    unreadable: Vec<Unreadable>,
    port: Option<Port>,
}

impl Rows {
    /// Replaces what an owner wants. Returns false when nothing has changed.
    pub fn set(&mut self, node: &str, owner: &Owner, output: &Output) -> bool {
        let part = Part::of(node, output);
        let before = self.parts.get(owner);
        if before == Some(&part) || (before.is_none() && part == Part::default()) {
            return false;
        }
        if let Some(before) = self.parts.remove(owner) {
            self.take_back(owner, before);
        }
        if part != Part::default() {
            self.add(owner, &part);
            self.parts.insert(owner.clone(), part);
        }
        true
    }

    /// ACLs that cannot be said here: what they would let through is dropped, and what they would drop is not.
    pub fn unreadable(&self) -> impl Iterator<Item = &Unreadable> {
        self.parts.values().flat_map(|part| &part.unreadable)
    }

    /// The pods of this node, by `namespace/name`.
    pub fn ports(&self) -> &BTreeMap<Str, Port> {
        &self.ports
    }

    /// Names of the groups of a port.
    pub fn groups_of<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = &'a str> {
        port.groups.iter().filter_map(|group| self.groups.get(group).map(|name| &**name))
    }

    /// ACLs that begin with a group.
    pub fn acls_of(&self, group: &str) -> impl Iterator<Item = &Acl> {
        self.by_group.get(group).into_iter().flatten().filter_map(|acl| self.acls.get(acl))
    }

    /// What is in a set, and whether networks are: `None` when there is no such set.
    pub fn set_of(&self, name: &str) -> Option<(bool, Vec<&Str>)> {
        let (uuid, contents) = self.sets.get(name)?;
        Some(match contents {
            Contents::Fixed(listed) => (true, listed.iter().collect()),
            Contents::Members => (false, self.members.get(uuid).into_iter().flat_map(BTreeMap::keys).collect()),
        })
    }

    fn add(&mut self, owner: &Owner, part: &Part) {
        self.groups.extend(part.groups.iter().cloned());
        for (name, uuid, contents) in &part.sets {
            self.sets.insert(name.clone(), (*uuid, contents.clone()));
        }
        for (set, member) in &part.members {
            *self.members.entry(*set).or_default().entry(member.clone()).or_default() += 1;
        }
        for (uuid, acl) in &part.acls {
            if let Some(group) = acl.group() {
                self.by_group.entry(group.into()).or_default().insert(*uuid);
            }
            self.acls.insert(*uuid, acl.clone());
        }
        if let Some(port) = &part.port {
            self.ports.insert(owner.key.clone(), port.clone());
        }
    }

    fn take_back(&mut self, owner: &Owner, part: Part) {
        for (uuid, _) in part.groups {
            self.groups.remove(&uuid);
        }
        for (name, ..) in part.sets {
            self.sets.remove(&name);
        }
        for (set, member) in part.members {
            let Some(members) = self.members.get_mut(&set) else { continue };
            match members.get_mut(&member) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(members.remove(&member)),
            }
            if members.is_empty() {
                self.members.remove(&set);
            }
        }
        for (uuid, acl) in part.acls {
            self.acls.remove(&uuid);
            let Some(group) = acl.group() else { continue };
            if let Some(acls) = self.by_group.get_mut(group) {
                acls.remove(&uuid);
                if acls.is_empty() {
                    self.by_group.remove(group);
                }
            }
        }
        if part.port.is_some() {
            self.ports.remove(&owner.key);
        }
    }
}

impl Acl {
    /// The group of the pods that the ACL is about: all alternatives begin with it.
    fn group(&self) -> Option<&str> {
        self.alternatives.first()?.groups.first().map(String::as_str)
    }

    fn of(row: &DesiredRow) -> Option<Result<Acl, Unreadable>> {
        let text = first(row, acl::MATCH)?;
        let alternatives = match expression::parse(text) {
            Ok(alternatives) => alternatives,
            Err(unreadable) => return Some(Err(unreadable)),
        };
        let logged = exactly(row, acl::LOG).and_then(|value| value.atoms().first()) == Some(&true.into());
        let log = Some((first(row, acl::NAME)?.clone(), first(row, acl::SEVERITY)));
        Some(Ok(Acl {
            ingress: &**first(row, acl::DIRECTION)? == "to-lport",
            priority: exactly(row, acl::PRIORITY)?.atoms().first()?.as_integer()?,
            allows: first(row, acl::ACTION)?.starts_with("allow"),
            alternatives,
            text: text.clone(),
            log: log.filter(|_| logged).and_then(|(name, severity)| Some((name, severity?.clone()))),
        }))
    }
}

impl Port {
    /// A row of a pod's port on this node.
    fn of(node: &str, row: &DesiredRow) -> Option<Port> {
        let option = |key| options(row)?.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        if option("requested-chassis").map(|chassis| &**chassis) != Some(node) {
            return None;
        }
        let words = first(row, lsp::ADDRESSES)?;
        Some(Port {
            uid: option("iface-id-ver").cloned().unwrap_or_default(),
            addresses: words.split(' ').filter_map(|word| word.parse().ok()).collect(),
            mac: words.split(' ').find_map(|word| word.parse().ok()),
            groups: Vec::new(),
        })
    }
}

impl Part {
    fn of(node: &str, output: &Output) -> Part {
        let mut part = Part::default();
        for row in &output.rows {
            let uuid = row.id.uuid();
            match row.table.name {
                name if name == port_group::TABLE.name => {
                    part.groups.extend(first(row, port_group::NAME).map(|name| (uuid, name.clone())));
                }
                name if name == address_set::TABLE.name => {
                    let fixed = |value: &Datum| value.atoms().iter().filter_map(text).cloned().collect();
                    let contents =
                        exactly(row, address_set::ADDRESSES).map_or(Contents::Members, |v| Contents::Fixed(fixed(v)));
                    part.sets.extend(first(row, address_set::NAME).map(|name| (name.clone(), uuid, contents)));
                }
                name if name == acl::TABLE.name => match Acl::of(row) {
                    Some(Ok(acl)) => part.acls.push((uuid, acl)),
                    Some(Err(unreadable)) => part.unreadable.push(unreadable),
                    None => {}
                },
                name if name == lsp::TABLE.name => part.port = part.port.or(Port::of(node, row)),
                _ => {}
            }
        }
        for Contribution { table, row, column, member, .. } in &output.contributions {
            if table.name == address_set::TABLE.name && *column == address_set::ADDRESSES {
                part.members.extend(text(member).map(|member| (row.uuid(), member.clone())));
            } else if table.name == port_group::TABLE.name && *column == port_group::PORTS {
                part.port.iter_mut().for_each(|port| port.groups.push(row.uuid()));
            }
        }
        part
    }
}

fn exactly(row: &DesiredRow, column: ColumnId) -> Option<&Datum> {
    row.columns.iter().find_map(|(found, want)| match want {
        Want::Exactly(value) if *found == column => Some(value),
        _ => None,
    })
}

fn options(row: &DesiredRow) -> Option<Vec<(&str, &Str)>> {
    row.columns.iter().find_map(|(found, want)| match want {
        Want::Keys(pairs) if *found == lsp::OPTIONS => {
            Some(pairs.iter().filter_map(|(key, value)| Some((key.as_str()?, text(value.as_ref()?)?))).collect())
        }
        _ => None,
    })
}

fn first(row: &DesiredRow, column: ColumnId) -> Option<&Str> {
    exactly(row, column)?.atoms().first().and_then(text)
}

fn text(atom: &ovsdb::Atom) -> Option<&Str> {
    match atom {
        ovsdb::Atom::String(text) => Some(text),
        _ => None,
    }
}
