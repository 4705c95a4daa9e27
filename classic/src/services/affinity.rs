//! Session affinity ClientIP: a Service's port has a chain of its own, and each endpoint a set of the clients that it had last.
//!
//! ```text
//! session/NS/NAME/PROTO/PORT_v4:  saddr in clients/.../ENDPOINT --> endpoint/.../ENDPOINT   for each; who is in none, by lot
//! endpoint/.../ENDPOINT:          clients/.../ENDPOINT gets saddr, for the Service's timeout; DNAT
//! ```
//!
//! The sets are kept: the kernel alone knows the clients. An endpoint that is gone has no set any more, so nobody is led to it. Must not: let the
//! timeout into the set's declaration, for with another one it would be made anew.

use std::net::SocketAddr;

use ovenbird_api::Protocol;
use ovenbird_nft::{Set, Table};
use ovenbird_topology::ServiceFact;

use super::Settings;
use super::entry::{Choice, Way, address_type, choose, family, ip, masquerade_others};

/// A port whose clients are remembered.
pub(super) struct Session<'a> {
    /// The Service.
    pub service: &'a ServiceFact,
    /// Transport.
    pub protocol: Protocol,
    /// Its port, whatever it is entered by.
    pub port: u16,
    /// `timeoutSeconds`.
    pub timeout: u32,
}

impl Session<'_> {
    /// Adds the chains for some endpoints, of which each may have several lots in a row, and returns the name of the first. `role` tells chains with other endpoints apart.
    pub fn add(
        &self,
        table: &mut Table,
        settings: &Settings,
        way: Way,
        role: &str,
        endpoints: &[SocketAddr],
    ) -> String {
        let (v4, ip) = (way.v4, ip(way.v4));
        let stem = format!("{}/{}/{}", self.service.key, self.protocol.name(), self.port);
        let name = format!("session{role}/{stem}_{}", family(v4));
        if table.chains.contains_key(&name) {
            return name;
        }
        let mut rules: Vec<String> = Vec::with_capacity(endpoints.len() + 2);
        if !way.outside {
            rules.extend(masquerade_others(settings, v4));
        }
        // A name has no colons.
        let of = |kind: &str, to: &SocketAddr| {
            format!("{kind}/{stem}/{}/{}", to.ip().to_string().replace(':', "-"), to.port())
        };
        let mut once = endpoints.to_vec();
        once.dedup();
        for to in &once {
            let (clients, endpoint) = (of("clients", to), of("endpoint", to));
            rules.push(format!("{ip} saddr @{clients} goto {endpoint}"));
            let timeout = self.timeout;
            let chain = table.chain(&endpoint);
            if chain.rules.is_empty() {
                // A rule of its own, for it ends when the set is full.
                chain.rule(format!("update @{clients} {{ {ip} saddr timeout {timeout}s }}"));
                chain.rule(format!("meta l4proto {} dnat {ip} to {to}", self.protocol.name()));
            }
            let spec = || Set::kept(format!("type {}; size 65535; flags dynamic,timeout", address_type(v4)));
            table.sets.entry(clients).or_insert_with(spec);
        }
        let targets = endpoints.iter().map(|to| of("endpoint", to));
        rules.push(choose(Choice::Random, v4, endpoints.len(), targets));
        table.chain(&name).rules = rules.into_iter().map(Into::into).collect();
        name
    }
}
