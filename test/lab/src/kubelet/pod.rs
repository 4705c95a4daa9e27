//! One pod's life: sandbox, network, command, end. One worker per pod UID; all steps of a pod happen here, one after the other.
//!
//! ```text
//!   attach (ADD; on error DEL, a fresh sandbox, a pause) -> run (again, as restartPolicy says) -> finished
//!        \______________________ deleted or gone: end the command, DEL, remove the sandbox, remove the pod ___/
//! ```
//! In: the newest state of the pod. Out: a sandbox that fits it. It must not forget a sandbox: each is on disk first.

use std::fs::{self, OpenOptions};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::sandbox::Sandbox;
use super::status::Progress;
use super::{Kubelet, PodState, in_one_line};
use crate::place::Place;
use crate::process::ProcessId;

/// First pause after a failure; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(8);
/// What the API says when an exit code is lost, because another kubelet process started the command.
const UNKNOWN_EXIT: i32 = 255;
/// Grace when the pod names none (core/v1, terminationGracePeriodSeconds).
const DEFAULT_GRACE: i64 = 30;

/// Serves a pod until nothing of it is left.
pub async fn work(kubelet: Arc<Kubelet>, uid: String, mut state: watch::Receiver<PodState>) {
    let first = state.borrow_and_update().clone();
    let Some(pod) = first else { return };
    let ended = pod.metadata.deletion_timestamp.is_some();
    if !ended {
        tokio::select! {
            () = live(&kubelet, &pod) => {}
            () = deletion(&mut state) => {}
        }
        deletion(&mut state).await;
    }
    let newest = state.borrow().clone();
    let grace = newest.as_deref().and_then(|pod| pod.metadata.deletion_grace_period_seconds);
    let grace = newest.as_ref().map_or(0, |_| grace.unwrap_or(DEFAULT_GRACE));
    if let Some(sandbox) = kubelet.store.of_pod(&uid) {
        tear_down(&kubelet, sandbox, Duration::from_secs(grace.try_into().unwrap_or(0))).await;
    }
    let key = super::sandbox::PodKey::of(&pod);
    let mut pauses = Pauses::default();
    while let Err(error) = kubelet.finalize(&key).await {
        warn!(name = key.name, "removing the pod: {}", in_one_line(&error));
        sleep(pauses.next()).await;
    }
}

/// Removes a sandbox whose pod is gone.
pub async fn discard(kubelet: Arc<Kubelet>, sandbox: Sandbox) {
    tear_down(&kubelet, sandbox, Duration::ZERO).await;
}

/// Resolves when the pod is to end, or gone.
async fn deletion(state: &mut watch::Receiver<PodState>) {
    // An error means that the sender was dropped, which only happens after it sent `None`.
    let _ = state.wait_for(|pod| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())).await;
}

/// Attaches and runs; returns when the command has finished for good. May be dropped at any await: `tear_down` cleans up.
async fn live(kubelet: &Arc<Kubelet>, pod: &Pod) {
    // A pod that finished in an earlier life of the kubelet stays as it is.
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if phase == "Succeeded" || phase == "Failed" {
        return;
    }
    let (mut sandbox, adopted) = match kubelet.store.of_pod(pod.metadata.uid.as_deref().unwrap_or_default()) {
        Some(sandbox) if sandbox.result.is_some() || sandbox.host_network => (sandbox, true),
        _ => (attach_until_done(kubelet, pod).await, false),
    };
    if adopted
        && !sandbox.host_network
        && let Err(error) = kubelet.cni.check(&sandbox).await
    {
        kubelet.warn(pod, "SandboxCheckFailed", &in_one_line(&error)).await;
    }
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone()).unwrap_or_default();
    let mut pauses = Pauses::default();
    for restarts in 0.. {
        let code = match run(kubelet, pod, &mut sandbox, restarts).await {
            Ok(code) => code,
            Err(error) => {
                kubelet.warn(pod, "Failed", &in_one_line(&error)).await;
                UNKNOWN_EXIT
            }
        };
        if policy == "Never" || (policy == "OnFailure" && code == 0) {
            report(kubelet, pod, Some(&sandbox), &Progress::Finished(code), restarts).await;
            // A finished pod keeps its object, not its network.
            return tear_down(kubelet, sandbox, Duration::ZERO).await;
        }
        let waiting = Progress::Waiting("CrashLoopBackOff", format!("the command ended with code {code}"));
        report(kubelet, pod, Some(&sandbox), &waiting, restarts).await;
        sleep(pauses.next()).await;
    }
}

async fn attach_until_done(kubelet: &Arc<Kubelet>, pod: &Pod) -> Sandbox {
    let mut pauses = Pauses::default();
    let mut told = String::new();
    loop {
        let error = match attach(kubelet, pod).await {
            Ok(sandbox) => return sandbox,
            Err(error) => in_one_line(&error),
        };
        let waiting = Progress::Waiting("ContainerCreating", error.clone());
        report(kubelet, pod, None, &waiting, 0).await;
        if told != error {
            kubelet.warn(pod, "FailedCreatePodSandBox", &error).await;
            told = error;
        }
        sleep(pauses.next()).await;
    }
}

/// A fresh sandbox, as runtimes make after a failed one: what is left of that is removed first.
async fn attach(kubelet: &Arc<Kubelet>, pod: &Pod) -> Result<Sandbox> {
    if let Some(old) = kubelet.store.of_pod(pod.metadata.uid.as_deref().unwrap_or_default()) {
        remove(kubelet, &old).await?;
    }
    let mut sandbox = kubelet.store.draft(pod)?;
    // In place, so that it is done or not done when this worker is told to stop, never half-way.
    block_in_place(|| sandbox.create())?;
    if !sandbox.host_network {
        match kubelet.cni.add(&sandbox).await {
            Ok(result) => sandbox.result = Some(result),
            Err(error) => {
                remove(kubelet, &sandbox).await?;
                return Err(error);
            }
        }
        kubelet.store.save(&sandbox)?;
    }
    Ok(sandbox)
}

/// Runs the command once, or watches it if it runs already. Returns its exit code.
async fn run(kubelet: &Arc<Kubelet>, pod: &Pod, sandbox: &mut Sandbox, restarts: u32) -> Result<i32> {
    if let Some(process) = sandbox.process.filter(|process| process.alive()) {
        report(kubelet, pod, Some(sandbox), &Progress::Running, restarts).await;
        // Not our child: nothing announces its end.
        while process.alive() {
            sleep(FIRST_PAUSE).await;
        }
        return Ok(UNKNOWN_EXIT);
    }
    let mut child = start(kubelet, pod, sandbox)?;
    sandbox.process = child.id().map(ProcessId::of).transpose().ok().flatten();
    kubelet.store.save(sandbox)?;
    report(kubelet, pod, Some(sandbox), &Progress::Running, restarts).await;
    let status = child.wait().await.context("waiting for the command")?;
    Ok(status.code().unwrap_or(UNKNOWN_EXIT))
}

/// Starts the first container's command in the sandbox, in a process group of its own; its output goes to a file.
fn start(kubelet: &Kubelet, pod: &Pod, sandbox: &Sandbox) -> Result<Child> {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("the pod has no container")?;
    let mut argv: Vec<_> = container.command.iter().chain(&container.args).flatten().cloned().collect();
    if argv.is_empty() {
        argv = vec!["sleep".into(), "infinity".into()];
    }
    let folder = kubelet.layout.home(&kubelet.node).join("kubelet/logs");
    fs::create_dir_all(&folder).context("making the folder of logs")?;
    let log = folder.join(format!("{}.log", sandbox.pod.uid));
    let log = OpenOptions::new().create(true).append(true).open(log).context("opening the command's log")?;
    let env = container.env.iter().flatten().filter_map(|env| Some((env.name.clone(), env.value.clone()?)));
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env("PATH", &kubelet.layout.env(&kubelet.node)["PATH"]).env("HOSTNAME", &sandbox.pod.name);
    command.envs(env).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let runtime = tokio::runtime::Handle::current();
    Place::netns(&sandbox.netns).run(move || {
        let _in_runtime = runtime.enter();
        command.spawn().with_context(|| format!("starting {}", argv[0]))
    })
}

/// Ends the command, then removes the sandbox; repeats until it is gone, as runtimes do.
async fn tear_down(kubelet: &Arc<Kubelet>, sandbox: Sandbox, grace: Duration) {
    if let Some(process) = sandbox.process.filter(|process| process.alive()) {
        end(process, grace).await;
    }
    let mut pauses = Pauses::default();
    while let Err(error) = remove(kubelet, &sandbox).await {
        warn!(pod = sandbox.pod.name, "removing the sandbox: {}", in_one_line(&error));
        sleep(pauses.next()).await;
    }
}

async fn end(process: ProcessId, grace: Duration) {
    let gone = async {
        while process.alive() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if !grace.is_zero() {
        process.signal(Signal::SIGTERM);
        if timeout(grace, gone).await.is_ok() {
            return;
        }
    }
    process.signal(Signal::SIGKILL);
}

async fn remove(kubelet: &Arc<Kubelet>, sandbox: &Sandbox) -> Result<()> {
    if !sandbox.host_network {
        kubelet.cni.del(sandbox).await?;
    }
    block_in_place(|| kubelet.store.remove(sandbox))
}

async fn report(kubelet: &Kubelet, pod: &Pod, sandbox: Option<&Sandbox>, progress: &Progress, restarts: u32) {
    let mut pauses = Pauses::default();
    while let Err(error) = kubelet.report(pod, sandbox, progress, restarts).await {
        warn!(name = pod.metadata.name, "reporting status: {}", in_one_line(&error));
        sleep(pauses.next()).await;
    }
}

/// Pauses between attempts: doubling, bounded.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_PAUSE);
        pause
    }
}
