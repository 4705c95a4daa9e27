//! ACLs: one row each, on the group that its expression names (ovn-nb(5), table ACL).
//!
//! Must not: know which policy a row is for.

use ovenbird_api::LogSeverity;
use ovenbird_reconcile::{DesiredRow, Output, Owner};
use ovenbird_schema::northbound::acl::{self, Action};
use ovenbird_schema::northbound::port_group;
use ovsdb::Atom;

use crate::build::{RowBuilder, contribution};
use crate::view::View;

use super::expression::Side;
use super::groups::Group;

/// Tier of what no policy may stop.
pub(super) const TIER_ALWAYS: i64 = 0;
/// Tier of admin policies before NetworkPolicies.
pub(super) const TIER_ADMIN: i64 = 1;
/// Tier of admin policies after them.
pub(super) const TIER_BASELINE: i64 = 3;
/// Tier of NetworkPolicy.
pub(super) const TIER_POLICY: i64 = 2;
/// Longest `name` of an ACL.
const LONGEST_NAME: usize = 63;
/// The meter that limits logging.
pub(super) const METER: &str = "acl-logging";

/// A direction, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gress {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// An ACL.
pub(super) struct Acl {
    /// `name`; cut to what OVN takes.
    pub name: String,
    /// `direction`.
    pub gress: Gress,
    /// `priority`.
    pub priority: i64,
    /// `tier`, where the schema has it.
    pub tier: i64,
    /// `action`.
    pub action: Action,
    /// `match`.
    pub text: String,
    /// `severity`; `None` is not logged.
    pub log: Option<LogSeverity>,
}

impl Gress {
    /// Both.
    pub const ALL: [Gress; 2] = [Gress::Ingress, Gress::Egress];

    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Gress::Ingress => "Ingress",
            Gress::Egress => "Egress",
        }
    }

    /// The packet is at a port of this group.
    pub fn at(self, group: &str) -> String {
        match self {
            Gress::Ingress => format!("outport == @{group}"),
            Gress::Egress => format!("inport == @{group}"),
        }
    }

    /// Which address is the other end's.
    pub const fn other_end(self) -> Side {
        match self {
            Gress::Ingress => Side::Source,
            Gress::Egress => Side::Destination,
        }
    }
}

impl Acl {
    /// Adds the row, with its membership in `group`; `extra` are further external_ids, whose values tell it apart from others.
    pub fn add(
        self,
        view: &View<'_>,
        owner: &Owner,
        role: &str,
        extra: &[(&str, &str)],
        group: &Group,
        output: &mut Output,
    ) {
        let row = self.row(view, owner, role, extra);
        output.contributions.push(contribution(&port_group::TABLE, group.id, port_group::ACLS, row.id.uuid()));
        output.rows.push(row);
    }

    /// The row alone.
    pub fn row(mut self, view: &View<'_>, owner: &Owner, role: &str, extra: &[(&str, &str)]) -> DesiredRow {
        if let Some((end, _)) = self.name.char_indices().nth(LONGEST_NAME) {
            self.name.truncate(end);
        }
        let keys: Vec<&str> = extra.iter().map(|(_, value)| *value).collect();
        let extra: Vec<(&str, Atom)> =
            extra.iter().map(|(key, value)| (*key, Atom::String(view.text(value)))).collect();
        let (direction, after_lb) = match self.gress {
            Gress::Ingress => (acl::Direction::ToLport, None),
            Gress::Egress => (acl::Direction::FromLport, Some(Atom::String(view.text("true")))),
        };
        let severity = self.log.map(|severity| match severity {
            LogSeverity::Alert => acl::Severity::Alert,
            LogSeverity::Warning => acl::Severity::Warning,
            LogSeverity::Notice => acl::Severity::Notice,
            LogSeverity::Info => acl::Severity::Info,
            LogSeverity::Debug => acl::Severity::Debug,
        });
        RowBuilder::keyed(view, &acl::TABLE, owner, role, &keys, acl::EXTERNAL_IDS, &extra)
            .exactly(acl::name(Some(self.name)))
            .exactly(acl::direction(direction))
            .exactly(acl::priority(self.priority))
            .exactly(acl::tier(self.tier))
            .exactly(acl::match_(self.text))
            .exactly(acl::action(self.action))
            .exactly(acl::log(self.log.is_some()))
            .exactly(acl::severity(severity))
            .exactly(acl::meter(Some(view.text(METER))))
            .keys(acl::OPTIONS, [("apply-after-lb", after_lb)])
            .build()
    }
}
