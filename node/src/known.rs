//! All objects of a kind, as what is kept of each.
//!
//! ```text
//! watch --> [follow]: key -> what is told of the object --> channel, told of changes only        [derive]: what follows from that
//! ```
//!
//! Must not: keep objects, or count them as gone before a list is complete.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use ovenbird_api::name;
use ovenbird_daemon::{access, rights};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;

/// By `namespace/name`, or name; `None` until they are listed.
pub type Known<T> = Option<BTreeMap<String, T>>;

/// What it means that the API server does not know a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It will: until then, and until we may read it, nothing is known.
    Waits,
    /// There are no objects. Where we may not read it there are none but those that were known.
    Empty,
    /// There are none but those that were known, as when we may not read it.
    Kept,
}

/// A watch of all objects that an API names, which tries again after failures.
pub fn watch_all<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, watcher::Config::default()).backoff(access::watch_backoff())
}

/// Follows a watch of a kind (its plural, for people). Objects of which `tell` says nothing are left out.
pub fn follow<K, T>(
    all: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    plural: &'static str,
    absence: Absence,
    tell: impl Fn(&K) -> Option<T> + Send + 'static,
) -> watch::Receiver<Known<T>>
where
    K: ResourceExt + Send + 'static,
    T: PartialEq + Send + Sync + 'static,
{
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        let mut all = std::pin::pin!(all);
        let mut listing = BTreeMap::new();
        while let Some(event) = all.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => listing.extend(tell(&object).map(|told| (key(&object), told))),
                Ok(Event::InitDone) => replace(&tx, std::mem::take(&mut listing)),
                Ok(Event::Apply(object)) => change(&tx, key(&object), tell(&object)),
                Ok(Event::Delete(object)) => change(&tx, key(&object), None),
                Err(e) if access::is_unknown_kind(&e) && absence == Absence::Empty => replace(&tx, BTreeMap::new()),
                Err(e) if rights::was_told(&e) || (access::is_unknown_kind(&e) && absence == Absence::Kept) => {
                    if absence != Absence::Waits && tx.borrow().is_none() {
                        replace(&tx, BTreeMap::new());
                    }
                }
                Err(e) => warn!("watching {plural}: {e}"),
            }
        }
    });
    rx
}

/// What follows from what another channel tells, told when it differs; it ends with the other.
pub fn derive<A, B>(mut from: watch::Receiver<A>, of: impl Fn(&A) -> B + Send + 'static) -> watch::Receiver<B>
where
    A: Send + Sync + 'static,
    B: PartialEq + Send + Sync + 'static,
{
    let (tx, rx) = watch::channel(of(&from.borrow_and_update()));
    tokio::spawn(async move {
        while from.changed().await.is_ok() {
            let new = of(&from.borrow_and_update());
            tx.send_if_modified(|old| {
                let differs = *old != new;
                *old = new;
                differs
            });
        }
    });
    rx
}

fn key(object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => name::key(&namespace, &object.name_any()),
        None => object.name_any(),
    }
}

fn replace<T: PartialEq>(tx: &watch::Sender<Known<T>>, new: BTreeMap<String, T>) {
    tx.send_if_modified(|old| {
        let differs = old.as_ref() != Some(&new);
        *old = Some(new);
        differs
    });
}

fn change<T: PartialEq>(tx: &watch::Sender<Known<T>>, key: String, new: Option<T>) {
    tx.send_if_modified(|all| {
        let Some(all) = all else { return false };
        if all.get(&key) == new.as_ref() {
            return false;
        }
        match new {
            Some(told) => drop(all.insert(key, told)),
            None => drop(all.remove(&key)),
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use tokio::sync::mpsc;

    use super::*;

    type Told = mpsc::UnboundedSender<watcher::Result<Event<Namespace>>>;

    /// Namespaces that follow what is sent, but for one that nothing is told of.
    fn followed(absence: Absence) -> (Told, watch::Receiver<Known<String>>) {
        let (tx, mut events) = mpsc::unbounded_channel();
        let all = futures::stream::poll_fn(move |context| events.poll_recv(context));
        let tell = |object: &Namespace| Some(object.name_any()).filter(|name| name != "none");
        (tx, follow(all, "namespaces", absence, tell))
    }

    fn object(name: &str) -> Namespace {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
    }

    async fn await_keys(known: &mut watch::Receiver<Known<String>>, keys: &[&str]) {
        let there = |all: &Known<String>| all.as_ref().is_some_and(|all| all.keys().eq(keys.iter().copied()));
        known.wait_for(there).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_gone_before_a_list_is_complete() {
        let (tx, mut known) = followed(Absence::Waits);
        let send = |event| tx.send(Ok(event)).unwrap();
        for event in [Event::Init, Event::InitApply(object("a")), Event::InitApply(object("none"))] {
            send(event);
        }
        assert_eq!(*known.borrow(), None);
        send(Event::InitDone);
        await_keys(&mut known, &["a"]).await;
        for event in [Event::Apply(object("b")), Event::Init, Event::InitApply(object("b"))] {
            send(event);
        }
        await_keys(&mut known, &["a", "b"]).await;
        send(Event::InitDone);
        await_keys(&mut known, &["b"]).await;
        send(Event::Delete(object("b")));
        await_keys(&mut known, &[]).await;
    }

    #[tokio::test]
    async fn a_kind_that_is_not_there() {
        let status = kube::core::Status { code: 404, ..kube::core::Status::default() };
        let unknown = || watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status.clone())));
        for (absence, left) in [(Absence::Empty, 0), (Absence::Kept, 1)] {
            let (tx, mut known) = followed(absence);
            tx.send(Err(unknown())).unwrap();
            await_keys(&mut known, &[]).await;
            let mut count = derive(known, |all| all.as_ref().map(BTreeMap::len));
            for event in [Event::Init, Event::InitApply(object("a")), Event::InitDone] {
                tx.send(Ok(event)).unwrap();
            }
            count.wait_for(|count| *count == Some(1)).await.unwrap();
            tx.send(Err(unknown())).unwrap();
            tx.send(Ok(Event::Apply(object("b")))).unwrap();
            count.wait_for(|count| *count == Some(left + 1)).await.unwrap();
        }
    }
}
