//! loadBalancerSourceRanges: who may use a Service's load balancer addresses from outside.
//!
//! ```text
//! wire - localnet port (of a group that all nodes share) -[allow the ranges, drop others]- GR_N, which balances
//! ```
//!
//! Two rows of ACL for each protocol and family, however many nodes there are. Cluster IPs, external IPs and node ports are not
//! concerned; pods are not outside. Must not: make an external switch stateful (no `allow-related`), for conntrack there is the router's.

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_reconcile::{Output, Owner};
use ovenbird_schema::northbound::{acl, port_group};

use crate::build::{RowBuilder, contribution};
use crate::cluster::{self, OUTSIDE_PORTS};
use crate::config::is_v4;
use crate::facts::ServiceFact;
use crate::view::View;

use super::endpoints::Port;

/// Priority of those that are let in; others are dropped one below.
const ALLOW: i64 = 1001;

/// Adds the rows of a protocol, whose ports these are. A family without ranges is open, as with kube-proxy.
pub(super) fn add(view: &View<'_>, owner: &Owner, service: &ServiceFact, ports: &[Port<'_>], output: &mut Output) {
    for v4 in [true, false] {
        let ranges = service.source_ranges.iter().filter(|net| is_v4(net) == v4);
        let ranges = set(ranges.map(IpNet::to_string));
        let own = |ip: &&IpAddr| ip.is_ipv4() == v4 && !ports.iter().any(|port| port.refused.contains(*ip));
        let addresses = set(service.ingress.iter().filter(own).map(IpAddr::to_string));
        let numbers = set(ports.iter().map(|port| port.service.port.to_string()));
        let (Some(ranges), Some(addresses), Some(numbers)) = (ranges, addresses, numbers) else { continue };
        let Some(protocol) = ports.first().map(|port| port.service.protocol) else { continue };
        let (ip, transport) = (if v4 { "ip4" } else { "ip6" }, protocol.as_str().to_lowercase());
        let used = format!("inport == @{OUTSIDE_PORTS} && {ip}.dst == {addresses} && {transport}.dst == {numbers}");
        let family = if v4 { "IPv4" } else { "IPv6" };
        let allowed = (ALLOW, acl::Action::Allow, format!("{used} && {ip}.src == {ranges}"), "allow");
        for (priority, action, matched, word) in [allowed, (ALLOW - 1, acl::Action::Drop, used, "drop")] {
            let role = format!("{}_source_ranges_{word}_{family}", protocol.as_str());
            let row = RowBuilder::new(view, &acl::TABLE, owner, &role, acl::EXTERNAL_IDS, &[])
                .exactly(acl::priority(priority))
                .exactly(acl::direction(acl::Direction::FromLport))
                .exactly(acl::match_(matched))
                .exactly(acl::action(action))
                .build();
            let group = cluster::outside_ports();
            output.contributions.push(contribution(&port_group::TABLE, group, port_group::ACLS, row.id.uuid()));
            output.rows.push(row);
        }
    }
}

/// `{a, b}`, sorted; `None` of nothing.
fn set(items: impl Iterator<Item = String>) -> Option<String> {
    let mut items: Vec<String> = items.collect();
    items.sort_unstable();
    items.dedup();
    (!items.is_empty()).then(|| format!("{{{}}}", items.join(", ")))
}
