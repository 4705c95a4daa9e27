//! Groups of ports and sets of addresses, and who is in them.
//!
//! Must not: write ACLs but the default of what is isolated.

use ovenbird_api::Protocol;
use ovenbird_api::annotation::ACL_LOGGING;
use ovenbird_reconcile::{DesiredRow, Output, Owner, Severity};
use ovenbird_schema::northbound::acl::Action;
use ovenbird_schema::northbound::{address_set as set, port_group as pg};
use ovsdb::{Str, TableDesc, Uuid};

use super::acl::{Acl, Gress, TIER_POLICY};
use super::{ALLOW, port_use};
use crate::build::{self, RowBuilder, contribution, text_member};
use crate::facts::PodFact;
use crate::node::check;
use crate::selection::{Selected, Selection, Use};
use crate::view::View;
use crate::{kinds, pod};

/// Longest readable part of a name; with a hash and what tells it from others, names stay within the 63 characters of OVS.
const LONGEST_PREFIX: usize = 40;

/// Role of a node's group.
pub(super) const NODE_ROLE: &str = "pods-on-networks";

/// A group of ports, as others refer to it.
pub(super) struct Group {
    /// The row.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

impl Group {
    /// The pods of a selection.
    pub fn of(selection: &Selection) -> Group {
        let key = selection.to_string();
        let id = build::id(&pg::TABLE, &owner_of(&key), "");
        Group { name: name(&key, id), id }
    }

    /// Those of them to which a port name means a number.
    pub fn of_port(selection: &Selection, protocol: Protocol, port: &str, number: u16) -> Group {
        let key = selection.to_string();
        let role = port_role(protocol, port, number);
        let id = build::id(&pg::TABLE, &owner_of(&key), &role);
        Group { name: name(&format!("{role}_{key}"), id), id }
    }

    /// The pods of a node that are on Networks.
    pub fn of_node(node: &str) -> Group {
        let id = build::id(&pg::TABLE, &Owner::new(kinds::NODE, node), NODE_ROLE);
        Group { name: name(&format!("node_{node}"), id), id }
    }

    /// The pods of a namespace that some policy isolates.
    pub fn isolated(namespace: &str, gress: Gress) -> Group {
        let id = isolated_row(namespace, gress);
        let direction = match gress {
            Gress::Ingress => "ingress",
            Gress::Egress => "egress",
        };
        Group { name: name(&format!("{direction}DefaultDeny_{namespace}"), id), id }
    }
}

fn isolated_row(namespace: &str, gress: Gress) -> Uuid {
    build::id(&pg::TABLE, &Owner::new(kinds::NETPOL_NAMESPACE, namespace), gress.as_str())
}

/// A group or set of a selection without its name, which members do not need.
fn row_of(table: &TableDesc, selected: &Selected, role: &str) -> Uuid {
    build::id(table, &Owner::new(kinds::POD_SELECTOR, selected.key.clone()), role)
}

/// The addresses of a selection's pods, of one family.
pub(super) fn address_set(selection: &Selection, v4: bool) -> String {
    set_name(selection, family(v4))
}

/// Those of pods to which a port name means a number.
pub(super) fn port_set(selection: &Selection, protocol: Protocol, port: &str, number: u16, v4: bool) -> String {
    set_name(selection, &port_set_role(protocol, port, number, v4))
}

fn port_set_role(protocol: Protocol, port: &str, number: u16, v4: bool) -> String {
    format!("{}_{}", port_role(protocol, port, number), family(v4))
}

/// Name of a set of addresses of a selection.
fn set_name(selection: &Selection, role: &str) -> String {
    let key = selection.to_string();
    name(&format!("{role}_{key}"), build::id(&set::TABLE, &owner_of(&key), role))
}

/// The name of a group or set: a readable beginning, and part of the row's UUID, so that no two are the same.
pub(super) fn name(readable: &str, id: Uuid) -> String {
    let readable = readable.replace('*', "_all_");
    let words = readable.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut prefix: String = words.collect::<Vec<_>>().join("_");
    prefix.truncate(LONGEST_PREFIX);
    let start = if prefix.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    let hash: String = id.as_bytes()[..10].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{start}{prefix}_{hash}")
}

/// The rows of a selection in use.
pub(crate) fn translate_selection(view: &View<'_>, owner: &Owner) -> Output {
    let Some(selected) = view.own_selection(owner) else { return Output::default() };
    let selection = &selected.selection;
    let mut output = Output::default();
    if is_target(selected) {
        output.rows.push(group_row(view, owner, "", &[], &Group::of(selection)));
    }
    if selected.is_used(&Use::Peer) {
        for v4 in view.config().families() {
            output.rows.push(set_row(view, owner, family(v4), selection));
        }
    }
    for port in selected.uses() {
        let Some((protocol, name)) = port_use(port) else { continue };
        for number in selected.numbers(protocol, name) {
            let role = port_role(protocol, name, number);
            if matches!(port, Use::TargetPort(..)) {
                let group = Group::of_port(selection, protocol, name, number);
                output.rows.push(group_row(view, owner, &role, &[&role], &group));
                continue;
            }
            for v4 in view.config().families() {
                let role = port_set_role(protocol, name, number, v4);
                output.rows.push(set_row(view, owner, &role, selection));
            }
        }
    }
    output
}

/// What the policies of a namespace share: the default of the pods that they isolate.
pub(crate) fn translate_namespace(view: &View<'_>, owner: &Owner) -> Output {
    let mut output = Output::default();
    if !view.has_policies(owner) {
        return output;
    }
    let namespace = &owner.key;
    let logging = check(view.acl_logging(namespace), ACL_LOGGING, Severity::Warning, &mut output.diagnostics);
    for gress in Gress::ALL {
        let group = Group::isolated(namespace, gress);
        let direction = gress.as_str();
        output.rows.push(group_row(view, owner, direction, &[direction], &group));
        let acl = Acl {
            name: format!("NP:{namespace}:{direction}"),
            gress,
            priority: ALLOW - 1,
            tier: TIER_POLICY,
            action: Action::Drop,
            text: gress.at(&group.name),
            log: logging.and_then(|logging| logging.deny),
        };
        let extra = [("direction", direction), ("type", "defaultDeny")];
        acl.add(view, owner, direction, &extra, &group, &mut output);
    }
    output
}

/// A pod's addresses in the sets of the selections that it is in.
pub(crate) fn translate_peer(view: &View<'_>, owner: &Owner) -> Output {
    let mut output = Output::default();
    let Some(pod) = view.own_pod(owner) else { return output };
    let Ok(Some(pod::Place { addresses, .. })) = pod::place(view, pod) else { return output };
    let selections = view.selections_of(owner);
    for ip in addresses.iter() {
        let text = Str::from(ip.to_string());
        for selected in &selections {
            let v4 = ip.is_ipv4();
            let mut add = |role: &str| {
                let row = row_of(&set::TABLE, selected, role);
                output.contributions.push(text_member(&set::TABLE, row, set::ADDRESSES, text.clone()));
            };
            for port in selected.uses() {
                match port {
                    Use::Peer => add(family(v4)),
                    Use::PeerPort(protocol, name) => {
                        if let Some(number) = pod.number(*protocol, name) {
                            add(&port_set_role(*protocol, name, number, v4));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    output
}

/// Adds a pod's port to the groups of the selections that it is in, and to those that are isolated.
pub(crate) fn add_to_pod(view: &View<'_>, owner: &Owner, pod: &PodFact, port: Uuid, output: &mut Output) {
    let mut isolated = [false; 2];
    let mut add = |group: Uuid| output.contributions.push(contribution(&pg::TABLE, group, pg::PORTS, port));
    for selected in view.selections_of(owner).into_iter().filter(|selected| is_target(selected)) {
        add(row_of(&pg::TABLE, selected, ""));
        for used in selected.uses() {
            match used {
                Use::Ingress => isolated[0] = true,
                Use::Egress => isolated[1] = true,
                Use::TargetPort(protocol, name) => {
                    if let Some(number) = pod.number(*protocol, name) {
                        add(row_of(&pg::TABLE, selected, &port_role(*protocol, name, number)));
                    }
                }
                _ => {}
            }
        }
    }
    for (gress, _) in Gress::ALL.into_iter().zip(isolated).filter(|(_, isolated)| *isolated) {
        add(isolated_row(pod.namespace(), gress));
    }
}

fn is_target(selected: &Selected) -> bool {
    [Use::Ingress, Use::Egress, Use::Subject].iter().any(|what| selected.is_used(what))
}

fn group_row(view: &View<'_>, owner: &Owner, role: &str, keys: &[&str], group: &Group) -> DesiredRow {
    RowBuilder::keyed(view, &pg::TABLE, owner, role, keys, pg::EXTERNAL_IDS, &[])
        .exactly(pg::name(&*group.name))
        .members(pg::ACLS)
        .members(pg::PORTS)
        .build()
}

fn set_row(view: &View<'_>, owner: &Owner, role: &str, selection: &Selection) -> DesiredRow {
    RowBuilder::keyed(view, &set::TABLE, owner, role, &[role], set::EXTERNAL_IDS, &[])
        .exactly(set::name(set_name(selection, role)))
        .members(set::ADDRESSES)
        .build()
}

fn owner_of(key: &str) -> Owner {
    Owner::new(kinds::POD_SELECTOR, Str::from(key))
}

fn port_role(protocol: Protocol, name: &str, number: u16) -> String {
    format!("{}_{name}_{number}", protocol.name())
}

pub(super) fn family(v4: bool) -> &'static str {
    if v4 { "v4" } else { "v6" }
}
