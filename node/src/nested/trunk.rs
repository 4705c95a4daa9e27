//! [`Cable`] of a nested node: the host end of a pod's veth is an access port of the VM's bridge, in the VLAN of the pod's tag.
//!
//! Connected means: the pod's gateway answers by the tag. It is OVN's router, and answers once the hypervisor's ovn-controller has bound the port
//! behind the tag and made its flows, which nobody else tells a VM. Must not: plug in a port without a tag, which would see all VLANs.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_api::annotation::POD_NETWORKS;
use ovenbird_cni_server::{Attachment, CniError, Code};
use ovenbird_schema::vswitch::interface;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::error;

use crate::cable::{Cable, refused};
use crate::net::causes;
use crate::net::neighbour::{Question, ask};
use crate::readiness::{Part, Readiness};
use crate::rows::{self, PodPort};
use crate::vswitch::Vswitch;

/// How long a hypervisor may take to bind a port. The runtime tries again.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the file header.
pub struct Trunk {
    vswitch: Vswitch,
    bridge: String,
    /// The bridge stands, and takes ports.
    stands: watch::Sender<bool>,
}

impl Trunk {
    /// Access ports of `bridge`.
    pub fn new(vswitch: Vswitch, bridge: &str) -> Trunk {
        Trunk { vswitch, bridge: bridge.to_owned(), stands: watch::Sender::new(false) }
    }

    /// Waits for the bridge, and ends when it is gone: nobody but the operator knows what belongs into a new one.
    ///
    /// # Errors
    /// Then, and when the daemon is stopping.
    pub async fn run(&self, readiness: &Readiness) -> anyhow::Result<()> {
        let mut state = self.vswitch.state();
        loop {
            let (synced, there) = {
                let state = state.borrow_and_update();
                (state.synced, state.bridges.contains_key(&self.bridge))
            };
            readiness.set(Part::Vswitch, synced && there);
            if synced && there && !*self.stands.borrow() {
                let (owner, output) = rows::trunk(&self.bridge);
                self.vswitch.set(owner, output);
                self.stands.send_replace(true);
            } else if synced && !there && *self.stands.borrow() {
                anyhow::bail!("bridge {} is gone: make it again, with the VM's NIC inside", self.bridge);
            }
            state.changed().await?;
        }
    }

    /// Waits until the bridge takes ports.
    pub async fn until_stands(&self) {
        // The sender lives as long as self.
        drop(self.stands.subscribe().wait_for(|stands| *stands).await);
    }
}

impl Cable for Trunk {
    async fn ports(&self) -> Result<Vec<PodPort>, CniError> {
        Cable::ports(&self.vswitch).await
    }

    async fn until_ready(&self) -> Result<bool, CniError> {
        self.until_stands().await;
        Ok(self.vswitch.state().borrow().bridges.get(&self.bridge).is_none_or(|bridge| bridge.userspace))
    }

    fn declare(&self, port: &PodPort) {
        match port.tag {
            Some(tag) => self.vswitch.set(PodPort::owner_of(&port.attachment), port.output_in(&self.bridge, Some(tag))),
            None => error!("{} has no tag: its port is not plugged in", port.lsp),
        }
    }

    fn withdraw(&self, attachment: &Attachment) -> impl Future<Output = ()> + Send + use<> {
        self.vswitch.withdraw(attachment)
    }

    async fn until_connected(&self, port: &PodPort, gateways: &[IpAddr]) -> Result<(), CniError> {
        let Some(tag) = port.tag else {
            let problem = format!("annotation {POD_NETWORKS} of the pod has no tag");
            let remedy = "is the Node annotated with ovenbird.io/parent-port? then remove the pod's annotation, and it is written anew";
            return Err(CniError::new(Code::InvalidConfig, problem).details(remedy.to_owned()));
        };
        let made = |row: Option<interface::Ref<'_>>| is_made(row).then_some(());
        self.vswitch.wait(&PodPort::owner_of(&port.attachment), made).await.map_err(|e| refused(&e))?;
        let own = |to: &IpAddr| port.addresses.iter().map(IpNet::addr).find(|own| own.is_ipv4() == to.is_ipv4());
        // One family says it of both.
        let Some((to, from)) = gateways.iter().find_map(|to| Some((*to, own(to)?))) else { return Ok(()) };
        let question = Question { mac: port.mac, from, to };
        match timeout(PATIENCE, ask(&port.netns, &port.attachment.ifname, question)).await {
            Ok(answered) => answered.map_err(|e| CniError::new(Code::TryAgainLater, e.to_string()).details(causes(&e))),
            Err(_) => Err(silent(&port.lsp, tag, to, &self.bridge)),
        }
    }

    async fn connected(&self, port: &PodPort) -> Result<Result<(), String>, CniError> {
        let owner = PodPort::owner_of(&port.attachment);
        let made = self.vswitch.wait(&owner, |row| Some(is_made(row))).await.map_err(|e| refused(&e))?;
        let host = PodPort::host_name(&port.attachment);
        Ok(made.then_some(()).ok_or_else(|| format!("port {host} is not made by ovs-vswitchd")))
    }

    async fn fault(&self, attachment: &Attachment) -> Option<String> {
        self.vswitch.fault(attachment).await
    }

    fn allow_deletes(&self) {
        self.vswitch.allow_deletes();
    }
}

/// The error of a port whose gateway has not answered.
fn silent(lsp: &str, tag: u16, gateway: IpAddr, bridge: &str) -> CniError {
    let problem = format!(
        "gateway {gateway} does not answer by tag {tag}: the hypervisor has not bound Logical_Switch_Port {lsp}"
    );
    let remedy = format!(
        "is its parent_name the VM's own port (ovn-nbctl list logical_switch_port {lsp}), does ovn-controller run on the VM's hypervisor, and has it \
         bound the parent (ovn-sbctl find port_binding)? is the VM's NIC in bridge {bridge}, and do VLANs pass by it?"
    );
    CniError::new(Code::TryAgainLater, problem).details(remedy)
}

fn is_made(row: Option<interface::Ref<'_>>) -> bool {
    row.and_then(interface::Ref::ofport).is_some_and(|port| port > 0)
}
