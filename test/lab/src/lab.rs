//! A running lab in the hands of a test: run things in it, break parts of it, mend them.
//!
//! In: options or a folder. Out: methods. It must not outlive its value: dropping it takes the lab down, unless it is kept.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, ListParams};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use nix::sys::signal::Signal;

use tokio::time::timeout;

use crate::cluster;
use crate::kubelet::Store;
use crate::layout::Layout;
use crate::options::{Api as ApiServer, Mode, Options};
use crate::place::Place;
use crate::process::ProcessId;
use crate::progress::Progress;
use crate::{down, ovn, power, real, switch, up};

/// How long pods may take to run.
const RUN_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running lab. With `LAB_LOGS=DIR` in the environment, the logs are copied there before it goes down.
#[derive(Debug)]
pub struct Lab {
    layout: Layout,
    owned: bool,
}

impl Lab {
    /// Builds a lab that goes down when the value is dropped.
    ///
    /// # Errors
    /// Names the step that failed.
    pub async fn up(options: Options, progress: Progress) -> Result<Self> {
        let dir = options.dir.clone();
        match up::up(options, progress).await {
            Ok(layout) => Ok(Self { layout, owned: true }),
            Err(error) => {
                Err(error.context(format!("building the lab in {} (logs are in logs/ there)", dir.display())))
            }
        }
    }

    /// A lab that runs already; dropping the value leaves it alone.
    ///
    /// # Errors
    /// When no lab lives in this folder.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { layout: Layout::load(dir)?, owned: false })
    }

    /// Leaves the lab running when the value is dropped.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.owned = false;
        self
    }

    /// Names, paths and addresses.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where commands for a target run: a node's name, `central`, `outside`, `fabric`, or `NAMESPACE/POD`.
    ///
    /// # Errors
    /// When there is no such node, or no such pod runs.
    pub fn scene(&self, target: &str) -> Result<Scene> {
        if let Some((namespace, name)) = target.split_once('/') {
            if self.layout.options.api == ApiServer::Real {
                let place = real::sandbox(&self.layout, namespace, name)?;
                return Ok(Scene { place, env: real::environment(&self.layout, "central")? });
            }
            let sandboxes = Store::of_lab(self.layout.dir()).into_iter();
            let sandbox = sandboxes.filter(|sandbox| sandbox.result.is_some() || sandbox.host_network);
            let sandbox =
                sandbox.into_iter().find(|sandbox| sandbox.pod.namespace == namespace && sandbox.pod.name == name);
            let sandbox = sandbox.with_context(|| format!("no pod {target} runs here (NAMESPACE/POD)"))?;
            return Ok(Scene { place: Place::netns(sandbox.netns), env: self.layout.env("central") });
        }
        let name = self.layout.netns(target);
        if !self.layout.namespaces().contains(&name) {
            bail!(
                "no node {target}: there are central, outside, fabric, {}",
                self.layout.options.node_names().join(", ")
            );
        }
        let env = match self.layout.options.api {
            ApiServer::Real => real::environment(&self.layout, target)?,
            _ => self.layout.env(target),
        };
        Ok(Scene { place: self.layout.inside(target), env })
    }

    /// Lines for a shell's `eval`.
    pub fn exports(&self) -> String {
        let env = self.layout.env("central");
        let names = ["KUBECONFIG", "OVN_NB_DB", "OVN_SB_DB", "LAB_DIR"];
        names.iter().filter_map(|name| Some(format!("export {name}={}\n", env.get(*name)?))).collect()
    }

    /// Runs a command on a node to its end.
    ///
    /// # Errors
    /// When there is no such node, or the exit code is not 0.
    pub fn exec_node(&self, node: &str, argv: &[&str]) -> Result<String> {
        self.scene(node)?.checked(argv)
    }

    /// A client of the lab's API server.
    ///
    /// # Errors
    /// When the credentials are unusable.
    pub async fn client(&self) -> Result<Client> {
        cluster::connect(&self.layout.kubeconfig()).await
    }

    /// Applies a manifest. Returns `kind/name` of each object.
    ///
    /// # Errors
    /// Names the object that was refused.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<String>> {
        cluster::apply(&self.client().await?, yaml).await
    }

    /// Makes a namespace and waits until pods can be made in it: on a real cluster, until it has its default service account.
    ///
    /// # Errors
    /// When it is refused, or no account appears.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
        if self.layout.options.api != ApiServer::Real {
            return Ok(());
        }
        let accounts = Api::<ServiceAccount>::namespaced(self.client().await?, name);
        let there = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
        let seen = timeout(RUN_LIMIT, there).await;
        seen.with_context(|| format!("{name} has no default service account after {RUN_LIMIT:?}"))?
            .with_context(|| format!("watching the service accounts of {name}"))?;
        Ok(())
    }

    /// Deletes a manifest's objects. Returns `kind/name` of each that was there.
    ///
    /// # Errors
    /// Names the object that was not deleted.
    pub async fn delete(&self, yaml: &str) -> Result<Vec<String>> {
        cluster::delete(&self.client().await?, yaml).await
    }

    /// Waits until every pod of a namespace runs.
    ///
    /// # Errors
    /// Names the first that does not in time, and why.
    pub async fn await_running(&self, namespace: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client().await?, namespace);
        for pod in pods.list(&ListParams::default()).await.with_context(|| format!("listing pods of {namespace}"))? {
            let name = pod.name_any();
            if timeout(RUN_LIMIT, await_condition(pods.clone(), &name, is_pod_running())).await.is_err() {
                let pod = pods.get(&name).await.with_context(|| format!("reading {name}"))?;
                let state = pod.status.and_then(|status| status.container_statuses?.into_iter().next()?.state?.waiting);
                let why = state.and_then(|waiting| waiting.message).unwrap_or_else(|| "nobody says why".into());
                bail!("{namespace}/{name} does not run after {RUN_LIMIT:?}: {why}");
            }
        }
        Ok(())
    }

    /// Ends a component with SIGTERM and waits for it.
    ///
    /// # Errors
    /// When it was never started, or does not end.
    pub fn stop(&self, component: &str) -> Result<()> {
        self.component(component)?.end(Signal::SIGTERM, STOP_LIMIT)
    }

    /// Ends a component with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it was never started.
    pub fn kill(&self, component: &str) -> Result<()> {
        self.component(component)?.end(Signal::SIGKILL, STOP_LIMIT)
    }

    /// Stops a component's time (SIGSTOP) until `resume`.
    ///
    /// # Errors
    /// When it was never started.
    pub fn pause(&self, component: &str) -> Result<()> {
        self.component(component)?.signal(Signal::SIGSTOP);
        Ok(())
    }

    /// Lets a paused component go on.
    ///
    /// # Errors
    /// When it was never started.
    pub fn resume(&self, component: &str) -> Result<()> {
        self.component(component)?.signal(Signal::SIGCONT);
        Ok(())
    }

    /// Starts a component again, as it was started before. A switch's bridges are new then, and the lab, as an operating system would,
    /// gives the node's addresses to `br-ex`.
    ///
    /// # Errors
    /// When it still runs.
    pub fn start(&self, component: &str) -> Result<()> {
        self.layout.processes().start_again(component)?;
        match component.strip_suffix("/vswitchd") {
            Some(node) => ovn::address(&self.layout, node),
            None => Ok(()),
        }
    }

    /// Cuts the power of a node: all its processes die at once, its network is gone, its disk stays.
    ///
    /// # Errors
    /// When it is no node of the lab.
    pub fn power_off(&self, node: &str) -> Result<()> {
        power::off(&self.layout, node)
    }

    /// Boots a node after `power_off`.
    ///
    /// # Errors
    /// Names what does not come up.
    pub fn power_on(&self, node: &str) -> Result<()> {
        power::on(&self.layout, node)
    }

    /// Gives a node that is off other addresses: it boots with those of the host `host` of the fabric's networks.
    ///
    /// # Errors
    /// When the node's certificate cannot be made anew.
    pub fn readdress(&mut self, node: &str, host: u16) -> Result<()> {
        self.layout.options.moved.insert(node.to_owned(), host);
        self.layout.save()?;
        if self.layout.options.api == ApiServer::Real { real::certify_node(&self.layout, node) } else { Ok(()) }
    }

    /// Takes the network off every node; its daemons have ended then.
    ///
    /// # Errors
    /// Names what cannot be taken off.
    pub fn take_off_network(&self) -> Result<()> {
        switch::take_off(&self.layout)
    }

    /// Starts the daemons again, in a mode.
    ///
    /// # Errors
    /// Names what does not come up.
    pub fn put_on_network(&mut self, mode: Mode) -> Result<()> {
        self.layout.options.mode = mode;
        self.layout.save()?;
        switch::put_on(&self.layout)
    }

    /// Which process a component is.
    ///
    /// # Errors
    /// When it was never started; the text lists the components there are.
    pub fn component(&self, name: &str) -> Result<ProcessId> {
        Ok(self.layout.processes().get(name)?.id)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Err(error) = keep_logs(self.layout.dir()) {
            eprintln!("keeping the lab's logs: {error:#}");
        }
        if let Err(error) = down::down(self.layout.dir()) {
            eprintln!("taking the lab down: {error:#}");
        }
    }
}

/// Copies a lab's logs below the folder that `LAB_LOGS` names, if it is set.
///
/// # Errors
/// When a file cannot be copied.
pub fn keep_logs(lab_dir: &Path) -> Result<()> {
    let Some(folder) = std::env::var_os("LAB_LOGS") else { return Ok(()) };
    copy_logs(lab_dir, &Path::new(&folder).join(lab_dir.file_name().unwrap_or_default()))
}

/// Copies a lab's logs to a folder.
///
/// # Errors
/// When a file cannot be copied.
pub fn copy_logs(lab_dir: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    for file in fs::read_dir(lab_dir.join("logs")).context("listing logs")?.flatten() {
        fs::copy(file.path(), target.join(file.file_name()))
            .with_context(|| format!("copying to {}", target.display()))?;
    }
    Ok(())
}

/// Where commands of a person or a test run: a place and its environment.
#[derive(Clone, Debug)]
pub struct Scene {
    place: Place,
    env: BTreeMap<String, String>,
}

impl Scene {
    /// The namespace alone.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Replaces this process by the command: output, input and exit code are the command's own. On a real node it is a process of
    /// the node, which this one cannot become: there it is waited for, and its exit code is returned.
    ///
    /// # Errors
    /// When the command could not be started.
    pub fn exec(&self, argv: &[String]) -> Result<u8> {
        let [program, args @ ..] = argv else { bail!("no command given: put it after --") };
        if self.place.node.is_some() {
            let mut command = Command::new(program);
            command.args(args).envs(&self.env);
            let status = self.place.launch(|| command.status().with_context(|| format!("running {program}")))?;
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        self.place.enter()?;
        // PATH is looked up in the environment given, as a shell there would.
        Err(Command::new(program).args(args).envs(&self.env).exec()).with_context(|| format!("running {program}"))
    }

    /// Starts a command in a process group of its own and does not wait for it.
    ///
    /// # Errors
    /// When it could not be started.
    pub fn spawn(&self, argv: &[&str], stdout: Stdio) -> Result<Child> {
        let [program, args @ ..] = argv else { bail!("no command given") };
        // PATH is looked up in the environment given, as a shell there would.
        let mut command = Command::new(program);
        command.args(args).envs(&self.env).process_group(0).stdin(Stdio::null()).stdout(stdout);
        self.place.spawn(&mut command)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it could not be started.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        let [program, args @ ..] = argv else { bail!("no command given") };
        let mut command = Command::new(program);
        command.args(args).envs(&self.env).stdin(Stdio::null());
        self.place.launch(|| command.output().with_context(|| format!("running {program}")))
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// When it could not be started, or its exit code is not 0.
    pub fn checked(&self, argv: &[&str]) -> Result<String> {
        let output = self.output(argv)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{}`: {}: {}{}", argv.join(" "), output.status, stdout, stderr.trim());
        }
        Ok(stdout)
    }
}
