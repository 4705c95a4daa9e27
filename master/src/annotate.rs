//! Writes annotations to Kubernetes: many in flight, none rate-limited, each guarded.
//!
//! ```text
//! pipeline --Request--> [Annotator: N at once] --PATCH (uid and resourceVersion must match)--> API server
//!     ^--------------------- Done ----------------------+
//! ```
//!
//! The guards make a write land on the object that was looked at or not at all: not on a re-created pod of the same name,
//! and not over what another master has written meanwhile. A process that was paused asks [`Validity`] before it sends.
//! Must not: choose a value, or try again by itself (the pipeline knows the newer object).

use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, Patch, PatchParams};
use ovenbird_daemon::rights;
use ovsdb::Str;
use tokio::sync::mpsc;

use crate::lease::Validity;
use crate::object::{Guard, NodeKind, PodKind, Slim};

/// What is annotated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A node by name.
    Node(Str),
    /// A pod by `namespace/name`.
    Pod(Str),
}

/// One write.
#[derive(Debug)]
pub struct Request {
    /// The object.
    pub target: Target,
    /// What the choice was made on; another UID or version refuses the write.
    pub guard: Guard,
    /// Keys and texts.
    pub annotations: Vec<(&'static str, String)>,
    /// Keys that go.
    pub removed: &'static [&'static str],
}

/// How a write ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// It is there; the watch will tell.
    Written,
    /// The object has changed since; look again.
    Conflict,
    /// The object is gone.
    Gone,
    /// The API server refuses this write of a pod, maybe in the name of a webhook; the text says why. Its owner is told by an Event.
    Refused(String),
    /// The API server could not be reached, or did not serve it, and the log says so; or the lease had run out, and it was not sent.
    Failed(String),
}

/// A write that ended.
#[derive(Debug)]
pub struct Done {
    /// The object.
    pub target: Target,
    /// The version that the write was based on.
    pub version: Str,
    /// How it ended.
    pub outcome: Outcome,
}

/// Serves requests until their sender is gone. `done` gets every outcome.
pub async fn run(
    client: kube::Client,
    validity: Validity,
    concurrency: usize,
    mut requests: mpsc::UnboundedReceiver<Request>,
    done: mpsc::UnboundedSender<Done>,
) {
    let requests = futures::stream::poll_fn(move |cx| requests.poll_recv(cx));
    requests
        .for_each_concurrent(concurrency, |request| async {
            let outcome = write(&client, &validity, &request).await;
            // A reader that is gone needs no answer.
            let _ = done.send(Done { target: request.target, version: request.guard.version, outcome });
        })
        .await;
}

/// As long as an API server works on a request (its --request-timeout). Afterwards it will not do it any more.
const LIMIT: Duration = Duration::from_secs(60);

async fn write(client: &kube::Client, validity: &Validity, request: &Request) -> Outcome {
    let written = request.annotations.iter().map(|(key, text)| ((*key).to_owned(), text.as_str().into()));
    let removed = request.removed.iter().map(|key| ((*key).to_owned(), serde_json::Value::Null));
    let annotations: serde_json::Map<_, _> = written.chain(removed).collect();
    let patch = Patch::Merge(serde_json::json!({
        "metadata": { "uid": &*request.guard.uid, "resourceVersion": &*request.guard.version, "annotations": annotations }
    }));
    let params = PatchParams::default();
    if !validity.is_valid() {
        // After a pause the next renewal may well succeed, and then nobody tells the pipeline that it ever ran out.
        return Outcome::Failed("the lease has run out".to_owned());
    }
    let send = async {
        match &request.target {
            Target::Node(name) => {
                let nodes: Api<Slim<NodeKind>> = Api::all(client.clone());
                nodes.patch(name, &params, &patch).await.map(drop)
            }
            Target::Pod(key) => {
                let (namespace, name) = key.split_once('/').unwrap_or(("", key));
                let pods: Api<Slim<PodKind>> = Api::namespaced(client.clone(), namespace);
                pods.patch(name, &params, &patch).await.map(drop)
            }
        }
    };
    let Ok(result) = tokio::time::timeout(LIMIT, send).await else {
        return Outcome::Failed(format!("no answer in {LIMIT:?}"));
    };
    match result {
        Ok(()) => Outcome::Written,
        Err(kube::Error::Api(status)) if status.code == 409 => Outcome::Conflict,
        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Gone,
        Err(error) if rights::was_told(&error) => Outcome::Failed(error.to_string()),
        Err(kube::Error::Api(status)) if is_refused(status.code) && matches!(request.target, Target::Pod(_)) => {
            Outcome::Refused(status.message)
        }
        Err(error) => {
            tracing::warn!(target = ?request.target, %error, "cannot write an annotation; trying again");
            Outcome::Failed(error.to_string())
        }
    }
}

/// Whether an answer says no to this write: neither to our credentials, which may be renewed any moment, nor for lack of time.
fn is_refused(code: u16) -> bool {
    (400..500).contains(&code) && ![401, 408, 429].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_not_sent_is_to_be_tried_again() {
        // Nobody listens there: it must not be asked.
        let client =
            kube::Client::try_from(kube::Config::new("http://127.0.0.1:1/".parse().expect("a URI"))).expect("a client");
        let (requests, served) = mpsc::unbounded_channel();
        let (done, mut outcomes) = mpsc::unbounded_channel();
        let target = Target::Pod("ns/a".into());
        requests
            .send(Request { target: target.clone(), guard: Guard::default(), annotations: vec![], removed: &[] })
            .expect("a reader");
        drop(requests);
        run(client, Validity::new(), 1, served, done).await;
        let outcome = outcomes.recv().await.expect("an outcome");
        assert_eq!((outcome.target, outcome.outcome), (target, Outcome::Failed("the lease has run out".into())));
    }
}
