//! Reads manifests: files and folders of YAML or JSON documents, with lists inside.
//!
//! Inputs: paths. Outputs: facts, and a note for each kind that has no rows. An error names the file, the document in it, the
//! object and the field. Of an object that appears twice, the later counts. Must not: judge values (topology does).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovenbird_topology::facts::{
    AdminPolicySpec, NetworkSpec, NetworkStatus, ProviderNetworkSpec, ProviderNetworkStatus,
};
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, EndpointSliceFact, Fact, FactKey, Interner, NamespaceFact, NetworkFact,
    NetworkPolicyFact, NodeFact, PodFact, ProviderNetworkFact, ServiceCidrFact, ServiceFact,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

/// What the files hold.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Objects of all kinds that have rows, each once, sorted.
    pub facts: Vec<Fact>,
    /// What was passed over.
    pub notes: Vec<String>,
}

/// Reads all files.
///
/// # Errors
/// When one cannot be read, or holds a document that is not a Kubernetes object.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Manifests> {
    let mut reader = Reader::default();
    for path in paths {
        for file in files(path)? {
            let text = read_text(&file).with_context(|| format!("reading {}", file.display()))?;
            reader.read(&text).with_context(|| format!("{}", file.display()))?;
        }
    }
    let notes =
        reader.ignored.iter().map(|(kind, count)| format!("ignored: {count} of kind {kind}, which has no rows"));
    Ok(Manifests { notes: notes.collect(), facts: reader.facts.into_values().collect() })
}

/// The path itself, or the manifests below a folder, sorted.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    let mut entries: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        let extension = entry.extension().and_then(|e| e.to_str());
        if entry.is_dir() || matches!(extension, Some("yaml" | "yml" | "json")) {
            found.extend(files(&entry)?);
        }
    }
    Ok(found)
}

fn read_text(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

#[derive(Default)]
struct Reader {
    interner: Interner,
    facts: BTreeMap<FactKey, Fact>,
    ignored: BTreeMap<String, usize>,
}

impl Reader {
    fn read(&mut self, text: &str) -> anyhow::Result<()> {
        for (i, document) in documents(text)?.into_iter().enumerate() {
            if !document.is_null() {
                self.object(document).with_context(|| format!("document {}", i + 1))?;
            }
        }
        Ok(())
    }

    fn admin(&mut self, kind: AdminKind, object: Value) -> anyhow::Result<Fact> {
        let Custom { metadata, spec, .. } = typed::<Custom<AdminPolicySpec, IgnoredAny>>(object, kind.as_str())?;
        Ok(Fact::AdminPolicy(AdminPolicyFact::new(kind, &metadata, &spec, &mut self.interner)))
    }

    fn network(&mut self, object: Value, kind: &str) -> anyhow::Result<Fact> {
        let Custom { metadata, spec, status } = typed::<Custom<NetworkSpec, NetworkStatus>>(object, kind)?;
        Ok(Fact::Network(NetworkFact::new(&metadata, &spec, &status, &mut self.interner)))
    }

    fn provider_network(&mut self, object: Value, kind: &str) -> anyhow::Result<Fact> {
        let Custom { metadata, spec, status } =
            typed::<Custom<ProviderNetworkSpec, ProviderNetworkStatus>>(object, kind)?;
        Ok(Fact::ProviderNetwork(ProviderNetworkFact::new(&metadata, &spec, &status, &mut self.interner)))
    }

    fn object(&mut self, object: Value) -> anyhow::Result<()> {
        let kind = object["kind"].as_str().ok_or_else(|| anyhow!("kind: missing"))?.to_owned();
        let fact = match kind.as_str() {
            "Node" => Fact::Node(NodeFact::from_k8s(&typed::<Node>(object, &kind)?)),
            "Pod" => Fact::Pod(PodFact::from_k8s(&typed::<Pod>(object, &kind)?, &mut self.interner)),
            "Namespace" => {
                Fact::Namespace(NamespaceFact::from_k8s(&typed::<Namespace>(object, &kind)?, &mut self.interner))
            }
            "Service" => Fact::Service(ServiceFact::from_k8s(&typed::<Service>(object, &kind)?, &mut self.interner)),
            "EndpointSlice" => Fact::EndpointSlice(EndpointSliceFact::from_k8s(
                &typed::<EndpointSlice>(object, &kind)?,
                &mut self.interner,
            )),
            "NetworkPolicy" => Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(
                &typed::<NetworkPolicy>(object, &kind)?,
                &mut self.interner,
            )),
            "AdminNetworkPolicy" => self.admin(AdminKind::AdminNetworkPolicy, object)?,
            "BaselineAdminNetworkPolicy" => self.admin(AdminKind::BaselineAdminNetworkPolicy, object)?,
            "ClusterNetworkPolicy" => self.admin(AdminKind::ClusterNetworkPolicy, object)?,
            "Network" if is_ours(&object) => self.network(object, &kind)?,
            "ProviderNetwork" if is_ours(&object) => self.provider_network(object, &kind)?,
            "ServiceCIDR" => Fact::ServiceCidr(ServiceCidrFact::from_k8s(&typed::<ServiceCIDR>(object, &kind)?)),
            _ if kind.ends_with("List") && object["items"].is_array() => return self.list(object, &kind),
            _ => {
                *self.ignored.entry(kind).or_default() += 1;
                return Ok(());
            }
        };
        self.facts.insert(fact.key(), fact);
        Ok(())
    }

    fn list(&mut self, mut list: Value, kind: &str) -> anyhow::Result<()> {
        let Value::Array(items) = list["items"].take() else { return Ok(()) };
        for (i, mut item) in items.into_iter().enumerate() {
            // The items of a PodList need not repeat their kind.
            if let (Some(of), Some(object)) =
                (kind.strip_suffix("List").filter(|k| !k.is_empty()), item.as_object_mut())
            {
                object.entry("kind").or_insert_with(|| of.into());
                object.entry("apiVersion").or_insert_with(|| "v1".into());
            }
            self.object(item).with_context(|| format!("items[{i}]"))?;
        }
        Ok(())
    }
}

/// The documents of a file. JSON is YAML too; its own parser is only faster.
fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let is_json = text.trim_start().starts_with('{');
    if is_json && let Ok(documents) = serde_json::Deserializer::from_str(text).into_iter().collect() {
        return Ok(documents);
    }
    // A file may hold a whole cluster, so only the limits of depth and of anchors stay. Strict booleans, so that a node may be
    // called n.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: usize::MAX,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        strict_booleans: true,
    };
    Ok(serde_saphyr::from_multiple_with_options(text, options)?)
}

/// An object of a kind of which k8s-openapi knows nothing.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned, T: DeserializeOwned"))]
struct Custom<S: Default, T: Default> {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: S,
    #[serde(default)]
    status: T,
}

/// True of our own API group: other projects have kinds of these names, too.
fn is_ours(object: &Value) -> bool {
    object["apiVersion"].as_str().is_some_and(|version| version.starts_with("ovenbird.io/"))
}

/// An object of its Kubernetes type, with a name, and a namespace where its kind has one.
fn typed<T: DeserializeOwned>(mut object: Value, kind: &str) -> anyhow::Result<T> {
    let name = object["metadata"]["name"].as_str().filter(|n| !n.is_empty()).map(str::to_owned);
    let name = name.ok_or_else(|| anyhow!("{kind}: metadata.name: missing"))?;
    if matches!(kind, "Pod" | "Service" | "EndpointSlice" | "NetworkPolicy")
        && object["metadata"]["namespace"].is_null()
    {
        object["metadata"]["namespace"] = "default".into();
    }
    serde_path_to_error::deserialize(object).map_err(|e| anyhow!("{kind} {name}: {}: {}", e.path(), e.inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Reader, String> {
        let mut reader = Reader::default();
        reader.read(text).map_err(|e| format!("{e:#}"))?;
        Ok(reader)
    }

    fn keys(text: &str) -> Vec<String> {
        read_text(text).unwrap().facts.keys().map(|key| format!("{key:?}")).collect()
    }

    #[test]
    fn documents_lists_and_json() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}}";
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[]}}"#;
        let want = [r#"Node("n1")"#, r#"Pod("default/a")"#];
        assert_eq!(keys(&format!("---\n{node}\n---\n\n---\n{pod}\n")), want);
        assert_eq!(keys(&format!("apiVersion: v1\nkind: List\nitems:\n- {node}\n- {pod}\n")), want);
        assert_eq!(keys(&format!(r#"{{"apiVersion":"v1","kind":"List","items":[{pod}]}}"#)), want[1..]);
        assert_eq!(keys(r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"a"}}]}"#), want[1..]);
        assert_eq!(keys(&format!("{pod}\n{pod}")), want[1..], "the later of two counts");
        let reader = read_text("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}").unwrap();
        assert_eq!(reader.ignored.get("Deployment"), Some(&1));
    }

    #[test]
    fn errors_name_document_object_and_field() {
        for (text, want) in [
            ("kind: Node\nmetadata: {}\n", "document 1: Node: metadata.name: missing"),
            ("---\nkind: Namespace\napiVersion: v1\nmetadata: {name: a}\n---\nname: b\n", "document 2: kind: missing"),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: [n1], containers: []}}",
                "document 1: Pod a: spec.nodeName: invalid type: sequence, expected a string",
            ),
            (
                "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: n, labels: 7}}]}",
                "document 1: items[0]: Node n: metadata.labels: invalid type: integer `7`, expected a map",
            ),
            ("a: [", "error: line 1 column 4"),
            (&"[".repeat(100_000), "recursion limit exceeded"),
        ] {
            let error = read_text(text).err().unwrap();
            assert!(error.contains(want), "{error}");
        }
    }
}
