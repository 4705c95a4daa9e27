//! Golden cases: `golden/<case>/NN-input.yaml` are steps; after each, the rows of the whole cluster (`NN-rows.txt`) and the
//! plan against the state after the step before (`NN-plan.txt`) are compared. `UPDATE_GOLDEN=1` rewrites them.
//!
//! Inputs are Kubernetes objects, which are upserted, and two kinds of ours: `Config` (first step: `clusterSubnets`,
//! `serviceCIDRs`, `joinSubnets`, `masqueradeSubnets`, `nonMasqueradeCIDRs`, `snat`, `networkPolicy`, `aclTiers`) and `Delete` (`node`, `pod`, `service`,
//! `slice`, `cidr`, `namespace`, `policy`, `network`, `provider` or `anp`). `REPEAT` in a text is replaced by 200 times `x`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovenbird_reconcile::{Desired, Owner, Plan, Scope, Zone, plan};
use ovenbird_schema::northbound::DATABASE;
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, Change, Config, EndpointSliceFact, Engine, Fact, FactKey, Interner, NamespaceFact,
    NetworkFact, NetworkPolicyFact, NodeFact, PodFact, ProviderNetworkFact, ServiceCidrFact, ServiceFact, config, text,
};
use ovsdb::{MonitorSpec, Replica, Str, Update};
use serde_json::{Value, json};

/// The pipeline without a server: the replica is what the plan would have made of it.
struct Pipeline {
    engine: Engine,
    interner: Interner,
    desired: Desired,
    replica: Replica,
    diagnostics: std::collections::BTreeMap<Owner, Vec<String>>,
}

impl Pipeline {
    fn new(settings: &Value) -> Pipeline {
        let text = |key: &str, default: &str| settings[key].as_str().unwrap_or(default).to_owned();
        let config = Config::new(&config::Settings {
            cluster_subnets: &text("clusterSubnets", "10.128.0.0/14/23"),
            service_cidrs: &text("serviceCIDRs", "10.96.0.0/16"),
            join_subnets: &text("joinSubnets", "100.64.0.0/16,fd98::/64"),
            masquerade_subnets: &text("masqueradeSubnets", config::DEFAULT_MASQUERADE_SUBNETS),
            non_masquerade_cidrs: &text("nonMasqueradeCIDRs", ""),
            snat: settings["snat"].as_bool().unwrap_or(true),
            on_networks: config::OnNetworks::default(),
            mtu: 1400,
            network_policy: settings["networkPolicy"].as_bool().unwrap_or(true),
            acl_logging_rate: 20,
        });
        let mut engine = Engine::new(config.unwrap());
        engine.set_acl_tiers(settings["aclTiers"].as_bool().unwrap_or(true));
        Pipeline {
            engine,
            interner: Interner::default(),
            desired: Desired::new(Zone(0), &DATABASE),
            replica: Replica::new(&DATABASE, &MonitorSpec::everything(&DATABASE)),
            diagnostics: Default::default(),
        }
    }

    fn change(&mut self, object: Value) -> Change {
        let interner = &mut self.interner;
        match object["kind"].as_str().unwrap() {
            "Node" => Change::Upsert(Fact::Node(NodeFact::from_k8s(&serde_json::from_value(object).unwrap()))),
            "Pod" => Change::Upsert(Fact::Pod(PodFact::from_k8s(&serde_json::from_value(object).unwrap(), interner))),
            "Namespace" => {
                let namespace = serde_json::from_value(object).unwrap();
                Change::Upsert(Fact::Namespace(NamespaceFact::from_k8s(&namespace, interner)))
            }
            "Service" => {
                let service = serde_json::from_value(object).unwrap();
                Change::Upsert(Fact::Service(ServiceFact::from_k8s(&service, interner)))
            }
            "EndpointSlice" => {
                let slice = serde_json::from_value(object).unwrap();
                Change::Upsert(Fact::EndpointSlice(EndpointSliceFact::from_k8s(&slice, interner)))
            }
            "ServiceCIDR" => {
                let cidr = serde_json::from_value(object).unwrap();
                Change::Upsert(Fact::ServiceCidr(ServiceCidrFact::from_k8s(&cidr)))
            }
            "NetworkPolicy" => {
                let policy = serde_json::from_value(object).unwrap();
                Change::Upsert(Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(&policy, interner)))
            }
            "Network" => {
                let (meta, spec) = parts(&object);
                let status = serde_json::from_value(object["status"].clone()).unwrap_or_default();
                let spec = serde_json::from_value(spec).unwrap();
                Change::Upsert(Fact::Network(NetworkFact::new(&meta, &spec, &status, interner)))
            }
            "ProviderNetwork" => {
                let (meta, spec) = parts(&object);
                let [spec, status] = [spec, object["status"].clone()];
                let (spec, status) =
                    (serde_json::from_value(spec).unwrap(), serde_json::from_value(status).unwrap_or_default());
                Change::Upsert(Fact::ProviderNetwork(ProviderNetworkFact::new(&meta, &spec, &status, interner)))
            }
            "AdminNetworkPolicy" => admin(AdminKind::AdminNetworkPolicy, object, interner),
            "BaselineAdminNetworkPolicy" => admin(AdminKind::BaselineAdminNetworkPolicy, object, interner),
            "ClusterNetworkPolicy" => admin(AdminKind::ClusterNetworkPolicy, object, interner),
            "Delete" => {
                let named = |kind: &str| object[kind].as_str().map(Str::from);
                let key = (named("node").map(FactKey::Node))
                    .or_else(|| named("pod").map(FactKey::Pod))
                    .or_else(|| named("service").map(FactKey::Service))
                    .or_else(|| named("slice").map(FactKey::EndpointSlice))
                    .or_else(|| named("namespace").map(FactKey::Namespace))
                    .or_else(|| named("anp").map(|name| FactKey::AdminPolicy((AdminKind::AdminNetworkPolicy, name))))
                    .or_else(|| named("network").map(FactKey::Network))
                    .or_else(|| named("provider").map(FactKey::ProviderNetwork))
                    .or_else(|| named("policy").map(FactKey::NetworkPolicy))
                    .or_else(|| named("cidr").map(FactKey::ServiceCidr));
                Change::Delete(key.unwrap())
            }
            other => panic!("kind {other}"),
        }
    }

    /// Catches up: returns the texts of rows and plan.
    fn step(&mut self) -> (String, String) {
        for owner in self.engine.take_dirty() {
            let output = self.engine.translate(&owner);
            let found = self.desired.set(&owner, output).into_iter();
            let found = found.map(|d| format!("{:?} {} {}: {}", d.severity, d.reason, d.field, d.message));
            self.diagnostics.insert(owner, found.collect());
        }
        let whole = self.desired.rows();
        let mut rows = text::rows(&whole);
        for (owner, found) in &self.diagnostics {
            found.iter().for_each(|text| writeln!(rows, "! {owner}: {text}").unwrap());
        }
        let plan_text = plan_text(&plan(&mut self.desired, &self.replica, Scope::Dirty));

        let mut tables = text::json(&whole);
        for row in tables.as_object_mut().unwrap().values_mut().flat_map(|t| t.as_object_mut().unwrap().values_mut()) {
            *row = json!({"initial": row.take()});
        }
        self.replica.apply(&Update::from_text(&tables.to_string()).into_reset(), &mut Vec::new()).unwrap();
        let second = plan(&mut self.desired, &self.replica, Scope::All);
        assert!(second.is_empty(), "a second plan is empty, not:\n{second}");
        (rows, plan_text)
    }
}

fn parts(object: &Value) -> (ObjectMeta, Value) {
    (serde_json::from_value(object["metadata"].clone()).unwrap(), object["spec"].clone())
}

fn admin(kind: AdminKind, mut object: Value, interner: &mut Interner) -> Change {
    let meta = serde_json::from_value(object["metadata"].take()).unwrap();
    let spec = serde_json::from_value(object["spec"].take()).unwrap();
    Change::Upsert(Fact::AdminPolicy(AdminPolicyFact::new(kind, &meta, &spec, interner)))
}

/// What is done for whom, sorted: the order of a plan is for the tests of `reconcile`.
fn plan_text(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.ops().map(|(owner, op)| format!("{owner}: {op}\n")).collect();
    lines.extend(plan.waiting.iter().map(|w| format!("waiting: {}: {w}\n", w.owner)));
    lines.sort();
    lines.concat()
}

fn run(case: &Path) -> Vec<String> {
    let mut inputs: Vec<_> = fs::read_dir(case).unwrap().map(|e| e.unwrap().path()).collect();
    inputs.retain(|path| path.to_str().unwrap().ends_with("-input.yaml"));
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has no step", case.display());
    let mut pipeline = None;
    let mut differences = Vec::new();
    for input in inputs {
        let text = fs::read_to_string(&input).unwrap().replace("REPEAT", &"x".repeat(200));
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let config = objects.pop_if_first(|o| o["kind"] == "Config");
        let pipeline = pipeline.get_or_insert_with(|| Pipeline::new(&config.unwrap_or_default()));
        for object in objects {
            let change = pipeline.change(object);
            pipeline.engine.apply(change);
        }
        let (rows, plan) = pipeline.step();
        for (suffix, got) in [("rows.txt", rows), ("plan.txt", plan)] {
            let path = input.to_str().unwrap().replace("input.yaml", suffix);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, got).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != got {
                differences.push(format!("{path} differs; it should be:\n{got}"));
            }
        }
    }
    differences
}

trait PopIfFirst {
    fn pop_if_first(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value>;
}

impl PopIfFirst for Vec<Value> {
    fn pop_if_first(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        self.first().is_some_and(wanted).then(|| self.remove(0))
    }
}

#[test]
fn golden() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 10, "cases are missing");
    let differences: Vec<String> = cases.iter().flat_map(|case| run(case)).collect();
    assert!(differences.is_empty(), "UPDATE_GOLDEN=1 accepts these:\n{}", differences.join("\n"));
}
