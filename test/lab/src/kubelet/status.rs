//! What the API is told about a pod: its status and, when a step fails, an Event.
//!
//! In: a pod, its sandbox, a phase. Out: one merge patch or one Event per change. It must not decide what happens next.

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tracing::warn;

use super::Kubelet;
use super::sandbox::{PodKey, Sandbox};

/// What the first container does.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Not started: reason and message.
    Waiting(&'static str, String),
    /// Runs since it was last started.
    Running,
    /// Ended for good, with this code.
    Finished(i32),
}

impl Progress {
    fn phase(&self) -> &'static str {
        match self {
            Self::Waiting(..) => "Pending",
            Self::Running => "Running",
            Self::Finished(0) => "Succeeded",
            Self::Finished(_) => "Failed",
        }
    }

    fn container_state(&self) -> Value {
        match self {
            Self::Waiting(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
            Self::Running => json!({"running": {"startedAt": now()}}),
            Self::Finished(code) => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}})
            }
        }
    }
}

/// The current time as the API writes it.
pub fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

impl Kubelet {
    /// Reports a pod's progress. A pod that is gone is no error.
    ///
    /// # Errors
    /// When the API refuses or cannot be reached.
    pub async fn report(&self, pod: &Pod, sandbox: Option<&Sandbox>, progress: &Progress, restarts: u32) -> Result<()> {
        let host_ips = self.node_ips()?;
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let ips = if host_network { host_ips.clone() } else { sandbox.map(Sandbox::ips).unwrap_or_default() };
        let as_list = |ips: &[String]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Value>();
        let running = matches!(progress, Progress::Running);
        let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now()});
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let status = json!({"metadata": {"uid": pod.uid()}, "status": {
            "phase": progress.phase(),
            "podIP": ips.first(),
            "podIPs": as_list(&ips),
            "hostIP": host_ips.first(),
            "hostIPs": as_list(&host_ips),
            "startTime": pod.metadata.creation_timestamp,
            "conditions": [
                condition("PodScheduled", true), condition("Initialized", true),
                condition("ContainersReady", running), condition("Ready", running),
            ],
            "containerStatuses": [{
                "name": container.map(|container| container.name.as_str()), "image": container.and_then(|container| container.image.as_deref()).unwrap_or(""),
                "imageID": "", "ready": running, "started": running, "restartCount": restarts,
                "containerID": sandbox.map(|sandbox| format!("ovenbird-lab://{}", sandbox.id)),
                "state": progress.container_state(),
            }],
        }});
        let api = self.pods(&pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Writes a Warning Event about a pod. One that cannot be written is only logged.
    pub async fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        warn!(namespace = pod.namespace(), name = pod.name_any(), reason, message);
        let event: Result<Event, _> = serde_json::from_value(json!({
            "metadata": {"generateName": format!("{}.", pod.name_any()), "namespace": pod.namespace()},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace(), "name": pod.name_any(), "uid": pod.uid()},
            "type": "Warning", "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "ovenbird-lab-kubelet", "host": self.node},
        }));
        let api = Api::<Event>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        match event {
            Ok(event) => {
                if let Err(error) = api.create(&PostParams::default(), &event).await {
                    warn!(%error, "writing an Event");
                }
            }
            Err(error) => warn!(%error, "building an Event"),
        }
    }

    /// Removes the pod from the API, now that nothing of it is left here. A pod that is gone, or a namesake, is no error.
    ///
    /// # Errors
    /// When the API cannot be reached.
    pub async fn finalize(&self, pod: &PodKey) -> Result<()> {
        let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match self.pods(&pod.namespace).delete(&pod.name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
