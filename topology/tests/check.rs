//! Questions about policies and their answers: `check/answers.txt` has questions, as they are written for `ovenbird check policy`, each with
//! the answer in the cluster of `check/cluster.yaml`. `UPDATE_GOLDEN=1` rewrites the answers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ovenbird_topology::check::answer::{AdminRule, Answer, Decision, Isolation, Judgement, Overview, Rule};
use ovenbird_topology::check::{Query, Refusal};
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, Change, Config, Engine, Fact, Interner, NamespaceFact, NetworkFact, NetworkPolicyFact,
    NodeFact, PodFact, ServiceFact,
};
use serde_json::{Value, json};

fn cluster() -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let text = fs::read_to_string(folder.join("cluster.yaml")).unwrap();
    let mut engine =
        Engine::new(Config::parse("10.128.0.0/14/23,fd01::/48/64", "", "100.64.0.0/16,fd98::/64", 1400).unwrap());
    let mut interner = Interner::default();
    for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let of = |object| serde_json::from_value(object).unwrap();
        engine.apply(Change::Upsert(match kind.as_str() {
            "Node" => Fact::Node(NodeFact::from_k8s(&serde_json::from_value(object).unwrap())),
            "Pod" => Fact::Pod(PodFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut interner)),
            "Namespace" => Fact::Namespace(NamespaceFact::from_k8s(&of(object), &mut interner)),
            "Service" => Fact::Service(ServiceFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut interner)),
            "NetworkPolicy" => Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(
                &serde_json::from_value(object).unwrap(),
                &mut interner,
            )),
            "Network" => {
                let [metadata, spec] = ["metadata", "spec"].map(|part| object[part].clone());
                let (metadata, spec) =
                    (serde_json::from_value(metadata).unwrap(), serde_json::from_value(spec).unwrap());
                Fact::Network(NetworkFact::new(&metadata, &spec, &Default::default(), &mut interner))
            }
            other => {
                let kind = AdminKind::ALL.into_iter().find(|kind| kind.as_str() == other).unwrap();
                let [metadata, spec] = ["metadata", "spec"].map(|part| object[part].clone());
                let (metadata, spec) =
                    (serde_json::from_value(metadata).unwrap(), serde_json::from_value(spec).unwrap());
                Fact::AdminPolicy(AdminPolicyFact::new(kind, &metadata, &spec, &mut interner))
            }
        }));
    }
    engine
}

/// `web/a --from db/b --port tcp/80`.
fn query(text: &str) -> Query {
    let mut words = text.split(' ');
    let mut query = json!({"pod": words.next().unwrap()});
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        query[option.trim_start_matches("--")] = value.into();
    }
    serde_json::from_value(query).unwrap()
}

fn shown(answer: Result<Answer, Refusal>) -> String {
    match answer {
        Ok(answer) => {
            let sent = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&sent).unwrap(), answer, "what is sent is what is read");
            match answer {
                Answer::Decision(decision) => decision_text(&decision),
                Answer::Overview(overview) => overview_text(&overview),
            }
        }
        Err(refusal) => format!("error: {refusal}\n"),
    }
}

fn decision_text(decision: &Decision) -> String {
    let Decision { verdict, source, destination, port, paths, notes, enforced_by: _ } = decision;
    let mut out = format!("{verdict:?}: {source} -> {destination} {}\n", port.as_deref().unwrap_or("(anything)"));
    for path in paths {
        let passes = path.passes.join(" ");
        writeln!(out, "  {} -> {}: {:?} {passes}", path.source, path.destination, path.verdict).unwrap();
        for (direction, judgement) in [("egress", &path.egress), ("ingress", &path.ingress)] {
            judgement.iter().for_each(|judgement| out += &judgement_text(direction, judgement));
        }
        if let Some(flow) = &path.microflow {
            let (way, macs) =
                ([&*flow.inport, &flow.outport].join(" -> "), [&*flow.eth_src, &flow.eth_dst].join(" -> "));
            let port = flow.port.map_or_else(String::new, |port| format!("/{port}"));
            writeln!(out, "    on {}: {way}, {macs}, {}{port}", flow.switch, flow.protocol).unwrap();
        }
    }
    notes.iter().for_each(|note| writeln!(out, "  note: {note}").unwrap());
    out
}

fn judgement_text(direction: &str, judgement: &Judgement) -> String {
    let Judgement { pod, state, admin, isolated_by, rules, others, undecided, left_out } = judgement;
    let mut out = format!("    {direction} of {pod}: {state:?} [{}]", isolated_by.join(" "));
    out += if *left_out > 0 { " ...\n" } else { "\n" };
    admin.iter().for_each(|rule| out += &admin_text(rule));
    rules.iter().for_each(|rule| out += &rule_text("+", rule));
    others.iter().for_each(|other| out += &rule_text(&format!("- {:?}:", other.misses), &other.rule));
    if !admin.is_empty() && !undecided.is_empty() {
        writeln!(out, "      undecided: {}", undecided.join(", ")).unwrap();
    }
    out
}

fn admin_text(of: &AdminRule) -> String {
    let AdminRule { kind, tier, name, action, rule } = of;
    let name = name.as_deref().map_or_else(String::new, |name| format!(" {name:?}"));
    rule_text(&format!("{tier:?} {action:?}{name}: {kind}"), rule)
}

fn rule_text(sign: &str, rule: &Rule) -> String {
    let Rule { policy, direction, index, peers, ports } = rule;
    let (peers, ports) = (peers.join(", "), ports.join(", "));
    format!("      {sign} {policy} {direction:?}[{index}] {{{peers}}} {{{ports}}}\n")
}

fn overview_text(overview: &Overview) -> String {
    let Overview { pod, node, addresses, ingress, egress, notes } = overview;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut out = format!("{pod} on {}: {}\n", node.as_deref().unwrap_or("-"), addresses.join(" "));
    for (direction, Isolation { isolated_by, rules, admin, left_out }) in [("ingress", ingress), ("egress", egress)] {
        writeln!(out, "  {direction} [{}] {left_out}", isolated_by.join(" ")).unwrap();
        rules.iter().for_each(|rule| out += &rule_text("+", rule));
        admin.iter().for_each(|rule| out += &admin_text(rule));
    }
    notes.iter().for_each(|note| writeln!(out, "  note: {note}").unwrap());
    out
}

#[test]
fn answers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check/answers.txt");
    let (wanted, mut engine) = (fs::read_to_string(&file).unwrap(), cluster());
    let questions = wanted.lines().filter_map(|line| line.strip_prefix("? "));
    let got: String = questions.map(|text| format!("? {text}\n{}", shown(engine.check(&query(text))))).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&file, got).unwrap();
    }
    let differing = got.lines().zip(wanted.lines()).position(|(got, wanted)| got != wanted);
    let line = differing.map_or_else(String::new, |at| format!("line {}: {:?}", at + 1, got.lines().nth(at)));
    assert!(got == wanted, "UPDATE_GOLDEN=1 accepts this: {line}");
}

#[test]
fn lists_are_bounded() {
    let mut engine = cluster();
    let mut interner = Interner::default();
    let peers: Vec<Value> = (0..100).map(|n| json!({"ipBlock": {"cidr": format!("198.51.{n}.1/32")}})).collect();
    let ports: Vec<Value> = (1..1000).map(|n| json!({"port": 2 * n})).collect();
    for n in 0..50 {
        let rule = |i: u8| {
            [json!({"from": peers, "ports": ports}), json!({"ports": ports}), json!({})][usize::from(i % 3)].clone()
        };
        let rules: Vec<Value> = (0..6).map(rule).collect();
        let policy = json!({"metadata": {"namespace": "web", "name": format!("p{n}")},
            "spec": {"podSelector": {}, "ingress": rules}});
        let fact = NetworkPolicyFact::from_k8s(&serde_json::from_value(policy).unwrap(), &mut interner);
        engine.apply(Change::Upsert(Fact::NetworkPolicy(fact)));
    }
    let Ok(Answer::Decision(decision)) = engine.check(&query("web/a --from db/six")) else { panic!("no decision") };
    let ingress = decision.paths[0].ingress.as_ref().unwrap();
    assert_eq!((ingress.isolated_by.len(), ingress.rules.len(), ingress.others.len()), (52, 100, 100));
    assert_eq!(ingress.left_out, 103, "300 rules of these policies and 3 of web/in");
    assert!(ingress.rules.iter().all(|rule| rule.ports.len() <= 33 && rule.peers.len() <= 33));
    let Ok(Answer::Overview(overview)) = engine.check(&query("web/a")) else { panic!("no overview") };
    assert_eq!((overview.ingress.rules.len(), overview.ingress.left_out), (100, 203));
}

#[test]
fn what_has_no_room_is_not_in_effect() {
    let mut engine = cluster();
    let mut interner = Interner::default();
    for (name, priority) in [("full", 1), ("late", 2)] {
        let rule = json!({"action": "Deny", "to": [{"namespaces": {}}]});
        let spec = json!({"tier": "Baseline", "priority": priority, "subject": {"namespaces": {}},
            "egress": vec![rule; 990]});
        let (meta, spec) = (json!({"name": name}), serde_json::from_value(spec).unwrap());
        let meta = serde_json::from_value(meta).unwrap();
        let fact = AdminPolicyFact::new(AdminKind::ClusterNetworkPolicy, &meta, &spec, &mut interner);
        engine.apply(Change::Upsert(Fact::AdminPolicy(fact)));
    }
    let Ok(Answer::Overview(overview)) = engine.check(&query("web/a")) else { panic!("no overview") };
    assert_eq!((overview.egress.admin.len(), overview.egress.left_out), (100, 890));
    assert_eq!(overview.notes, ["ClusterNetworkPolicy late is not in effect: OVN has no priorities left for it"]);
    let Ok(Answer::Decision(decision)) = engine.check(&query("web/a --to web/b --port 80")) else {
        panic!("no decision")
    };
    let egress = decision.paths[0].egress.as_ref().unwrap();
    assert_eq!((&*egress.admin[0].rule.policy, egress.admin.len()), ("full", 1));
}
