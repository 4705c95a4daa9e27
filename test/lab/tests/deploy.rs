//! The manifests of `deploy/`: what they grant is what their README says is needed, neither more nor less.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

const RBAC: &str = include_str!("../../../deploy/rbac.yaml");
const TABLE: &str = include_str!("../../../deploy/README.md");
const MASTER: &str = include_str!("../../../deploy/master.yaml");
const NODE: &str = include_str!("../../../deploy/node.yaml");

/// Account, resource (with its group in front unless that is the core one), verb.
type Grant = (String, String, String);

#[test]
fn every_permission_is_needed_for_something() -> Result<()> {
    let (granted, explained) = (granted()?, explained()?);
    let unexplained: Vec<_> = granted.difference(&explained).collect();
    ensure!(unexplained.is_empty(), "deploy/README.md does not say what these are needed for: {unexplained:?}");
    let missing: Vec<_> = explained.difference(&granted).collect();
    ensure!(missing.is_empty(), "deploy/rbac.yaml does not grant what deploy/README.md says is needed: {missing:?}");
    ensure!(
        granted.len() > 20 && granted.iter().all(|(_, resource, verb)| resource != "*" && verb != "*"),
        "{granted:?}"
    );
    Ok(())
}

#[test]
fn daemons_use_their_accounts_and_the_hosts_network() -> Result<()> {
    let master: Deployment = serde_saphyr::from_str(MASTER)?;
    let node: DaemonSet = serde_saphyr::from_str(NODE)?;
    let master = master.spec.and_then(|spec| spec.template.spec).context("the master has no pod")?;
    let node = node.spec.and_then(|spec| spec.template.spec).context("the node daemon has no pod")?;
    for (pod, account) in [(&master, "ovenbird-master"), (&node, "ovenbird-node")] {
        ensure!(pod.service_account_name.as_deref() == Some(account), "{account}");
        ensure!(pod.host_network == Some(true), "{account} must run before there is a pod network");
        ensure!(mounts_are_volumes(pod), "{account}: a mount without its volume, or the reverse");
    }
    Ok(())
}

fn mounts_are_volumes(pod: &PodSpec) -> bool {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let mounts = containers.flat_map(|one| one.volume_mounts.iter().flatten()).map(|mount| mount.name.as_str());
    let volumes = pod.volumes.iter().flatten().map(|volume| volume.name.as_str());
    mounts.collect::<BTreeSet<_>>() == volumes.collect()
}

/// Rules of all roles, by the account that a binding gives them to.
fn granted() -> Result<BTreeSet<Grant>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(RBAC)?;
    let mut grants = BTreeSet::new();
    for binding in objects.iter().filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding")))
    {
        let reference = &binding["roleRef"];
        let is_role =
            |object: &&Value| object["kind"] == reference["kind"] && object["metadata"]["name"] == reference["name"];
        let role = objects.iter().find(is_role).with_context(|| format!("no role for {binding}"))?;
        for account in texts(&binding["subjects"], |subject| &subject["name"]) {
            for rule in role["rules"].as_array().into_iter().flatten() {
                for (group, resource) in pairs(&rule["apiGroups"], &rule["resources"]) {
                    let resource = if group.is_empty() { resource } else { format!("{group}/{resource}") };
                    let verbs = texts(&rule["verbs"], |verb| verb);
                    grants.extend(verbs.into_iter().map(|verb| (account.clone(), resource.clone(), verb)));
                }
            }
        }
    }
    Ok(grants)
}

/// Rows of the README's table.
fn explained() -> Result<BTreeSet<Grant>> {
    let mut grants = BTreeSet::new();
    for row in TABLE.lines().filter(|line| line.starts_with("| ovenbird-")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [account, resource, verbs, reason] = cells[..] else { anyhow::bail!("not four cells: {row}") };
        ensure!(!reason.is_empty(), "no reason: {row}");
        grants.extend(verbs.split(", ").map(|verb| (account.to_owned(), resource.to_owned(), verb.to_owned())));
    }
    Ok(grants)
}

fn pairs(groups: &Value, resources: &Value) -> Vec<(String, String)> {
    let resources = texts(resources, |one| one);
    let with =
        |group: String| resources.iter().map(move |resource| (group.clone(), resource.clone())).collect::<Vec<_>>();
    texts(groups, |one| one).into_iter().flat_map(with).collect()
}

fn texts(list: &Value, pick: impl Fn(&Value) -> &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| pick(one).as_str().map(str::to_owned)).collect()
}
