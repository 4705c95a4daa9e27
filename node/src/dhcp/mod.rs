//! Addresses of pods on Networks that leave them to a DHCP server: asked for at ADD, renewed while the pod lives, given back at DEL.
//!
//! ```text
//! ADD --obtain--> [Session]: [client] says what, [wire] carries it --> lease --keep--> a task for each pod, asleep until T1
//! adopted pod, its annotation --resume--> such a task, that first asks whether the lease still holds            '--> annotation: address, end
//! DEL --release--> its server is told                       lost: off the interface, out of the annotation, an Event
//! ```
//!
//! The annotation `ovenbird.io/lease` is all that outlives a daemon: the master reads the address there, and the next daemon what it has to renew. A socket
//! is open while an answer is waited for, and no longer. Must not: judge an address against the Network (topology does).

pub mod client;
pub mod frame;
pub mod message;
pub mod wire;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ovenbird_api::annotation::LEASE;
use ovenbird_api::{Lease, Mac};
use ovenbird_cni_server::Attachment;
use ovenbird_reconcile::Diagnostic;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::net::neighbour::{Question, ask};
use crate::net::{NetError, NetOps, Route, Veth, causes};
use crate::plug::Tell;
use client::{Client, Grant, Loss, NEVER, News, Who};
use frame::To;
use message::{Kind, Reply, Request, Terms};
use wire::Wire;

/// Time that is spent on writing an annotation, or on giving an address back; of that on hearing of its way; between two tries to write.
const LIMIT: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(1);
/// Time until a pod's link that cannot be used is tried again: it goes with the pod, as a rule.
const BROKEN: Duration = Duration::from_secs(10);

/// Writes a pod's annotation, or removes it: (namespace, name, UID, text). The error is for the log, unless it is there already.
pub type Write =
    Box<dyn Fn(&str, &str, &str, Option<String>) -> BoxFuture<'static, Result<(), Option<String>>> + Send + Sync>;

/// Who has a lease.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The attachment.
    pub attachment: Attachment,
    /// Namespace, name and UID of the pod.
    pub pod: (String, String, String),
    /// The Network.
    pub network: String,
    /// The pod's pair, without what is leased.
    pub veth: Veth,
}

/// A client and its way to servers.
pub struct Session {
    client: Client,
    sandbox: PathBuf,
    ifname: String,
    wire: Option<Wire>,
    start: Instant,
}

/// What is known of a lease that is kept.
#[derive(Clone, Debug, Default)]
struct State {
    grant: Option<Grant>,
    /// The annotation says so.
    is_written: bool,
}

struct Kept {
    pod: (String, String, String),
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

/// See the file header.
pub struct Leases<N> {
    net: Arc<N>,
    tell: Tell,
    write: Write,
    kept: Mutex<HashMap<Attachment, Kept>>,
    start: Instant,
}

/// A pod's pair with what is leased: address, MTU unless it is too large, and routes. The cluster's own go before the server's; hops that are not on the link are
/// left out.
pub fn leased(veth: &Veth, grant: &Grant) -> Veth {
    let Terms { address, mtu, routes, .. } = &grant.terms;
    let default = ipnet::Ipv4Net::default();
    let all = if routes.is_empty() {
        router(grant).map(|hop| (default, Some(hop))).into_iter().collect()
    } else {
        routes.clone()
    };
    let on_link = |hop: &Option<Ipv4Addr>| hop.is_none_or(|hop| address.contains(&hop));
    let given = all.into_iter().filter(|(_, hop)| on_link(hop));
    let given = given.map(|(net, hop)| Route::to(IpNet::V4(net), hop.map(IpAddr::V4)));
    let given = given.filter(|route| veth.routes.iter().all(|own| own.dst != route.dst));
    Veth {
        mtu: mtu.unwrap_or(u32::MAX).min(veth.mtu),
        addresses: vec![IpNet::V4(*address)],
        routes: given.chain(veth.routes.iter().cloned()).collect(),
        ..veth.clone()
    }
}

/// The default gateway of a lease.
pub fn router(grant: &Grant) -> Option<Ipv4Addr> {
    let Terms { address, router, routes, .. } = &grant.terms;
    let default = || routes.iter().find(|(net, _)| net.prefix_len() == 0).and_then(|(_, hop)| *hop);
    let found = if routes.is_empty() { *router } else { default() };
    found.filter(|hop| address.contains(hop))
}

/// Somebody on the link whom an address can be tried on: the router, else the server.
pub fn neighbour(grant: &Grant) -> Option<Ipv4Addr> {
    router(grant).or(Some(grant.server)).filter(|ip| grant.terms.address.contains(ip))
}

impl Session {
    fn new(client: Client, veth: &Veth, start: Instant) -> Session {
        Session { client, sandbox: veth.netns.clone(), ifname: veth.ifname.clone(), wire: None, start }
    }

    /// What it has.
    pub fn grant(&self) -> Option<&Grant> {
        self.client.grant()
    }

    /// Goes on until there is news. May be dropped at any time, and called again.
    async fn news(&mut self) -> Result<News, NetError> {
        loop {
            let now = self.start.elapsed();
            let (sent, news) = self.client.tick(now);
            if let Some((request, to)) = sent {
                self.send(&request, to).await?;
            }
            if let Some(news) = news {
                return Ok(news);
            }
            if !self.client.is_asking() {
                self.wire = None;
            }
            let asleep = sleep(self.client.deadline().saturating_sub(self.start.elapsed()));
            let Some(wire) = &self.wire else {
                asleep.await;
                continue;
            };
            let heard = tokio::select! {
                heard = wire.receive() => heard?,
                () = asleep => continue,
            };
            let reply = Reply::decode(&heard.0);
            let now = self.start.elapsed();
            if let Some(news) = reply.and_then(|reply| self.client.receive(&reply, heard.1, now)) {
                return Ok(news);
            }
        }
    }

    async fn send(&mut self, request: &Request, to: To) -> Result<(), NetError> {
        let wire = match &mut self.wire {
            Some(wire) => wire,
            none => none.insert(Wire::open(&self.sandbox, &self.ifname).await?),
        };
        wire.send(&frame::wrap(&request.encode(), (request.address, request.mac), to)).await
    }

    /// Tells the server that the address is not used any more, or cannot be used.
    pub async fn end(mut self, kind: Kind) -> Result<(), NetError> {
        match self.client.end(kind) {
            Some((request, to)) => self.send(&request, to).await,
            None => Ok(()),
        }
    }
}

impl<N: NetOps> Leases<N> {
    /// Knows of no lease yet.
    pub fn new(net: Arc<N>, tell: Tell, write: Write) -> Leases<N> {
        Leases { net, tell, write, kept: Mutex::default(), start: Instant::now() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Attachment, Kept>> {
        // Whole after each of its short changes, so a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks on a pod's link until a server has given an address, `hint` if it can be had.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn obtain(&self, holder: &Holder, hint: Option<Ipv4Addr>) -> Result<Session, NetError> {
        let client = Client::new(who(holder), hint, seed(), self.start.elapsed());
        let mut session = Session::new(client, &holder.veth, self.start);
        loop {
            if let News::Granted(_) = session.news().await? {
                return Ok(session);
            }
        }
    }

    /// Looks after a lease from now on.
    pub fn keep(self: &Arc<Self>, holder: Holder, session: Session) {
        let stop = CancellationToken::new();
        let state = State { grant: session.grant().cloned(), is_written: false };
        let (sender, state) = watch::channel(state);
        let replaced =
            self.kept().insert(holder.attachment.clone(), Kept { pod: holder.pod.clone(), state, stop: stop.clone() });
        if let Some(kept) = replaced {
            kept.stop.cancel();
        }
        tokio::spawn(self.clone().follow(holder, session, sender, stop));
    }

    /// Looks after a lease that an earlier daemon has got: it is used until its end, and a server is asked at once whether it holds.
    pub fn resume(self: &Arc<Self>, holder: Holder, lease: &Lease) {
        let now = self.start.elapsed();
        let left = lease
            .expires
            .as_deref()
            .map(|text| text.parse::<Timestamp>().map(|end| end.duration_since(Timestamp::now())));
        let end = match left {
            None => NEVER,
            Some(Ok(left)) => now.saturating_add(Duration::try_from(left).unwrap_or_default()),
            // Who has written it? The server knows.
            Some(Err(_)) => now.saturating_add(LIMIT),
        };
        let Lease { address, router, server, .. } = *lease;
        let terms = Terms { address, router, mtu: None, routes: Vec::new(), lease: 0, renewal: None, rebinding: None };
        let held = Grant { terms, server, via: To::ALL.mac, renew: now, rebind: now, end };
        let client = Client::rebooting(who(&holder), held, seed(), now);
        let session = Session::new(client, &holder.veth, self.start);
        self.keep(holder, session);
    }

    /// The lease of an attachment.
    pub fn grant(&self, attachment: &Attachment) -> Option<Grant> {
        self.kept().get(attachment).and_then(|kept| kept.state.borrow().grant.clone())
    }

    /// Waits until an attachment's lease is in the annotation.
    pub async fn until_written(&self, attachment: &Attachment) {
        let state = self.kept().get(attachment).map(|kept| kept.state.clone());
        if let Some(mut state) = state {
            drop(state.wait_for(|state| state.is_written).await);
        }
    }

    /// Gives an attachment's address back, and looks after it no more.
    pub async fn release(&self, attachment: &Attachment) {
        let Some(mut kept) = self.kept().remove(attachment) else { return };
        kept.stop.cancel();
        // Its task ends, and the sender with it.
        let ended = async { while kept.state.changed().await.is_ok() {} };
        drop(timeout(LIMIT, ended).await);
    }

    /// A pod's task.
    async fn follow(
        self: Arc<Self>,
        holder: Holder,
        mut session: Session,
        state: watch::Sender<State>,
        stop: CancellationToken,
    ) {
        loop {
            let now = state.borrow().clone();
            let written = async {
                if now.is_written {
                    std::future::pending::<()>().await;
                }
                self.insist(&holder, now.grant.as_ref()).await;
            };
            tokio::select! {
                () = stop.cancelled() => {
                    if let Ok(Err(e)) = timeout(LIMIT, give_back(&holder, session)).await {
                        info!("giving the address of pod {}/{} back: {e}: {}", holder.pod.0, holder.pod.1, causes(&e));
                    }
                    drop(tokio::spawn(async move { self.clear(&holder).await }));
                    return;
                }
                news = session.news() => match news {
                    Ok(news) => {
                        let grant = self.hear(&holder, now.grant.is_some(), news).await;
                        state.send_replace(State { grant, is_written: false });
                    }
                    Err(e) => {
                        warn!("asking for the address of pod {}/{}: {e}: {}", holder.pod.0, holder.pod.1, causes(&e));
                        tokio::select! { () = stop.cancelled() => {} () = sleep(BROKEN) => {} }
                    }
                },
                () = written => state.send_modify(|state| state.is_written = true),
            }
        }
    }

    /// Does what news asks for; the lease from then on.
    async fn hear(&self, holder: &Holder, was_there: bool, news: News) -> Option<Grant> {
        let (namespace, name, uid) = (&holder.pod.0, &holder.pod.1, &holder.pod.2);
        match news {
            News::Granted(grant) => {
                if !was_there {
                    info!("pod {namespace}/{name} has its address {} again", grant.terms.address);
                    if let Err(e) = self.net.configure_veth(&leased(&holder.veth, &grant)).await {
                        warn!("giving it to its interface: {e}: {}", causes(&e));
                    }
                }
                Some(grant)
            }
            News::Lost(ip, why) => {
                let removed = self.net.remove_address(&holder.veth.netns, &holder.veth.ifname, ip.into()).await;
                if let Err(e) = removed {
                    warn!("taking {ip} off the interface of pod {namespace}/{name}: {e}: {}", causes(&e));
                }
                let why = match why {
                    Loss::Expired => "no DHCP server has renewed its lease".to_owned(),
                    Loss::Refused => "the DHCP server does not grant it any more".to_owned(),
                    Loss::Changed(other) => format!("the DHCP server gives it {other} instead"),
                };
                let message = format!(
                    "pod {namespace}/{name} has no address on Network {} any more: {why}, and {ip} is off its interface until a server gives it again; see to the server, then delete the pod, so that it is made anew",
                    holder.network
                );
                warn!("{message}");
                let field = format!("metadata.annotations[{LEASE}]");
                (self.tell)(namespace, name, uid, Diagnostic::warning("LeaseLost", field, message));
                None
            }
        }
    }

    /// Removes the annotation of a pod whose lease ended while nobody looked after it: the address may be another's by now.
    pub fn forget_ended(self: &Arc<Self>, holder: &Holder, lease: &Lease) {
        let end = lease.expires.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        if end.is_some_and(|end| end < Timestamp::now()) {
            let (leases, holder) = (self.clone(), holder.clone());
            drop(tokio::spawn(async move { leases.clear(&holder).await }));
        }
    }

    /// Removes the annotation of a pod that has given its address back, by which the master knows that it needs its port no more; unless another sandbox of it
    /// has a lease.
    async fn clear(&self, holder: &Holder) {
        if !self.kept().values().any(|kept| kept.pod == holder.pod) {
            self.insist(holder, None).await;
        }
    }

    /// Writes the annotation until it is there.
    async fn insist(&self, holder: &Holder, grant: Option<&Grant>) {
        let (namespace, name, uid) = (&holder.pod.0, &holder.pod.1, &holder.pod.2);
        let mut pause = RETRY;
        loop {
            let text = grant.map(|grant| self.annotation(grant).format());
            match timeout(LIMIT, (self.write)(namespace, name, uid, text)).await {
                Ok(Ok(())) => return,
                Ok(Err(Some(e))) => warn!("writing the lease of pod {namespace}/{name}: {e}"),
                Ok(Err(None)) => {}
                Err(_) => warn!("writing the lease of pod {namespace}/{name}: no answer within {LIMIT:?}"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LIMIT);
        }
    }

    fn annotation(&self, grant: &Grant) -> Lease {
        let left = SignedDuration::try_from(grant.end.saturating_sub(self.start.elapsed())).ok();
        let end = left.filter(|_| grant.end != NEVER).and_then(|left| Timestamp::now().checked_add(left).ok());
        Lease {
            address: grant.terms.address,
            router: router(grant),
            server: grant.server,
            // To the second, as Kubernetes writes times.
            expires: end.map(|end| format!("{end:.0}")),
        }
    }
}

/// Tells the server that the pod goes. It does not answer that, so somebody else is asked something: when he does, the message before has passed the switch, and
/// the port may go.
async fn give_back(holder: &Holder, session: Session) -> Result<(), NetError> {
    let Some(grant) = session.grant().cloned() else { return Ok(()) };
    session.end(Kind::Release).await?;
    if let Some(to) = neighbour(&grant) {
        let Veth { netns, ifname, mac, .. } = &holder.veth;
        let question = Question { mac: *mac, from: grant.terms.address.addr().into(), to: to.into() };
        drop(timeout(SETTLED, ask(netns, ifname, question)).await);
    }
    Ok(())
}

fn who(holder: &Holder) -> Who {
    let mac: Mac = holder.veth.mac;
    Who { mac, host_name: holder.pod.1.chars().take(63).collect() }
}

/// Another number each time.
fn seed() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
