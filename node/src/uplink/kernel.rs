//! Reads the host: interfaces, addresses, routes of all tables, neighbours and rules by rtnetlink, bridges from Open_vSwitch.
//!
//! Out: [`Host`]. Must not: change anything (`apply`), or leave out in silence what it does not understand (`words`).

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use ovenbird_api::Mac;
use ovsdb::Endpoint;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use tokio::time::timeout;

use super::host::{Host, Interface};
use super::item::{Item, Kind};
use super::plan::TABLE;
use super::words::{self, Names, Unsayable};
use crate::net::NetError;
use crate::tool::{NFT, ToolError};
use crate::vswitch::{State, Vswitch};

/// Time between comparisons of a session with Open_vSwitch that wants nothing.
const NEVER: Duration = Duration::from_secs(86400);

/// The host cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel.
    #[error("reading the host's network")]
    Kernel(#[source] NetError),
    /// Open_vSwitch.
    #[error("Open_vSwitch does not answer within {0:?}; is ovsdb-server running? --ovs-address says where")]
    Vswitch(Duration),
    /// nftables.
    #[error("running nft (package nftables)")]
    Nft(#[source] ToolError),
}

/// Reads everything. Open_vSwitch is waited for.
///
/// # Errors
/// When one of them does not answer.
pub async fn read(ovs: &[Endpoint], patience: Duration) -> Result<Host, ReadError> {
    let state = bridges(ovs, patience).await?;
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| ReadError::Kernel(NetError::Socket(e)))?;
    tokio::spawn(connection);
    let mut host = network(&handle).await.map_err(ReadError::Kernel)?;
    if state.userspace {
        host.silenced = silenced().await?;
    }
    host.userspace = state.userspace;
    host.bridges = state.bridges;
    Ok(host)
}

/// A session of its own, so that what it tells is as new as the question.
async fn bridges(ovs: &[Endpoint], patience: Duration) -> Result<State, ReadError> {
    let vswitch = Vswitch::spawn(ovs.to_vec(), NEVER);
    match timeout(patience, vswitch.until(|s| s.synced)).await {
        Ok(Ok(state)) => Ok(state),
        _ => Err(ReadError::Vswitch(patience)),
    }
}

/// Our tables, and for which NIC each is.
async fn silenced() -> Result<Vec<(String, String)>, ReadError> {
    NFT.run(["list", "chains", "netdev"], "").await.map(|listed| silent(&listed)).map_err(ReadError::Nft)
}

/// NICs and tables in what nft lists. Not of its JSON, which before 1.0.8 leaves devices out.
fn silent(listed: &str) -> Vec<(String, String)> {
    let (mut table, mut found) = ("", Vec::new());
    for line in listed.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table netdev ") {
            table = rest.split(' ').next().unwrap_or_default();
        } else if line.contains(" hook ingress ") && table.starts_with(TABLE) {
            found.extend(line.split('"').skip(1).step_by(2).map(|nic| (nic.to_owned(), table.to_owned())));
        }
    }
    found
}

async fn network(handle: &Handle) -> Result<Host, NetError> {
    let failed = |what: &'static str| move |e| NetError::Request(format!("listing {what}"), e);
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(failed("links"))?;
    let interfaces: Vec<_> = links.iter().map(interface).collect();
    let names: Names = interfaces.iter().map(|i| (i.index, i.name.clone())).collect();
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.map_err(failed("addresses"))?;
    let mut said: Vec<_> = addresses.iter().filter_map(|m| words::address(m, &names)).collect();
    let implied = implied(&said);
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let filter = match family {
            AddressFamily::Inet6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            _ => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        };
        let routes: Vec<_> = handle.route().get(filter).execute().try_collect().await.map_err(failed("routes"))?;
        said.extend(routes.iter().filter_map(|m| words::route(m, &names)).filter(|route| match route {
            Ok(route) => !implied.contains(&route.words) && !is_link_local(route),
            Err(_) => true,
        }));
    }
    let neighbours: Vec<_> = handle.neighbours().get().execute().try_collect().await.map_err(failed("neighbours"))?;
    said.extend(neighbours.iter().filter_map(|m| words::neighbour(m, &names)));
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules: Vec<_> = handle.rule().get(version).execute().try_collect().await.map_err(failed("rules"))?;
        said.extend(rules.iter().filter_map(words::rule));
    }
    let mut host = Host { interfaces, ..Host::default() };
    for item in said {
        match item {
            Ok(item) => host.items.push(item),
            Err(unsayable) => host.unsayable.push(unsayable),
        }
    }
    Ok(host)
}

/// Routes that follow from addresses.
fn implied(said: &[Result<Item, Unsayable>]) -> BTreeSet<String> {
    let addresses = said.iter().flatten();
    let route = |item: &Item| Some(words::implied_route(item, item.devices().next()?)?.words);
    addresses.filter_map(route).collect()
}

/// The route that comes with the link-local address of every interface.
fn is_link_local(route: &Item) -> bool {
    route.kind == Kind::Route && route.subject() == "fe80::/64" && route.words.contains(" proto kernel ")
}

fn interface(message: &LinkMessage) -> Interface {
    let mut link = Interface {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Interface::default()
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) if message.header.link_layer_type == LinkLayerType::Ether => {
                link.mac = bytes.as_slice().try_into().ok().map(Mac);
            }
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Link(index) => link.lower = Some(*index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(all) => {
                let kind =
                    all.iter().find_map(|i| if let LinkInfo::Kind(kind) = i { Some(kind.to_string()) } else { None });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    link.lower = link.lower.filter(|_| !elsewhere);
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_packets_are_dropped_is_read() {
        let listed = "table netdev ovenbird-uplink {\n\tchain ingress {\n\t\ttype filter hook ingress device \"eth0\" priority filter; \
                      policy drop;\n\t}\n}\ntable netdev others {\n\tchain ingress {\n\t\ttype filter hook ingress device \
                      \"eth2\" priority 0;\n\t}\n}\ntable netdev ovenbird-uplink-eth1 {\n\tchain ingress {\n\t\ttype filter hook \
                      ingress devices = { \"eth1\" } priority filter; policy drop;\n\t}\n}\n";
        let pair = |nic: &str, table: &str| (nic.to_owned(), table.to_owned());
        assert_eq!(silent(listed), [pair("eth0", "ovenbird-uplink"), pair("eth1", "ovenbird-uplink-eth1")]);
    }
}
