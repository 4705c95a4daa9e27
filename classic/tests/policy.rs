//! Golden cases: `policy/<case>/NN-input.yaml` are steps; the transaction from each to the next on node `n1` (`NN-script.txt`) is compared.
//! `UPDATE_GOLDEN=1` rewrites them. Where there is root, the kernel takes each transaction, too, and lists what was meant.
//!
//! Inputs are Kubernetes objects, which are upserted, and `Delete` (`pod` or `policy`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ovenbird_classic::policy::{Policies, TABLE};
use ovenbird_nft::{Table, read, script};
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, Change, Config, Fact, FactKey, Interner, NamespaceFact, NetworkPolicyFact, NodeFact,
    PodFact,
};
use serde_json::Value;

fn change(mut object: Value, texts: &mut Interner) -> Change {
    let text = |key: &str| object[key].as_str().map(Into::into);
    let kind = object["kind"].as_str().unwrap().to_owned();
    if kind == "Delete" {
        return Change::Delete(text("pod").map(FactKey::Pod).or(text("policy").map(FactKey::NetworkPolicy)).unwrap());
    }
    if let Some(kind) = AdminKind::ALL.into_iter().find(|known| known.as_str() == kind) {
        let [meta, spec] = ["metadata", "spec"].map(|field| object[field].take());
        let (meta, spec) = (serde_json::from_value(meta).unwrap(), serde_json::from_value(spec).unwrap());
        return Change::Upsert(Fact::AdminPolicy(AdminPolicyFact::new(kind, &meta, &spec, texts)));
    }
    Change::Upsert(match &*kind {
        "Node" => Fact::Node(NodeFact::from_k8s(&serde_json::from_value(object).unwrap())),
        "Pod" => Fact::Pod(PodFact::from_k8s(&serde_json::from_value(object).unwrap(), texts)),
        "Namespace" => Fact::Namespace(NamespaceFact::from_k8s(&serde_json::from_value(object).unwrap(), texts)),
        _ => Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(&serde_json::from_value(object).unwrap(), texts)),
    })
}

fn run(case: &Path) -> Vec<String> {
    let mut inputs: Vec<_> = fs::read_dir(case).unwrap().map(|e| e.unwrap().path()).collect();
    inputs.retain(|path| path.to_str().unwrap().ends_with("-input.yaml"));
    inputs.sort();
    let networks = ["10.128.0.0/14", "fd00:10:128::/48"].map(|net| net.parse().unwrap());
    let mut policies = Policies::new("n1", Config::of_pods(&networks, true, 20).unwrap());
    let (mut before, mut texts, mut differences, mut scripts) =
        (Table::new(TABLE), Interner::default(), Vec::new(), Vec::new());
    for input in inputs {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&input).unwrap()).unwrap();
        objects.into_iter().for_each(|object| policies.apply(change(object, &mut texts)));
        policies.settle();
        assert_eq!(policies.unreadable().next(), None);
        assert!(!policies.settle(), "a second time changes nothing");
        let now = policies.table();
        let got = script(&before, &now);
        let path = input.to_str().unwrap().replace("input.yaml", "script.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &got).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != got {
            differences.push(format!("{path} differs; it should be:\n{got}"));
        }
        scripts.push((got, now.clone()));
        before = now;
    }
    take(&case.display().to_string(), &scripts);
    differences
}

/// In a network namespace of its own.
fn nft(args: &[&str], input: &str) -> String {
    let mut child = Command::new("nft").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft refuses:\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

/// The kernel takes the transactions, and each table it then lists is the one that was meant.
fn take(case: &str, scripts: &[(String, Table)]) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return eprintln!("{case}: not tried with nft, for want of root");
            }
            for (script, wanted) in scripts {
                nft(&["-f", "-"], script);
                let listed = read(TABLE, &nft(&["-j", "list", "table", "inet", "ovenbird-policy"], "")).unwrap();
                assert_eq!(ovenbird_nft::script(&listed, wanted), "", "{case}: what is listed differs");
            }
        });
    });
}

#[test]
fn golden() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 3, "cases are missing");
    let differences: Vec<String> = cases.iter().flat_map(|case| run(case)).collect();
    assert!(differences.is_empty(), "UPDATE_GOLDEN=1 accepts these:\n{}", differences.join("\n"));
}
