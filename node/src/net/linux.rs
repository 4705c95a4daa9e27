//! [`NetOps`] by rtnetlink. One socket serves this namespace; a sandbox gets one of its own for as long as it is worked on.
//!
//! ```text
//! create_veth:    RTM_NEWLINK here, its peer born in the sandbox     (one message)
//! configure_veth: thread in the sandbox: sysctl, ethtool, socket; then addresses and routes through that socket
//! ```

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use ovenbird_api::Mac;
use rtnetlink::{Error, Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;

use super::{
    HostLink, HostNetwork, Link, NetError, NetOps, NetnsId, Route, SharedLink, Veth, ethtool, message, netns, probe,
};

/// Places in `Linux::managed`.
const MANAGEMENT: usize = 0;
const BRIDGE: usize = 1;

/// The kernel of this host.
pub struct Linux {
    host: Handle,
    /// The kernel refuses a second list on a socket while one is under way (EBUSY).
    lists: tokio::sync::Mutex<()>,
    /// Indexes of the links that are looked after: the management port and the external bridge; 0 before each is known.
    managed: Arc<[AtomicU32; 2]>,
}

impl Linux {
    /// Opens the netlink socket of this namespace; must be called inside the runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn new() -> Result<Linux, NetError> {
        Ok(Linux { host: connect()?, lists: tokio::sync::Mutex::default(), managed: Arc::default() })
    }

    /// A counter that rises when an address of the host, its default route, or the link that is looked after changes.
    ///
    /// # Errors
    /// When the netlink socket cannot be opened.
    pub fn changes(&self) -> Result<watch::Receiver<u64>, NetError> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route, Link};
        let groups = [Link, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route];
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups).map_err(NetError::Socket)?;
        tokio::spawn(connection);
        let (managed, (tx, rx)) = (self.managed.clone(), watch::channel(0));
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                if message::concerns(&message.payload, &managed.each_ref().map(|m| m.load(Ordering::Relaxed))) {
                    tx.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(rx)
    }

    /// Takes back what [`NetOps::apply_shared_link`] gave the link, and our routes on every link. A link that is not there has nothing.
    ///
    /// # Errors
    /// Of the first request that the kernel refuses.
    pub async fn clear_shared_link(&self, ours: &SharedLink) -> Result<(), NetError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for route in routes(&self.host, family).await? {
                if route.header.protocol == message::OUR_PROTOCOL {
                    request(self.host.route().del(route).execute().await, || "removing a route".into())?;
                }
            }
        }
        let Some(link) = self.host_link(&ours.name).await? else { return Ok(()) };
        let have: Result<Vec<_>, _> = self.host.neighbours().get().execute().try_collect().await;
        for neighbour in have.map_err(|e| NetError::Request("listing neighbours".into(), e))? {
            if let Some((index, ip, mac)) = message::permanent_neighbour(&neighbour)
                && index == link.index
                && ours.neighbours.contains(&(ip, mac))
            {
                let done = self.host.neighbours().del(neighbour).execute().await;
                request(done, || format!("removing neighbour {ip} of {}", ours.name))?;
            }
        }
        for address in all_addresses(&self.host).await? {
            if let Some((index, net)) = message::any_address(&address)
                && index == link.index
                && ours.addresses.contains(&net)
            {
                request(self.host.address().del(address).execute().await, || {
                    format!("removing {net} from {}", ours.name)
                })?;
            }
        }
        Ok(())
    }

    /// The socket of this namespace.
    pub(super) fn handle(&self) -> &Handle {
        &self.host
    }

    /// Before a list.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.lists.lock().await
    }

    async fn try_create(&self, veth: &Veth) -> Result<(), Error> {
        let netns = std::fs::File::open(&veth.netns).map_err(|e| Error::NamespaceError(e.to_string()))?;
        self.host.link().add(message::veth(veth, netns.as_raw_fd())).execute().await
    }
}

/// A socket in the calling thread's namespace; its task ends with the last handle.
fn connect() -> Result<Handle, NetError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
    tokio::spawn(connection);
    Ok(handle)
}

impl NetOps for Linux {
    fn netns_id(&self, path: &Path) -> Result<NetnsId, NetError> {
        netns::id(path)
    }

    async fn create_veth(&self, veth: &Veth) -> Result<Mac, NetError> {
        netns::id(&veth.netns)?;
        let mut made = self.try_create(veth).await;
        if is(&made, nix::errno::Errno::EEXIST) {
            self.delete_link(&veth.host).await?;
            made = self.try_create(veth).await;
        }
        if is(&made, nix::errno::Errno::EEXIST) {
            return Err(NetError::Taken { netns: veth.netns.clone(), ifname: veth.ifname.clone() });
        }
        request(made, || format!("creating the veth pair {} - {}", veth.host, veth.ifname))?;
        if veth.checksum_in_software {
            ethtool::disable_tx_checksum(&veth.host).map_err(|e| NetError::Offload(veth.host.clone(), e))?;
        }
        let link = self.host_link(&veth.host).await?;
        link.and_then(|l| l.mac).ok_or_else(|| NetError::NoLink(veth.host.clone()))
    }

    async fn configure_veth(&self, veth: &Veth) -> Result<(), NetError> {
        let (ifname, software) = (veth.ifname.clone(), veth.checksum_in_software);
        let with_v6 = veth.addresses.iter().any(|a| a.addr().is_ipv6());
        let inside = netns::run(&veth.netns, move || {
            if with_v6 {
                // Container runtimes may have switched it off for sandboxes.
                sysctl(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0")?;
            }
            if software {
                ethtool::disable_tx_checksum(&ifname).map_err(|e| NetError::Offload(ifname.clone(), e))?;
            }
            connect()
        })
        .await?;
        let link = find_link(&inside, &veth.ifname).await?.ok_or_else(|| NetError::NoLink(veth.ifname.clone()))?;
        let up = inside.link().set(LinkUnspec::new_with_index(link.index).mtu(veth.mtu).up().build()).execute().await;
        request(up, || format!("setting MTU and state of {}", veth.ifname))?;
        for address in &veth.addresses {
            add_address(&inside, link.index, *address).await?;
        }
        for route in &veth.routes {
            add_route(&inside, link.index, route).await?;
        }
        Ok(())
    }

    async fn probe(&self, veth: &Veth, addresses: &[IpAddr]) -> Result<Option<(IpAddr, Mac)>, NetError> {
        let (link, own, addresses) = (veth.ifname.clone(), veth.mac, addresses.to_vec());
        let asked =
            move || probe::run(&link, own, &addresses, probe::PATIENCE).map_err(|e| NetError::Probe(link.clone(), e));
        netns::run(&veth.netns, asked).await
    }

    async fn sandbox_link(&self, netns: &Path, ifname: &str) -> Result<Option<Link>, NetError> {
        let inside = netns::run(netns, connect).await?;
        let Some(mut link) = find_link(&inside, ifname).await? else { return Ok(None) };
        link.addresses = addresses_of(&inside, link.index).await?.into_iter().map(|(_, a)| a).collect();
        Ok(Some(link))
    }

    async fn remove_address(&self, netns: &Path, ifname: &str, address: IpAddr) -> Result<(), NetError> {
        let inside = netns::run(netns, connect).await?;
        let Some(link) = find_link(&inside, ifname).await? else { return Ok(()) };
        for (message, own) in addresses_of(&inside, link.index).await? {
            if own.addr() == address {
                let done = inside.address().del(message).execute().await;
                request(done, || format!("removing {own} from {ifname}"))?;
            }
        }
        Ok(())
    }

    async fn host_link(&self, name: &str) -> Result<Option<Link>, NetError> {
        find_link(&self.host, name).await
    }

    async fn delete_link(&self, name: &str) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_name(name).build();
        let done = self.host.link().del_with_message(message).execute().await;
        if is(&done, nix::errno::Errno::ENODEV) {
            return Ok(());
        }
        request(done, || format!("deleting interface {name}"))
    }

    async fn join(&self, link: &str, bridge: &str) -> Result<bool, NetError> {
        self.join_bridge(link, bridge).await
    }

    async fn reflect(&self, link: &str) -> Result<(), NetError> {
        self.reflect_port(link).await
    }

    async fn set_up(&self, name: &str) -> Result<(), NetError> {
        let link = self.host_link(name).await?.ok_or_else(|| NetError::NoLink(name.to_owned()))?;
        if link.up {
            return Ok(());
        }
        let done = self.host.link().set(LinkUnspec::new_with_index(link.index).up().build()).execute().await;
        request(done, || format!("setting {name} up"))
    }

    async fn apply_host_link(&self, want: &HostLink) -> Result<bool, NetError> {
        let _turn = self.lists.lock().await;
        let have = self.host_link(&want.name).await?.ok_or_else(|| NetError::NoLink(want.name.clone()))?;
        self.managed[MANAGEMENT].store(have.index, Ordering::Relaxed);
        let mut changed = false;
        if have.mac != Some(want.mac) || have.mtu != want.mtu || !have.up {
            if want.checksum_in_software {
                ethtool::disable_tx_checksum(&want.name).map_err(|e| NetError::Offload(want.name.clone(), e))?;
            }
            let set = LinkUnspec::new_with_index(have.index).address(want.mac.0.to_vec()).mtu(want.mtu).up().build();
            let done = self.host.link().set(set).execute().await;
            request(done, || format!("setting MAC, MTU and state of {}", want.name))?;
            changed = true;
        }
        changed |= self.apply_addresses(have.index, want).await?;
        changed |= self.apply_routes(have.index, &want.name, &want.routes).await?;
        Ok(changed)
    }

    async fn apply_shared_link(&self, want: &SharedLink) -> Result<bool, NetError> {
        let _turn = self.lists.lock().await;
        let index = self.host_link(&want.name).await?.ok_or_else(|| NetError::NoLink(want.name.clone()))?.index;
        self.managed[BRIDGE].store(index, Ordering::Relaxed);
        let mut changed = false;
        let have = all_addresses(&self.host).await?;
        let have: Vec<_> = have.iter().filter_map(message::any_address).collect();
        for address in want.addresses.iter().filter(|a| !have.contains(&(index, **a))) {
            // Beside the host's own addresses: what leaves for elsewhere must not have one that nobody can answer.
            let mut add = self.host.address().add(index, address.addr(), address.prefix_len()).replace();
            message::without_dad(add.message_mut());
            message::only_when_named(add.message_mut());
            request(add.execute().await, || format!("adding address {address}"))?;
            changed = true;
        }
        let have: Result<Vec<_>, _> = self.host.neighbours().get().execute().try_collect().await;
        let have = have.map_err(|e| NetError::Request("listing neighbours".into(), e))?;
        let have: Vec<_> = have.iter().filter_map(message::permanent_neighbour).collect();
        for (ip, mac) in want.neighbours.iter().filter(|(ip, mac)| !have.contains(&(index, *ip, *mac))) {
            let add = self.host.neighbours().add(index, *ip).link_layer_address(&mac.0).replace();
            request(add.execute().await, || format!("adding neighbour {ip} of {}", want.name))?;
            changed = true;
        }
        changed |= self.apply_routes(index, &want.name, &want.routes).await?;
        Ok(changed)
    }

    async fn host_network(&self) -> Result<HostNetwork, NetError> {
        let _turn = self.lists.lock().await;
        let messages: Result<Vec<_>, _> = self.host.link().get().execute().try_collect().await;
        let messages = messages.map_err(|e| NetError::Request("listing links".into(), e))?;
        let mut host = HostNetwork { links: messages.iter().map(message::link).collect(), ..HostNetwork::default() };
        let addresses = all_addresses(&self.host).await?;
        for link in &mut host.links {
            let own = addresses.iter().filter_map(message::address).filter(|(index, _)| *index == link.index);
            link.addresses = own.map(|(_, address)| address).collect();
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            host.default_hops.extend(routes(&self.host, family).await?.iter().flat_map(message::default_hops));
        }
        Ok(host)
    }
}

impl Linux {
    async fn apply_addresses(&self, index: u32, want: &HostLink) -> Result<bool, NetError> {
        let have = addresses_of(&self.host, index).await?;
        let mut changed = false;
        for (message, address) in &have {
            if !want.addresses.contains(address) {
                let done = self.host.address().del(message.clone()).execute().await;
                request(done, || format!("removing {address} from {}", want.name))?;
                changed = true;
            }
        }
        for address in &want.addresses {
            if !have.iter().any(|(_, a)| a == address) {
                add_address(&self.host, index, *address).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    async fn apply_routes(&self, index: u32, name: &str, want: &[Route]) -> Result<bool, NetError> {
        let mut have = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let ours = routes(&self.host, family).await?.into_iter().filter_map(|m| {
                let (oif, route) = message::route(&m)?;
                (oif == index && m.header.protocol == message::OUR_PROTOCOL).then_some((m, route))
            });
            have.extend(ours);
        }
        let mut changed = false;
        for (message, route) in &have {
            if !want.contains(route) {
                let done = self.host.route().del(message.clone()).execute().await;
                request(done, || format!("removing the route to {} through {name}", route.dst))?;
                changed = true;
            }
        }
        for route in want {
            if !have.iter().any(|(_, r)| r == route) {
                add_route(&self.host, index, route).await?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

async fn find_link(handle: &Handle, name: &str) -> Result<Option<Link>, NetError> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(found) => Ok(found.as_ref().map(message::link)),
        Err(Error::NetlinkError(e)) if e.raw_code() == -(nix::errno::Errno::ENODEV as i32) => Ok(None),
        Err(e) => Err(NetError::Request(format!("looking up interface {name}"), e)),
    }
}

async fn all_addresses(handle: &Handle) -> Result<Vec<AddressMessage>, NetError> {
    let all: Result<Vec<_>, _> = handle.address().get().execute().try_collect().await;
    all.map_err(|e| NetError::Request("listing addresses".into(), e))
}

async fn addresses_of(handle: &Handle, index: u32) -> Result<Vec<(AddressMessage, IpNet)>, NetError> {
    let all = all_addresses(handle).await?;
    let own = |m: AddressMessage| {
        let (of, address) = message::address(&m)?;
        (of == index).then_some((m, address))
    };
    Ok(all.into_iter().filter_map(own).collect())
}

async fn routes(handle: &Handle, family: AddressFamily) -> Result<Vec<RouteMessage>, NetError> {
    let filter = match family {
        AddressFamily::Inet6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        _ => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
    };
    let all: Result<Vec<_>, _> = handle.route().get(filter).execute().try_collect().await;
    all.map_err(|e| NetError::Request("listing routes".into(), e))
}

async fn add_address(handle: &Handle, index: u32, address: IpNet) -> Result<(), NetError> {
    let mut add = handle.address().add(index, address.addr(), address.prefix_len()).replace();
    message::without_dad(add.message_mut());
    request(add.execute().await, || format!("adding address {address}"))
}

async fn add_route(handle: &Handle, index: u32, route: &Route) -> Result<(), NetError> {
    let add = handle.route().add(message::route_message(route, index)).replace();
    request(add.execute().await, || format!("adding the route to {}", route.dst))
}

pub(super) fn sysctl(key: &str, value: &str) -> Result<(), NetError> {
    match std::fs::write(format!("/proc/sys/{key}"), value) {
        Err(e) => Err(NetError::Sysctl(key.to_owned(), e)),
        Ok(()) => Ok(()),
    }
}

pub(super) fn request(done: Result<(), Error>, what: impl FnOnce() -> String) -> Result<(), NetError> {
    done.map_err(|e| NetError::Request(what(), e))
}

fn is(done: &Result<(), Error>, errno: nix::errno::Errno) -> bool {
    matches!(done, Err(Error::NetlinkError(e)) if e.raw_code() == -(errno as i32))
}

#[cfg(test)]
#[path = "linux_tests.rs"]
pub(super) mod tests;
