//! What a pod's ADD has to do besides when a DHCP server gives its address, and what a later daemon does about it.
//!
//! ```text
//! port is connected -> lease -> nobody else has it -> address, routes -> annotation -> master -> OVN lets the address pass: the router, or the server, answers it
//! ```
//!
//! Must not: speak to servers (`dhcp`).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ovenbird_api::annotation::LEASE;
use ovenbird_cni_server::{Add, CniError, Code, PodRef};
use ovenbird_reconcile::Diagnostic;
use tracing::warn;

use super::{Plug, internal, link_error};
use crate::cable::Cable;
use crate::dhcp::message::Kind;
use crate::dhcp::{self, Holder, Session};
use crate::net::neighbour::{Question, ask};
use crate::net::{NetOps, Veth, causes};
use crate::pods::ReadyPod;
use crate::rows::PodPort;
use crate::step::{Progress, Step};

impl<N: NetOps, C: Cable> Plug<N, C> {
    /// Gets the pod's address from a server, and has it pass. Returns the pair with all of it, and the default gateway.
    pub(super) async fn lease(
        &self,
        add: &Add,
        pod: &ReadyPod,
        veth: &Veth,
        progress: &Progress<'_>,
    ) -> Result<(Veth, Option<Ipv4Addr>), CniError> {
        progress.at(Step::Lease);
        let holder = holder(add, pod, veth);
        if self.leases.grant(&add.attachment).is_none() {
            if let Some(lease) = &pod.lease {
                self.leases.forget_ended(&holder, lease);
            }
            let hint = pod.lease.as_ref().map(|lease| lease.address.addr());
            let session = self.leases.obtain(&holder, hint).await.map_err(|e| link_error(&e))?;
            let session = if pod.network.probe { self.unless_taken(&holder, session).await? } else { session };
            self.leases.keep(holder, session);
        }
        let Some(grant) = self.leases.grant(&add.attachment) else {
            return Err(CniError::new(Code::TryAgainLater, "the DHCP server has taken the address back"));
        };
        let whole = dhcp::leased(veth, &grant);
        self.net.configure_veth(&whole).await.map_err(|e| link_error(&e))?;
        progress.at(Step::Address);
        self.leases.until_written(&add.attachment).await;
        if let Some(to) = dhcp::neighbour(&grant) {
            let question = Question { mac: veth.mac, from: grant.terms.address.addr().into(), to: to.into() };
            ask(&veth.netns, &veth.ifname, question).await.map_err(|e| internal(&e))?;
        }
        Ok((whole, dhcp::router(&grant)))
    }

    /// Asks whether somebody else has the address; then the server is told (RFC 2131, section 3.1, step 5).
    async fn unless_taken(&self, holder: &Holder, session: Session) -> Result<Session, CniError> {
        let Some(ip) = session.grant().map(|grant| IpAddr::V4(grant.terms.address.addr())) else { return Ok(session) };
        let found = self.net.probe(&holder.veth, &[ip]).await.map_err(|e| link_error(&e))?;
        let Some((_, mac)) = found else { return Ok(session) };
        let what = format!(
            "address {ip}, which the DHCP server of Network {} gave, is in use: {mac} answers for it on the physical network",
            holder.network
        );
        let advice =
            "the server is told, and asked for another; take the address out of its range if it is to stay there";
        let (namespace, name, uid) = &holder.pod;
        let field = format!("metadata.annotations[{LEASE}]");
        (self.tell)(namespace, name, uid, Diagnostic::error("AddressConflict", field, format!("{what}; {advice}")));
        if let Err(e) = session.end(Kind::Decline).await {
            warn!("telling the server: {e}: {}", causes(&e));
        }
        Err(CniError::new(Code::TryAgainLater, what).details(advice))
    }

    /// Tells a pod's owner that no server has answered.
    pub(super) fn tell_no_lease(&self, pod: &PodRef) {
        let Some(found) = self.pods.get(&pod.namespace, &pod.name).filter(|p| p.is(pod.uid.as_deref())) else { return };
        let network = found.on.as_deref().unwrap_or_default();
        let message = format!(
            "no DHCP server gives an address on Network {network}: see that one serves its VLAN and has free addresses, or a relay leads there; \
             the pod is tried again"
        );
        let field = format!("metadata.annotations[{LEASE}]");
        (self.tell)(&pod.namespace, &pod.name, &found.uid, Diagnostic::warning("NoLease", field, message));
    }

    /// Looks after the lease of a port that an earlier daemon has attached, if it has one.
    pub async fn resume(self: Arc<Self>, port: PodPort) {
        self.pods.until_complete().await;
        let (namespace, name) = port.pod();
        let uid = Some(port.uid.clone());
        // Of a pod that is gone the port goes, too.
        if !self.pods.get(namespace, name).is_some_and(|pod| pod.is(uid.as_deref())) {
            return;
        }
        let pod = PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid };
        let add = Add { attachment: port.attachment.clone(), netns: port.netns.clone(), pod };
        let (Ok(pod), Ok(userspace)) = (self.pods.until_ready(&add.pod).await, self.cable.until_ready().await) else {
            return;
        };
        if !pod.network.dhcp {
            return;
        }
        let slot = self.slot(&port.attachment);
        let _turn = slot.turn.lock().await;
        if self.known().ports.get(&port.attachment) != Some(&port) || self.leases.grant(&port.attachment).is_some() {
            return;
        }
        match &pod.lease {
            Some(lease) => self.leases.resume(holder(&add, &pod, &self.veth(&port, &pod, userspace)), lease),
            None => warn!(
                "pod {namespace}/{name} has no annotation {LEASE}: its address is not renewed; delete the pod, so that it is made anew"
            ),
        }
    }
}

fn holder(add: &Add, pod: &ReadyPod, veth: &Veth) -> Holder {
    Holder {
        attachment: add.attachment.clone(),
        pod: (add.pod.namespace.clone(), add.pod.name.clone(), pod.uid.clone()),
        network: pod.on.clone().unwrap_or_default(),
        veth: veth.clone(),
    }
}
