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
    /// We no longer hold the lease: not sent.
    NotLeading,
    /// The API server refused it, or could not be reached.
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

async fn write(client: &kube::Client, validity: &Validity, request: &Request) -> Outcome {
    let annotations: serde_json::Map<_, _> =
        request.annotations.iter().map(|(key, text)| ((*key).to_owned(), text.as_str().into())).collect();
    let patch = Patch::Merge(serde_json::json!({
        "metadata": { "uid": &*request.guard.uid, "resourceVersion": &*request.guard.version, "annotations": annotations }
    }));
    let params = PatchParams::default();
    if !validity.is_valid() {
        return Outcome::NotLeading;
    }
    let result = match &request.target {
        Target::Node(name) => {
            let nodes: Api<Slim<NodeKind>> = Api::all(client.clone());
            nodes.patch(name, &params, &patch).await.map(drop)
        }
        Target::Pod(key) => {
            let (namespace, name) = key.split_once('/').unwrap_or(("", key));
            let pods: Api<Slim<PodKind>> = Api::namespaced(client.clone(), namespace);
            pods.patch(name, &params, &patch).await.map(drop)
        }
    };
    match result {
        Ok(()) => Outcome::Written,
        Err(kube::Error::Api(status)) if status.code == 409 => Outcome::Conflict,
        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Gone,
        Err(error) => {
            if !rights::was_told(&error) {
                tracing::warn!(target = ?request.target, %error, "cannot write an annotation; trying again");
            }
            Outcome::Failed(error.to_string())
        }
    }
}
