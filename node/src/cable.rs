//! What a pod's veth is plugged into: OVN's integration bridge, or the bridge of another network mode (`classic`, `nested`).
//!
//! ```text
//! Plug: declare --> veth configured, until_connected --> result        withdraw --> veth deleted
//! ```
//!
//! Must not: make or delete the veth, which is `plug`'s.

use std::net::IpAddr;

use ovenbird_api::name::network_localnet;
use ovenbird_cni_server::{Attachment, CniError, Code};
use ovenbird_schema::vswitch::interface;
use tracing::warn;

use crate::gateway::openflow;
use crate::net::causes;
use crate::rows::PodPort;
use crate::vswitch::{RowError, Vswitch};

/// See the file header. What is declared is known to a later daemon, too.
pub trait Cable: Send + Sync + 'static {
    /// The attachments that an earlier daemon declared.
    fn ports(&self) -> impl Future<Output = Result<Vec<PodPort>, CniError>> + Send;
    /// Waits until ports can be plugged in. True when no checksum may be left to hardware.
    fn until_ready(&self) -> impl Future<Output = Result<bool, CniError>> + Send;
    /// Wants a port, from now on and whatever happens to its link.
    fn declare(&self, port: &PodPort);
    /// Does not want it any more, from the call on. The future ends when nothing of the port is left, or nothing can be removed now.
    fn withdraw(&self, attachment: &Attachment) -> impl Future<Output = ()> + Send + use<Self>;
    /// Waits until packets reach a declared port whose link is there, and comes up meanwhile. `gateways` are the pod's.
    fn until_connected(&self, port: &PodPort, gateways: &[IpAddr])
    -> impl Future<Output = Result<(), CniError>> + Send;
    /// Waits until what a connected port of a Network sends reaches the physical network, and what comes from there reaches the port. Returns, too,
    /// when that cannot be known.
    fn until_on_wire(&self, _network: &str) -> impl Future<Output = Result<(), CniError>> + Send {
        std::future::ready(Ok(()))
    }
    /// Whether they do now; if not, what to say of it.
    fn connected(&self, port: &PodPort) -> impl Future<Output = Result<Result<(), String>, CniError>> + Send;
    /// What is known of a port that does not become connected.
    fn fault(&self, attachment: &Attachment) -> impl Future<Output = Option<String>> + Send;
    /// What limits what a pod sends has effect; `userspace` is what [`Cable::until_ready`] has said.
    fn polices(&self, userspace: bool) -> bool {
        !userspace
    }
    /// Everything that should stay is declared: the rest may go.
    fn allow_deletes(&self);
}

/// OVN: a port of br-int, which ovn-controller binds.
impl Cable for Vswitch {
    async fn ports(&self) -> Result<Vec<PodPort>, CniError> {
        Vswitch::ports(self).await.map_err(|e| refused(&e))
    }

    async fn until_ready(&self) -> Result<bool, CniError> {
        self.until(|s| s.synced && s.bridge).await.map(|state| state.userspace).map_err(|e| refused(&e))
    }

    fn declare(&self, port: &PodPort) {
        self.set(PodPort::owner_of(&port.attachment), port.output());
    }

    fn withdraw(&self, attachment: &Attachment) -> impl Future<Output = ()> + Send + use<> {
        self.remove(&PodPort::owner_of(attachment))
    }

    async fn until_connected(&self, port: &PodPort, _: &[IpAddr]) -> Result<(), CniError> {
        let uid = port.uid.clone();
        let installed = move |row: Option<interface::Ref<'_>>| {
            let ids = row?.external_ids();
            (ids.get("ovn-installed") == Some("true") && ids.get("iface-id-ver") == Some(uid.as_str())).then_some(())
        };
        self.wait(&PodPort::owner_of(&port.attachment), installed).await.map_err(|e| refused(&e))
    }

    /// ovn-controller makes a port of br-int for the Network's localnet port, and in its next turn, after the pod's own flows are installed, all
    /// flows between the two at once.
    async fn until_on_wire(&self, network: &str) -> Result<(), CniError> {
        let localnet = network_localnet(network);
        let state = self.until(|s| s.localnets.contains_key(&localnet)).await.map_err(|e| refused(&e))?;
        if let (Some(socket), Some(port)) = (self.flows(), state.localnets.get(&localnet))
            && let Err(e) = openflow::until_received(socket, *port).await
        {
            warn!("whether Network {network} is connected: {e}: {}", causes(&e));
        }
        Ok(())
    }

    async fn connected(&self, port: &PodPort) -> Result<Result<(), String>, CniError> {
        let installed = |row: Option<interface::Ref<'_>>| {
            Some(row.is_some_and(|r| r.external_ids().get("ovn-installed") == Some("true")))
        };
        let installed = self.wait(&PodPort::owner_of(&port.attachment), installed).await.map_err(|e| refused(&e))?;
        let host = PodPort::host_name(&port.attachment);
        Ok(installed.then_some(()).ok_or_else(|| format!("port {host} is not installed by ovn-controller")))
    }

    async fn fault(&self, attachment: &Attachment) -> Option<String> {
        let now = |row: Option<interface::Ref<'_>>| {
            Some(match row {
                None => Some("its Interface is not in Open_vSwitch".to_owned()),
                Some(row) => row.error().map(|e| format!("ovs-vswitchd reports: {e}")),
            })
        };
        self.wait(&PodPort::owner_of(attachment), now).await.ok().flatten()
    }

    fn allow_deletes(&self) {
        Vswitch::allow_deletes(self);
    }
}

pub(crate) fn refused(error: &RowError) -> CniError {
    let code = match error {
        RowError::Rejected(_) => Code::Internal,
        RowError::Stopping => Code::TryAgainLater,
    };
    CniError::new(code, error.to_string())
}
