//! Conditions in the status of admin policies and Networks: `Accepted` says whether all of an object is in effect, and if not, what is wrong.
//!
//! A condition is written when it differs from what the object has, so a restart writes nothing, and a status that somebody else
//! changed is left alone until the object changes. Must not: block the pipeline, write while another master leads, or touch conditions of others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use ovenbird_daemon::{access, rights};
use ovenbird_reconcile::{Diagnostic, Owner, Severity};
use ovenbird_topology::kinds;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::event::truncate;
use crate::lease::Validity;
use crate::object::{admin_policy, network};

/// `type` of our condition.
const ACCEPTED: &str = "Accepted";
/// Who we are in managedFields.
const MANAGER: &str = "ovenbird-master";
/// Longest `message` that we write.
const LONGEST: usize = 1024;

/// What an object is to be told.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    owner: Owner,
    reason: &'static str,
    message: String,
}

/// Sends conditions to their writer, each once.
#[derive(Debug)]
pub struct Conditions {
    told: FxHashMap<Owner, Verdict>,
    queue: mpsc::UnboundedSender<Verdict>,
}

impl Conditions {
    /// Starts the task that writes conditions while `validity` holds.
    pub fn spawn(client: kube::Client, validity: Validity) -> Conditions {
        let (queue, mut verdicts) = mpsc::unbounded_channel::<Verdict>();
        tokio::spawn(async move {
            while let Some(verdict) = verdicts.recv().await {
                if validity.is_valid() {
                    write(&client, &verdict).await;
                }
            }
        });
        Conditions { told: FxHashMap::default(), queue }
    }

    /// The object changed: what it was told may be about an older generation.
    pub fn forget(&mut self, owner: &Owner) {
        self.told.remove(owner);
    }

    /// We lead from now on: what was said before, nobody has written.
    pub fn lead(&self) {
        // A writer that is gone ends with the process.
        self.told.values().for_each(|verdict| drop(self.queue.send(verdict.clone())));
    }

    /// What became of an owner's translation; of interest when it has such a condition.
    pub fn set(&mut self, owner: &Owner, diagnostics: &[Diagnostic]) {
        if resource(owner).is_none() {
            return;
        }
        let wrong: Vec<&Diagnostic> = diagnostics.iter().filter(|d| d.severity != Severity::Note).collect();
        let text = |d: &&Diagnostic| format!("{}: {}", d.field, d.message);
        let (reason, mut message) = match wrong.first() {
            None if owner.kind == kinds::NETWORK => ("Translated", "it is in effect".to_owned()),
            None => ("Translated", "all of the policy is in effect".to_owned()),
            Some(first) => (first.reason, wrong.iter().map(text).collect::<Vec<_>>().join("; ")),
        };
        truncate(&mut message, LONGEST);
        let verdict = Verdict { owner: owner.clone(), reason, message };
        if self.told.get(owner) == Some(&verdict) {
            return;
        }
        self.told.insert(owner.clone(), verdict.clone());
        // As above.
        let _ = self.queue.send(verdict);
    }
}

/// The kind of an object that has such a condition.
fn resource(owner: &Owner) -> Option<ApiResource> {
    let policy = kinds::admin_key(owner).map(|(kind, _)| admin_policy::resource(kind));
    policy.or_else(|| network::resource(owner.kind.name).filter(|_| owner.kind == kinds::NETWORK))
}

async fn write(client: &kube::Client, verdict: &Verdict) {
    let Some(resource) = resource(&verdict.owner) else { return };
    let name = &*verdict.owner.key;
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let wanted = async || {
        let Some(object) = objects.get_opt(name).await? else { return Ok(()) };
        let Some(condition) = condition(&object, verdict) else { return Ok(()) };
        let patch = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        let params = PatchParams::apply(MANAGER).force();
        objects.patch_status(name, &params, &Patch::Apply(&patch)).await.map(drop)
    };
    match access::insist(wanted).await {
        Ok(()) => {}
        Err(error) if rights::was_told(&error) => {}
        // It went meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => tracing::warn!(%error, kind = resource.kind, name, "cannot write a condition"),
    }
}

/// The condition to write; `None` when the object has it.
fn condition(object: &DynamicObject, verdict: &Verdict) -> Option<Condition> {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let before = conditions.into_iter().flatten().find(|condition| condition["type"] == ACCEPTED);
    let before: Option<Condition> = before.and_then(|condition| serde_json::from_value(condition.clone()).ok());
    let status = if verdict.reason == "Translated" { "True" } else { "False" };
    let since = before.as_ref().filter(|b| b.status == status).map(|b| b.last_transition_time.clone());
    let wanted = Condition {
        last_transition_time: since.unwrap_or_else(now),
        message: verdict.message.clone(),
        observed_generation: object.metadata.generation,
        reason: verdict.reason.into(),
        status: status.into(),
        type_: ACCEPTED.into(),
    };
    (before.as_ref() != Some(&wanted)).then_some(wanted)
}

/// Now, in seconds as the API has it.
fn now() -> Time {
    let now = jiff::Timestamp::now();
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(conditions: &Value) -> DynamicObject {
        serde_json::from_value(json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
            "metadata": {"name": "a", "generation": 3}, "status": {"conditions": conditions}}))
        .expect("an object")
    }

    #[test]
    fn what_is_there_is_not_written_again() {
        let mut verdict = Verdict {
            owner: Owner::new(kinds::ADMIN_NETWORK_POLICY, "a"),
            reason: "Translated",
            message: "fine".into(),
        };
        let first = condition(&object(&json!([])), &verdict).expect("a condition");
        assert_eq!((&*first.status, first.observed_generation), ("True", Some(3)));
        let there = json!([{"type": "Other", "status": "True"}, first]);
        assert_eq!(condition(&object(&there), &verdict), None);
        // The same status with another text keeps its time.
        verdict.message = "well".into();
        let second = condition(&object(&there), &verdict).expect("a condition");
        assert_eq!(second.last_transition_time, first.last_transition_time);
        verdict.reason = "InvalidPolicy";
        assert_eq!(condition(&object(&there), &verdict).expect("a condition").status, "False");
    }

    /// What a standby says is not written; the writer drops it.
    #[tokio::test]
    async fn who_comes_to_lead_says_it_again() {
        let (queue, mut verdicts) = mpsc::unbounded_channel();
        let mut conditions = Conditions { told: FxHashMap::default(), queue };
        let owner = Owner::new(kinds::ADMIN_NETWORK_POLICY, "a");
        conditions.set(&owner, &[]);
        conditions.set(&owner, &[]);
        conditions.set(&Owner::new(kinds::POD, "ns/a"), &[]);
        let first = verdicts.try_recv().expect("a verdict");
        assert!(verdicts.try_recv().is_err(), "each is said once");
        conditions.lead();
        assert_eq!(verdicts.try_recv().expect("it is said again"), first);
        conditions.forget(&first.owner);
        conditions.set(&owner, &[]);
        assert!(verdicts.try_recv().is_ok(), "a new generation is told anew");
    }
}
