//! What ADD does for a pod on a Network: tells ovn-controller of the first one, waits for the way to the wire, and asks there whether somebody
//! else has the pod's addresses.
//!
//! In: an attachment that is connected. Out: whether it may have its addresses; what ovn-controller, the pod's owner and the master are told. Must
//! not: refuse a pod because nobody answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use ipnet::IpNet;
use ovenbird_api::Mac;
use ovenbird_cni_server::{Attachment, CniError, Code};
use ovenbird_reconcile::Diagnostic;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::warn;

use super::{Plug, link_error};
use crate::cable::Cable;
use crate::net::{NetOps, Veth};

/// How long the way to the wire is waited for. It may not come: on a node that is not on the physical network.
const PATIENCE: Duration = Duration::from_secs(5);

/// By Network that a pod has come to in this run, where none was: a number that grows each time.
pub type Entered = BTreeMap<String, u64>;

/// Tells that somebody on a Network has an address: (Network, address, its MAC). Returns when it is known, or cannot be told.
pub type Report = Box<dyn Fn(&str, IpAddr, Mac) -> BoxFuture<'static, ()> + Send + Sync>;

impl<N: NetOps, C: Cable> Plug<N, C> {
    /// A port of a Network is connected. Of the first one on this node ovn-controller is told, and its way to the wire is another one than was
    /// waited for before.
    pub(super) fn enter(&self, attachment: &Attachment, network: &str) -> Arc<OnceCell<()>> {
        let mut known = self.known();
        let first = known.on.values().all(|other| other != network);
        known.on.insert(attachment.clone(), network.to_owned());
        if first {
            known.ways.remove(network);
            self.entered.send_modify(|all| *all.entry(network.to_owned()).or_insert_with(since_1970) += 1);
        }
        known.ways.entry(network.to_owned()).or_default().clone()
    }

    /// Waits until probes reach the wire. Once for all pods: what one of them has seen, or waited for in vain, is no more waited for.
    pub(super) async fn wait_for_wire(&self, network: &str, way: &OnceCell<()>) {
        way.get_or_init(async || match timeout(PATIENCE, self.cable.until_on_wire(network)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!("whether Network {network} is connected: {e}"),
            Err(_) => {
                let why = "pods come up without knowing whether others have their addresses";
                warn!("Network {network} is not connected to its physical network after {PATIENCE:?}: {why}");
            }
        })
        .await;
    }

    /// Asks on the Network whether somebody else has the pod's addresses.
    pub(super) async fn probe(&self, pod: (&str, &str, &str), network: &str, veth: &Veth) -> Result<(), CniError> {
        let addresses: Vec<IpAddr> = veth.addresses.iter().map(IpNet::addr).collect();
        let Some((ip, mac)) = self.net.probe(veth, &addresses).await.map_err(|e| link_error(&e))? else {
            return Ok(());
        };
        let what = format!("address {ip} of Network {network} is in use: {mac} answers for it on the physical network");
        let advice = format!(
            "the pod gets another address; put {ip} into excludeIPs of the Network if it is to stay there, or remove it from that \
             host and from status.inUse of the Network"
        );
        let (namespace, name, uid) = pod;
        let field = format!("metadata.annotations[{}]", ovenbird_api::annotation::POD_NETWORKS);
        let message = format!("{what}; {advice}");
        (self.tell)(namespace, name, uid, Diagnostic::error("AddressConflict", field, message));
        (self.report)(network, ip, mac).await;
        Err(CniError::new(Code::TryAgainLater, what).details(advice))
    }
}

/// Seconds: later runs of the daemon begin with larger numbers.
fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
