//! Linux bridges and what hangs on them, by rtnetlink: for the classic network.
//!
//! Must not: delete a bridge, or a port of one, that it is not told to.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use ovenbird_api::Mac;
use rtnetlink::{LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth};

use super::linux::{Linux, request, sysctl};
use super::{NetError, NetOps, ethtool, message};

impl Linux {
    /// Makes a bridge of this name, unless there is one. True when it had to be made.
    ///
    /// # Errors
    /// When the kernel refuses, or the name is another kind of link's.
    pub async fn ensure_bridge(&self, name: &str) -> Result<bool, NetError> {
        if let Some(found) = self.raw_link(name).await? {
            return if is_bridge(&found) { Ok(false) } else { Err(NetError::NoBridge(name.to_owned())) };
        }
        let made = self.handle().link().add(LinkBridge::new(name).build()).execute().await;
        request(made, || format!("creating the bridge {name}")).map(|()| true)
    }

    /// Makes a pair of links in this namespace, both up, unless it is there. True when it had to be made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn ensure_pair(&self, names: [&str; 2], mtu: u32, checksum_in_software: bool) -> Result<bool, NetError> {
        let [first, second] = names;
        let mut changed = false;
        if self.raw_link(first).await?.is_none() {
            let made = self.handle().link().add(LinkVeth::new(first, second).mtu(mtu).up().build()).execute().await;
            request(made, || format!("creating the pair {first} - {second}"))?;
            changed = true;
        }
        for name in names {
            let link = self.host_link(name).await?.ok_or_else(|| NetError::NoLink(name.to_owned()))?;
            if !link.up || link.mtu != mtu {
                let set = LinkUnspec::new_with_index(link.index).mtu(mtu).up().build();
                let done = self.handle().link().set(set).execute().await;
                request(done, || format!("setting {name} up"))?;
                changed = true;
            }
            if changed && checksum_in_software {
                ethtool::disable_tx_checksum(name).map_err(|e| NetError::Offload(name.to_owned(), e))?;
            }
        }
        Ok(changed)
    }

    /// Permanent neighbours on a link: of those in `networks`, exactly these. True when something had to be changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn apply_neighbours(
        &self,
        link: &str,
        networks: &[IpNet],
        want: &[(IpAddr, Mac)],
    ) -> Result<bool, NetError> {
        let _turn = self.turn().await;
        let index = self.host_link(link).await?.ok_or_else(|| NetError::NoLink(link.to_owned()))?.index;
        let have: Result<Vec<_>, _> = self.handle().neighbours().get().execute().try_collect().await;
        let have = have.map_err(|e| NetError::Request("listing neighbours".into(), e))?;
        let have = have.into_iter().filter_map(|m| {
            let (of, ip, mac) = message::permanent_neighbour(&m)?;
            (of == index && networks.iter().any(|net| net.contains(&ip))).then_some((m, (ip, mac)))
        });
        let (mut kept, mut changed) = (Vec::new(), false);
        for (message, neighbour) in have {
            if want.contains(&neighbour) {
                kept.push(neighbour);
                continue;
            }
            let done = self.handle().neighbours().del(message).execute().await;
            request(done, || format!("removing neighbour {} of {link}", neighbour.0))?;
            changed = true;
        }
        for (ip, mac) in want.iter().filter(|neighbour| !kept.contains(neighbour)) {
            let add = self.handle().neighbours().add(index, *ip).link_layer_address(&mac.0).replace();
            request(add.execute().await, || format!("adding neighbour {ip} of {link}"))?;
            changed = true;
        }
        Ok(changed)
    }

    /// Makes a link a port of a bridge, and sets it up. True when it was not.
    pub(super) async fn join_bridge(&self, link: &str, bridge: &str) -> Result<bool, NetError> {
        let missing = |name: &str| NetError::NoLink(name.to_owned());
        let to = self.host_link(bridge).await?.ok_or_else(|| missing(bridge))?.index;
        let found = self.raw_link(link).await?.ok_or_else(|| missing(link))?;
        if controller(&found) == Some(to) && message::link(&found).up {
            return Ok(false);
        }
        let set = LinkUnspec::new_with_index(found.header.index).controller(to).up().build();
        request(self.handle().link().set(set).execute().await, || format!("making {link} a port of {bridge}"))?;
        Ok(true)
    }

    /// Lets what a port of a bridge sends come out there again.
    pub(super) async fn reflect_port(&self, link: &str) -> Result<(), NetError> {
        let found = self.raw_link(link).await?.ok_or_else(|| NetError::NoLink(link.to_owned()))?;
        let set = LinkBridgePort::new(found.header.index).hairpin(true).build();
        request(self.handle().link().set_port(set).execute().await, || format!("hairpin mode of {link}"))
    }

    async fn raw_link(&self, name: &str) -> Result<Option<LinkMessage>, NetError> {
        match self.handle().link().get().match_name(name).execute().try_next().await {
            Ok(found) => Ok(found),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -(nix::errno::Errno::ENODEV as i32) => Ok(None),
            Err(e) => Err(NetError::Request(format!("looking up interface {name}"), e)),
        }
    }
}

/// Gives a kernel setting a value, unless it has it. True when it had another.
///
/// # Errors
/// When there is no such setting, or the kernel refuses.
pub fn ensure_sysctl(key: &str, value: &str) -> Result<bool, NetError> {
    let have = std::fs::read_to_string(format!("/proc/sys/{key}")).map_err(|e| NetError::Sysctl(key.to_owned(), e))?;
    if have.trim() == value {
        return Ok(false);
    }
    sysctl(key, value).map(|()| true)
}

fn is_bridge(message: &LinkMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Bridge)),
        _ => false,
    })
}

/// Index of the link that a link is a port of.
fn controller(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}
