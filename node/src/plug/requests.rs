//! [`Attach`]: what the CNI server asks of a plug. One request at a time for an attachment, and each ends before its deadline, saying what it waited for.
//!
//! Must not: change rows or links by itself (`plug`).

use std::sync::PoisonError;
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_cni_server::{Add, Attach, Attached, Attachment, Check, CniError, Code, Del, Interface, Ip};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Plug, internal};
use crate::cable::Cable;
use crate::net::NetOps;
use crate::readiness::Part;
use crate::rows::PodPort;
use crate::step::{Progress, Step};

/// ADD gives up so long before its deadline, to have time to say why and to take back what it made.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

impl<N: NetOps, C: Cable> Attach for Plug<N, C> {
    async fn add(&self, add: Add, deadline: Instant) -> Result<Attached, CniError> {
        let slot = self.slot(&add.attachment);
        let _turn = slot.turn.lock().await;
        let cancelled = CancellationToken::new();
        *slot.cancel.lock().unwrap_or_else(PoisonError::into_inner) = cancelled.clone();
        let progress = Progress::new(&self.metrics);
        let result = tokio::select! {
            result = self.try_add(&add, &progress) => result,
            () = cancelled.cancelled() => Err(CniError::new(Code::TryAgainLater, "DEL came while ADD was under way")),
            () = tokio::time::sleep_until(deadline - MARGIN) => {
                let found = match progress.step() {
                    Step::Ovn => self.cable.fault(&add.attachment).await,
                    Step::Lease => {
                        self.tell_no_lease(&add.pod);
                        None
                    }
                    _ => None,
                };
                Err(progress.step().timed_out(&add.pod, found))
            }
        };
        if let Err(error) = &result {
            tracing::warn!(pod = format!("{}/{}", add.pod.namespace, add.pod.name), "ADD failed: {error}");
            // What remains after this is found by the DEL that the runtime sends after a failed ADD.
            drop(self.unplug(&add.attachment).await);
        }
        result
    }

    async fn del(&self, del: Del, _: Instant) -> Result<(), CniError> {
        let slot = self.slot(&del.attachment);
        slot.cancel.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        let _turn = slot.turn.lock().await;
        self.unplug(&del.attachment).await
    }

    async fn check(&self, check: Check, _: Instant) -> Result<(), CniError> {
        self.readiness.wait(Part::Restored).await;
        let failed = |what: String| Err(CniError::new(Code::CheckFailed, what));
        let Attachment { container_id, ifname } = &check.attachment;
        let Some(port) = self.known().ports.get(&check.attachment).cloned() else {
            return failed(format!("{ifname} of sandbox {container_id} is not attached"));
        };
        if self.net.netns_id(&check.netns).map_err(|e| internal(&e))? != port.netns_id {
            return failed(format!("{} is another namespace than the one attached", check.netns.display()));
        }
        let link = self.net.sandbox_link(&check.netns, ifname).await.map_err(|e| internal(&e))?;
        match link {
            None => return failed(format!("interface {ifname} is missing in the sandbox")),
            Some(link) if link.mac != Some(port.mac) => return failed(format!("{ifname} has not MAC {}", port.mac)),
            Some(link) if !link.up => return failed(format!("{ifname} is down")),
            Some(link) => {
                let expected = port.addresses.iter().copied().chain(check.previous.ips.iter().map(|ip| ip.address));
                for address in expected {
                    if !link.addresses.contains(&address) {
                        return failed(format!("{ifname} lacks address {address}"));
                    }
                }
            }
        }
        let host = PodPort::host_name(&check.attachment);
        if self.net.host_link(&host).await.map_err(|e| internal(&e))?.is_none() {
            return failed(format!("host interface {host} is missing"));
        }
        self.cable.connected(&port).await?.or_else(failed)
    }

    fn find(&self, attachment: &Attachment) -> Option<Attached> {
        let port = self.known().ports.get(attachment).cloned()?;
        let inside = Interface {
            name: attachment.ifname.clone(),
            mac: port.mac.to_string(),
            mtu: self.mtu,
            sandbox: Some(port.netns.to_string_lossy().into_owned()),
        };
        let leased = self.leases.grant(attachment).map(|grant| IpNet::V4(grant.terms.address));
        let ips = port.addresses.iter().chain(&leased).map(|address| Ip {
            address: *address,
            gateway: None,
            interface: Some(0),
        });
        Some(Attached { interfaces: vec![inside], ips: ips.collect(), routes: Vec::new() })
    }

    fn status(&self) -> Result<(), CniError> {
        let missing = self.readiness.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let texts: Vec<_> = missing.into_iter().map(Part::text).collect();
        Err(CniError::new(Code::NotAvailable, "the node cannot serve pods yet")
            .details(format!("waiting for {}", texts.join("; "))))
    }

    async fn gc(&self, valid: Vec<Attachment>, deadline: Instant) -> Result<(), CniError> {
        self.readiness.wait(Part::Restored).await;
        let stale: Vec<Attachment> = self.known().ports.keys().filter(|a| !valid.contains(a)).cloned().collect();
        let removals = stale.into_iter().map(|attachment| {
            tracing::info!("GC removes {} of sandbox {}", attachment.ifname, attachment.container_id);
            self.del(Del { attachment, netns: None }, deadline)
        });
        futures::future::join_all(removals).await.into_iter().collect()
    }

    fn observe(&self, command: &'static str, elapsed: Duration, code: u32) {
        self.metrics.cni(command, code, elapsed);
    }
}
