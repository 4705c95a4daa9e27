//! [`NetOps`] in memory, for tests of the logic above it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ovenbird_api::Mac;

use super::{HostLink, HostNetwork, Link, NetError, NetOps, NetnsId, SharedLink, Veth};

/// A host with sandboxes.
#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Sandboxes that exist.
    netns: BTreeMap<PathBuf, u64>,
    /// Pairs by host end, and whether they are configured.
    veths: BTreeMap<String, (Veth, bool)>,
    host_links: BTreeMap<String, HostLink>,
    shared_links: BTreeMap<String, SharedLink>,
    network: HostNetwork,
    /// Ports of bridges.
    joined: BTreeMap<String, String>,
    created: usize,
    /// Others on the link.
    others: BTreeMap<IpAddr, Mac>,
    /// Addresses that were probed.
    probed: Vec<IpAddr>,
}

impl Fake {
    /// Makes a sandbox, or another one under the same path.
    pub fn add_netns(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        let next = state.netns.values().max().unwrap_or(&0) + 1;
        state.netns.insert(path.into(), next);
    }

    /// Removes a sandbox with the pairs into it, as the kernel does.
    pub fn remove_netns(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.netns.remove(Path::new(path));
        state.veths.retain(|_, (veth, _)| veth.netns != Path::new(path));
    }

    /// Pairs ever made.
    pub fn created(&self) -> usize {
        self.state.lock().unwrap().created
    }

    /// The configured pairs.
    pub fn veths(&self) -> Vec<Veth> {
        let state = self.state.lock().unwrap();
        state.veths.values().filter(|(_, configured)| *configured).map(|(veth, _)| veth.clone()).collect()
    }

    /// Somebody else has an address from now on, or has it no more.
    pub fn set_other(&self, address: IpAddr, mac: Option<Mac>) {
        let mut state = self.state.lock().unwrap();
        match mac {
            Some(mac) => drop(state.others.insert(address, mac)),
            None => drop(state.others.remove(&address)),
        }
    }

    /// Addresses that were probed so far.
    pub fn probed(&self) -> Vec<IpAddr> {
        self.state.lock().unwrap().probed.clone()
    }

    /// Sets what the host has.
    pub fn set_network(&self, network: HostNetwork) {
        self.state.lock().unwrap().network = network;
    }

    /// A link as it was last applied.
    pub fn applied(&self, name: &str) -> Option<HostLink> {
        self.state.lock().unwrap().host_links.get(name).cloned()
    }
}

impl NetOps for Fake {
    fn netns_id(&self, path: &Path) -> Result<NetnsId, NetError> {
        match self.state.lock().unwrap().netns.get(path) {
            Some(ino) => Ok(NetnsId { dev: 4, ino: *ino }),
            None => Err(NetError::Netns(path.to_owned(), std::io::ErrorKind::NotFound.into())),
        }
    }

    async fn create_veth(&self, veth: &Veth) -> Result<Mac, NetError> {
        self.netns_id(&veth.netns)?;
        let mut state = self.state.lock().unwrap();
        state.created += 1;
        state.veths.insert(veth.host.clone(), (veth.clone(), false));
        Ok(Mac([2, 0, 0, 0, 0, 1]))
    }

    async fn configure_veth(&self, veth: &Veth) -> Result<(), NetError> {
        match self.state.lock().unwrap().veths.get_mut(&veth.host) {
            Some((_, configured)) => *configured = true,
            None => return Err(NetError::NoLink(veth.ifname.clone())),
        }
        Ok(())
    }

    async fn probe(&self, _: &Veth, addresses: &[IpAddr]) -> Result<Option<(IpAddr, Mac)>, NetError> {
        let mut state = self.state.lock().unwrap();
        state.probed.extend(addresses);
        Ok(addresses.iter().find_map(|ip| Some((*ip, *state.others.get(ip)?))))
    }

    async fn sandbox_link(&self, netns: &Path, ifname: &str) -> Result<Option<Link>, NetError> {
        self.netns_id(netns)?;
        let state = self.state.lock().unwrap();
        let found = state.veths.values().find(|(v, _)| v.netns == netns && v.ifname == ifname);
        Ok(found.map(|(v, configured)| Link {
            index: 2,
            name: v.ifname.clone(),
            mac: Some(v.mac),
            mtu: v.mtu,
            up: true,
            addresses: if *configured { v.addresses.clone() } else { Vec::new() },
        }))
    }

    async fn remove_address(&self, netns: &Path, ifname: &str, address: IpAddr) -> Result<(), NetError> {
        let mut state = self.state.lock().unwrap();
        let found = state.veths.values_mut().find(|(v, _)| v.netns == netns && v.ifname == ifname);
        found.into_iter().for_each(|(veth, _)| veth.addresses.retain(|own| own.addr() != address));
        Ok(())
    }

    async fn host_link(&self, name: &str) -> Result<Option<Link>, NetError> {
        let state = self.state.lock().unwrap();
        Ok(state.veths.get(name).map(|(v, _)| Link {
            name: name.to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: v.mtu,
            up: true,
            ..Link::default()
        }))
    }

    async fn delete_link(&self, name: &str) -> Result<(), NetError> {
        self.state.lock().unwrap().veths.remove(name);
        Ok(())
    }

    async fn join(&self, link: &str, bridge: &str) -> Result<bool, NetError> {
        let mut state = self.state.lock().unwrap();
        Ok(state.joined.insert(link.to_owned(), bridge.to_owned()).as_deref() != Some(bridge))
    }

    async fn reflect(&self, _: &str) -> Result<(), NetError> {
        Ok(())
    }

    async fn set_up(&self, _: &str) -> Result<(), NetError> {
        Ok(())
    }

    async fn apply_host_link(&self, link: &HostLink) -> Result<bool, NetError> {
        let before = self.state.lock().unwrap().host_links.insert(link.name.clone(), link.clone());
        Ok(before.as_ref() != Some(link))
    }

    async fn apply_shared_link(&self, link: &SharedLink) -> Result<bool, NetError> {
        let before = self.state.lock().unwrap().shared_links.insert(link.name.clone(), link.clone());
        Ok(before.as_ref() != Some(link))
    }

    async fn host_network(&self) -> Result<HostNetwork, NetError> {
        Ok(self.state.lock().unwrap().network.clone())
    }
}
