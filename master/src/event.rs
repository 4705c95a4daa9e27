//! Tells people what is wrong with their objects: diagnostics become Kubernetes Events (events.k8s.io/v1).
//!
//! An Event's name is a hash of what it says, so the same complaint is one Event, also across restarts and masters. What an
//! object is told is remembered, so that an unchanged complaint costs nothing. The queue is short: when complaints come
//! faster than the API server takes them, the rest is dropped (the status and the log have them). Must not: block the
//! pipeline, or write while another master leads.

use std::hash::{Hash, Hasher};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta, PostParams};
use ovenbird_daemon::{access, rights};
use ovenbird_reconcile::{Diagnostic, Owner, Severity};
use ovenbird_topology::{AdminKind, kinds};
use ovsdb::Str;
use rustc_hash::{FxHashMap, FxHasher};
use tokio::sync::mpsc;

use crate::lease::Validity;
use crate::object::{admin_policy, network};

/// Complaints that may wait to be written.
const QUEUE: usize = 256;
/// Longest note that the API accepts.
const NOTE: usize = 1024;
/// So much of an object's name goes into an Event's name, which holds 253 characters.
const NAME: usize = 230;

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `Node`, `Pod`, ...
    pub kind: &'static str,
    /// `namespace/name`, or `name`.
    pub key: Str,
}

/// Who complains; each replaces only its own complaints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The translation of the object.
    Translation,
    /// The choice of subnets, ids and addresses.
    Allocation,
    /// The database.
    Commit,
}

/// Remembers what each object was told, and sends what is new.
#[derive(Debug)]
pub struct Reporter {
    told: FxHashMap<(Source, Subject), Vec<u64>>,
    queue: mpsc::Sender<(Subject, Diagnostic)>,
}

impl Reporter {
    /// Starts the task that writes Events in the name of `identity` while `validity` holds.
    pub fn spawn(client: kube::Client, identity: String, validity: Validity) -> Reporter {
        let (queue, mut complaints) = mpsc::channel::<(Subject, Diagnostic)>(QUEUE);
        tokio::spawn(async move {
            while let Some((subject, diagnostic)) = complaints.recv().await {
                if validity.is_valid() {
                    publish(&client, &identity, &subject, &diagnostic).await;
                }
            }
        });
        Reporter { told: FxHashMap::default(), queue }
    }

    /// All complaints of `source` about an object as of now. Those it was not told yet are sent.
    pub fn set(&mut self, source: Source, subject: Subject, diagnostics: &[Diagnostic]) {
        let place = (source, subject);
        if diagnostics.is_empty() {
            self.told.remove(&place);
            return;
        }
        let hashes: Vec<u64> = diagnostics.iter().map(hash).collect();
        let before = self.told.insert(place.clone(), hashes.clone()).unwrap_or_default();
        let (_, subject) = place;
        for (diagnostic, _) in diagnostics.iter().zip(hashes).filter(|(_, h)| !before.contains(h)) {
            let Diagnostic { reason, field, message, .. } = diagnostic;
            tracing::info!(kind = subject.kind, object = %subject.key, reason, field, "{message}");
            // A full queue: the log has it.
            let _ = self.queue.try_send((subject.clone(), diagnostic.clone()));
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

async fn publish(client: &kube::Client, identity: &str, subject: &Subject, diagnostic: &Diagnostic) {
    let uid = match access::insist(|| uid_of(client, subject)).await {
        Ok(Some(uid)) => uid,
        // Gone: nobody would read it.
        Ok(None) => return,
        Err(error) if rights::was_told(&error) => return,
        Err(error) => return tracing::warn!(%error, object = %subject.key, "cannot read the object of an Event"),
    };
    let event = render(identity, subject, uid, diagnostic);
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    match access::insist(|| async { events.create(&PostParams::default(), &event).await }).await {
        Ok(_) => {}
        // It was said before.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) if rights::was_told(&error) => {}
        Err(error) => tracing::warn!(%error, object = %subject.key, "cannot write an Event"),
    }
}

/// `kubectl describe` shows an Event only with the object's UID.
async fn uid_of(client: &kube::Client, subject: &Subject) -> Result<Option<String>, kube::Error> {
    let resource = subject.resource();
    let (namespace, name) = subject.split();
    let objects: Api<PartialObjectMeta<DynamicObject>> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok(objects.get_opt(name).await?.and_then(|object| object.metadata.uid))
}

impl Subject {
    /// The object that an owner stands for; `None` for those that stand for several.
    pub fn of(owner: &Owner) -> Option<Subject> {
        let kind = match owner.kind {
            kinds::POD_SELECTOR | kinds::PEER => return None,
            kinds::NETPOL_NAMESPACE => "Namespace",
            kind => kind.name,
        };
        Some(Subject { kind, key: owner.key.clone() })
    }

    /// The object's kind as dynamic clients name it.
    fn resource(&self) -> ApiResource {
        if let Some(kind) = AdminKind::ALL.into_iter().find(|kind| kind.as_str() == self.kind) {
            return admin_policy::resource(kind);
        }
        if let Some(resource) = network::resource(self.kind) {
            return resource;
        }
        let (group, plural) = match self.kind {
            "NetworkPolicy" => ("networking.k8s.io", "networkpolicies".into()),
            "ServiceCIDR" => ("networking.k8s.io", "servicecidrs".into()),
            kind => ("", format!("{}s", kind.to_lowercase())),
        };
        let api_version = if group.is_empty() { "v1".into() } else { format!("{group}/v1") };
        ApiResource { group: group.into(), version: "v1".into(), api_version, kind: self.kind.into(), plural }
    }

    fn split(&self) -> (Option<&str>, &str) {
        match self.key.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, &*self.key),
        }
    }
}

fn render(identity: &str, subject: &Subject, uid: String, diagnostic: &Diagnostic) -> Event {
    let (namespace, name) = subject.split();
    let mut note = match &*diagnostic.field {
        "" => diagnostic.message.clone(),
        field => format!("{field}: {}", diagnostic.message),
    };
    truncate(&mut note, NOTE);
    let mut short = name.to_owned();
    truncate(&mut short, NAME);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", short.trim_end_matches(['.', '-']), hash(&(subject, &uid, diagnostic)))),
            // Events about cluster-scoped objects live in `default`.
            namespace: Some(namespace.unwrap_or("default").to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(subject.resource().api_version),
            kind: Some(subject.kind.into()),
            namespace: namespace.map(str::to_owned),
            name: Some(name.into()),
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        type_: Some(if diagnostic.severity == Severity::Note { "Normal" } else { "Warning" }.into()),
        reason: Some(diagnostic.reason.into()),
        action: Some("Translate".into()),
        note: Some(note),
        event_time: Some(MicroTime(jiff::Timestamp::now())),
        reporting_controller: Some("ovenbird.io/master".into()),
        reporting_instance: Some(identity.chars().take(128).collect()),
        ..Event::default()
    }
}

/// Cuts at a character boundary.
pub(crate) fn truncate(text: &mut String, most: usize) {
    let end = (0..=most.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(message: &str) -> Diagnostic {
        let field = "metadata.annotations[k8s.ovn.org/pod-networks]".into();
        Diagnostic { severity: Severity::Error, reason: "InvalidAnnotation", field, message: message.into() }
    }

    fn subject(key: &str) -> Subject {
        Subject { kind: "Pod", key: key.into() }
    }

    #[test]
    fn an_event_names_object_field_and_remedy() {
        let event = render("me", &subject("ns/web"), "u1".into(), &diagnostic("not JSON; remove it"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("ns"));
        assert_eq!(event.regarding.and_then(|r| r.name).as_deref(), Some("web"));
        assert_eq!(event.note.as_deref(), Some("metadata.annotations[k8s.ovn.org/pod-networks]: not JSON; remove it"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }

    #[test]
    fn long_texts_fit_the_limits_of_the_api() {
        let event =
            render("me", &subject(&format!("ns/{}", "n".repeat(253))), "u1".into(), &diagnostic(&"é".repeat(2000)));
        assert!(event.metadata.name.is_some_and(|n| n.len() <= 253));
        assert!(event.note.is_some_and(|n| n.len() <= NOTE));
    }

    #[tokio::test]
    async fn what_was_told_is_not_told_again() {
        let (queue, mut sent) = mpsc::channel(8);
        let mut reporter = Reporter { told: FxHashMap::default(), queue };
        reporter.set(Source::Allocation, subject("ns/a"), &[diagnostic("one")]);
        reporter.set(Source::Allocation, subject("ns/a"), &[diagnostic("one"), diagnostic("two")]);
        reporter.set(Source::Allocation, subject("ns/a"), &[]);
        reporter.set(Source::Allocation, subject("ns/a"), &[diagnostic("one")]);
        let mut messages = Vec::new();
        while let Ok((_, diagnostic)) = sent.try_recv() {
            messages.push(diagnostic.message);
        }
        assert_eq!(messages, ["one", "two", "one"]);
    }
}
