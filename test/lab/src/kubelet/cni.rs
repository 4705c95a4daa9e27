//! The runtime's side of CNI (spec 1.1.0): reads the configuration list and calls each plugin with environment and stdin.
//!
//! In: sandboxes, the folder of configurations, the folder of plugins. Out: results. It must not know what any plugin does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(120);
const INTERFACE: &str = "eth0";
/// Where the plugins of others are (package containernetworking-plugins).
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// A node's network configuration and plugins.
#[derive(Clone, Debug)]
pub struct Plugins {
    conf_dir: PathBuf,
    plugin_dir: PathBuf,
}

/// A configuration list, `*.conflist`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfList {
    /// After reading, the newest of all that are offered.
    cni_version: String,
    #[serde(default)]
    cni_versions: Vec<String>,
    name: String,
    plugins: Vec<Map<String, Value>>,
}

impl ConfList {
    fn at_least(&self, major: u32, minor: u32) -> bool {
        version(&self.cni_version) >= (major, minor)
    }

    fn newest(mut self) -> ConfList {
        let offered = std::mem::take(&mut self.cni_versions).into_iter().chain([std::mem::take(&mut self.cni_version)]);
        self.cni_version = offered.max_by_key(|text| version(text)).unwrap_or_default();
        self
    }

    fn stdin(&self, plugin: &Map<String, Value>, more: &[(&str, Option<&Value>)]) -> Value {
        let mut conf = plugin.clone();
        conf.insert("cniVersion".into(), json!(self.cni_version));
        conf.insert("name".into(), json!(self.name));
        conf.extend(more.iter().filter_map(|(key, value)| Some(((*key).to_owned(), (*value)?.clone()))));
        Value::Object(conf)
    }

    /// What a plugin gets about a sandbox: of what runtimes know it is told what it says it can use.
    fn of(&self, plugin: &Map<String, Value>, sandbox: &Sandbox, previous: Option<&Value>) -> Value {
        let able = plugin.get("capabilities").is_some_and(|able| able["portMappings"] == true);
        let known = able.then(|| json!({"portMappings": sandbox.port_mappings}));
        let mut conf = self.stdin(plugin, &[("prevResult", previous), ("runtimeConfig", known.as_ref())]);
        if let Some(conf) = conf.as_object_mut() {
            conf.remove("capabilities");
        }
        conf
    }
}

/// Major and minor number.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl Plugins {
    /// Configurations and plugins are looked for anew on every call: both may appear later.
    pub fn new(conf_dir: PathBuf, plugin_dir: PathBuf) -> Self {
        Self { conf_dir, plugin_dir }
    }

    /// Attaches a sandbox; the result is the last plugin's.
    ///
    /// # Errors
    /// The plugin's own words.
    pub async fn add(&self, sandbox: &Sandbox) -> Result<Value> {
        let conf = self.conf()?;
        let mut previous = None;
        for plugin in &conf.plugins {
            let output = self.call("ADD", plugin, Some(sandbox), conf.of(plugin, sandbox, previous.as_ref())).await?;
            previous = Some(output.with_context(|| format!("CNI plugin {} returned no result", plugin_name(plugin)))?);
        }
        previous.context("the CNI configuration lists no plugin")
    }

    /// Detaches a sandbox, last plugin first.
    ///
    /// # Errors
    /// The plugin's own words.
    pub async fn del(&self, sandbox: &Sandbox) -> Result<()> {
        let conf = self.conf()?;
        for plugin in conf.plugins.iter().rev() {
            self.call("DEL", plugin, Some(sandbox), conf.of(plugin, sandbox, sandbox.result.as_ref())).await?;
        }
        Ok(())
    }

    /// Asks whether an attachment is still as it was made (since 0.4.0).
    ///
    /// # Errors
    /// The plugin's own words.
    pub async fn check(&self, sandbox: &Sandbox) -> Result<()> {
        let conf = self.conf()?;
        for plugin in conf.plugins.iter().filter(|_| conf.at_least(0, 4)) {
            self.call("CHECK", plugin, Some(sandbox), conf.of(plugin, sandbox, sandbox.result.as_ref())).await?;
        }
        Ok(())
    }

    /// Asks whether the plugins could serve an ADD now (since 1.1.0).
    ///
    /// # Errors
    /// When there is no configuration, or the plugin's own words.
    pub async fn status(&self) -> Result<()> {
        let conf = self.conf()?;
        for plugin in conf.plugins.iter().filter(|_| conf.at_least(1, 1)) {
            self.call("STATUS", plugin, None, conf.stdin(plugin, &[])).await?;
        }
        Ok(())
    }

    /// Tells the plugins which attachments there are; they may drop what belongs to none (since 1.1.0).
    ///
    /// # Errors
    /// The plugin's own words.
    pub async fn gc(&self, live: &[Sandbox]) -> Result<()> {
        // Without a configuration nothing was ever attached.
        let Ok(conf) = self.conf() else { return Ok(()) };
        let valid: Value = live.iter().map(|sandbox| json!({"containerID": sandbox.id, "ifname": INTERFACE})).collect();
        for plugin in conf.plugins.iter().filter(|_| conf.at_least(1, 1)) {
            self.call("GC", plugin, None, conf.stdin(plugin, &[("cni.dev/valid-attachments", Some(&valid))])).await?;
        }
        Ok(())
    }

    /// The first list in the folder, in the order of names, as runtimes choose it.
    fn conf(&self) -> Result<ConfList> {
        let files = fs::read_dir(&self.conf_dir).into_iter().flatten().flatten().map(|file| file.path());
        let lists = files.filter(|path| path.extension().is_some_and(|extension| extension == "conflist"));
        let path = lists.min().with_context(|| format!("no CNI configuration in {}", self.conf_dir.display()))?;
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let list: ConfList = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
        Ok(list.newest())
    }

    async fn call(
        &self,
        verb: &str,
        plugin: &Map<String, Value>,
        sandbox: Option<&Sandbox>,
        stdin: Value,
    ) -> Result<Option<Value>> {
        let name = plugin_name(plugin);
        let call = async {
            let folders = [&*self.plugin_dir, Path::new(REFERENCE_PLUGINS)].map(|folder| folder.join(name));
            let program = folders.iter().find(|program| program.exists()).unwrap_or(&folders[0]);
            let mut command = Command::new(program);
            command.env_clear().envs(self.env(verb, sandbox)).kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().with_context(|| format!("starting CNI plugin {name}"))?;
            if let Some(mut pipe) = child.stdin.take() {
                // A plugin may end without reading: its answer tells more than this error.
                let _ = pipe.write_all(stdin.to_string().as_bytes()).await;
            }
            child.wait_with_output().await.with_context(|| format!("waiting for CNI plugin {name}"))
        };
        let output =
            tokio::time::timeout(LIMIT, call).await.map_err(|_| anyhow!("CNI {verb}: no answer in {LIMIT:?}"))??;
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if output.status.success() {
            return Ok(answer);
        }
        match answer {
            Some(error) => {
                bail!("CNI {verb}: {} {} (code {})", text(&error["msg"]), text(&error["details"]), error["code"])
            }
            None => bail!("CNI {verb}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    fn env(&self, verb: &str, sandbox: Option<&Sandbox>) -> BTreeMap<&'static str, String> {
        let mut env =
            BTreeMap::from([("CNI_COMMAND", verb.to_owned()), ("CNI_PATH", self.plugin_dir.display().to_string())]);
        // Some plugins run tools of the system.
        env.extend(std::env::var("PATH").map(|path| ("PATH", path)));
        if let Some(sandbox) = sandbox {
            let pod = &sandbox.pod;
            env.insert("CNI_CONTAINERID", sandbox.id.clone());
            env.insert("CNI_NETNS", sandbox.netns_path().display().to_string());
            env.insert("CNI_IFNAME", INTERFACE.into());
            env.insert(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                    pod.namespace, pod.name, sandbox.id, pod.uid
                ),
            );
        }
        env
    }
}

fn plugin_name(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or("without a type")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
