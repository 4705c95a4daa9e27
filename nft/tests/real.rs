//! Scripts on the real nft and kernel, in a network namespace. Needs root.
//!
//! However a table came about, by one script after the other, it is the same as when it is written at once, and reads back as it was wanted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;

use ovenbird_nft::{Base, Chain, Set, Table, delete, read, script};
use proptest::prelude::*;
use serde_json::Value;

mod kernel;

use kernel::{enter, listed, nft};

fn write(text: &str) {
    nft(&["-f", "-"], text);
}

/// What is listed, without the table's name, handles, and the order of objects and elements.
fn shown(id: &str) -> Vec<String> {
    fn plain(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.remove("handle");
                object.remove("table");
                object.values_mut().for_each(plain);
                if let Some(Value::Array(elements)) = object.get_mut("elem") {
                    elements.sort_by_key(Value::to_string);
                }
            }
            Value::Array(all) => all.iter_mut().for_each(plain),
            _ => {}
        }
    }
    let mut value: Value = serde_json::from_str(&listed(id)).unwrap();
    plain(&mut value);
    let objects = value["nftables"].as_array().unwrap();
    let kind = |o: &&Value| o.get("metainfo").is_none() && o.get("table").is_none();
    let (mut others, mut rules) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for object in objects.iter().filter(kind) {
        match object.get("rule") {
            Some(rule) => rules.entry(rule["chain"].to_string()).or_default().push(rule.to_string()),
            None => others.push(object.to_string()),
        }
    }
    others.sort();
    others.into_iter().chain(rules.into_values().flatten()).collect()
}

/// Declarations of sets: text, whether it is a map, whether verdicts, whether kept.
const SETS: [(&str, bool, bool, bool); 6] = [
    ("type ipv4_addr", false, false, false),
    ("type ipv4_addr; flags interval", false, false, false),
    ("type ipv4_addr; size 65535; flags dynamic,timeout", false, false, true),
    ("type ipv4_addr : verdict", true, true, false),
    ("type ipv4_addr : verdict; flags interval", true, true, false),
    ("type ipv4_addr : mark", true, false, false),
];
const CHAINS: usize = 5;

/// What is drawn for a table: a set may be there with elements, a chain with rules; the rest follows.
#[derive(Clone, Debug)]
struct Drawn {
    sets: Vec<Option<(usize, Pairs)>>,
    chains: Vec<Option<(u8, Pairs)>>,
}

/// Keys and values, or kinds of rules and whom they name.
type Pairs = Vec<(u8, u8)>;

/// Few choices, so that one table has much in common with the next.
fn drawn() -> impl Strategy<Value = Drawn> {
    let pairs = || prop::collection::vec((0u8..4, 0u8..4), 0..4);
    let set = |kinds: std::ops::Range<usize>| prop::option::weighted(0.9, (kinds, pairs()));
    let sets = (set(0..3), set(3..5), set(3..SETS.len()));
    let chains = prop::collection::vec(prop::option::weighted(0.8, (0u8..3, pairs())), CHAINS);
    (sets, chains).prop_map(|((a, b, c), chains)| Drawn { sets: vec![a, b, c], chains })
}

/// Chain 0 may be a base chain; others call later ones only, so there are no loops: verdict maps lead to the last.
fn table(id: &'static str, drawn: &Drawn) -> Table {
    let mut table = Table::new(id);
    let last = drawn.chains[CHAINS - 1].is_some();
    for (i, set) in drawn.sets.iter().enumerate() {
        let Some((kind, elements)) = set else { continue };
        let (spec, map, verdicts, kept) = SETS[*kind];
        let mut set = Set { spec: spec.into(), map, kept, ..Set::default() };
        for (key, value) in elements.iter().filter(|_| !kept) {
            let key = if spec.contains("interval") { format!("10.{key}.0.0/16") } else { format!("10.0.0.{key}") };
            let value = match (map, verdicts, value % 2 == 0 && last) {
                (true, true, true) => format!("goto c{}", CHAINS - 1),
                (true, true, false) => "drop".to_owned(),
                (true, false, _) => value.to_string(),
                _ => String::new(),
            };
            set.elements.insert(key, value);
        }
        table.sets.insert(format!("s{i}"), set);
    }
    for (i, chain) in drawn.chains.iter().enumerate() {
        let Some((base, rules)) = chain else { continue };
        let chain = match (i, base) {
            (0, 1) => Chain::base("nat", "prerouting", -100),
            (0, 2) => Chain::base("filter", "forward", -10),
            _ => Chain::default(),
        };
        table.chains.insert(format!("c{i}"), chain);
        for (which, to) in rules {
            let rule = rule(drawn, i, usize::from(*which), usize::from(*to));
            table.chain(&format!("c{i}")).rule(rule);
        }
    }
    table
}

fn rule(drawn: &Drawn, chain: usize, which: usize, to: usize) -> String {
    let name = which % drawn.sets.len();
    let set = drawn.sets[name].as_ref().map(|(kind, _)| SETS[*kind]);
    let later = chain + 1 + to % CHAINS;
    match set {
        Some((_, false, _, true)) => format!("update @s{name} {{ ip saddr timeout {}s }}", to + 1),
        Some((_, false, ..)) => format!("ip saddr @s{name} meta mark set {to}"),
        Some((_, true, true, _)) if chain < CHAINS - 1 => format!("ip daddr vmap @s{name}"),
        Some((_, true, false, _)) => format!("meta mark set ip daddr map @s{name}"),
        _ if drawn.chains.get(later).is_some_and(Option::is_some) => format!("tcp dport {to} jump c{later}"),
        _ => format!("udp dport {to} drop"),
    }
}

/// Whose contents a set's are is not read.
fn as_read(mut table: Table) -> Table {
    table.sets.values_mut().for_each(|set| set.kept = false);
    table
}

#[test]
fn any_way_to_a_table_leads_to_the_same() {
    if !enter() {
        return;
    }
    // A case runs nft a few dozen times.
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec((drawn(), any::<bool>()), 2..8);
    let result = runner.run(&steps, |steps| {
        write(&delete("inet way"));
        let mut old = Table::new("inet way");
        for (drawn, forget) in steps {
            let new = table("inet way", &drawn);
            write(&script(&old, &new));
            let seen = read("inet way", &listed("inet way")).unwrap();
            prop_assert_eq!(&seen, &as_read(new.clone()));
            prop_assert_eq!(script(&seen, &new), "");
            write(&delete("inet once"));
            write("add table inet once");
            write(&script(&Table::new("inet once"), &table("inet once", &drawn)));
            prop_assert_eq!(shown("inet way"), shown("inet once"));
            old = if forget { seen } else { new };
        }
        Ok(())
    });
    result.unwrap();
}

/// What a daemon that starts anew may find.
#[test]
fn kept_contents_outlive_whatever_is_written() {
    if !enter() {
        return;
    }
    let of = |mark: &str| {
        let mut table = Table::new("inet t");
        table.sets.insert("clients".into(), Set::kept("type ipv4_addr; size 65535; flags dynamic,timeout"));
        table.chain("c").rule("update @clients { ip saddr timeout 60s }").rule(format!("meta mark set {mark}"));
        table
    };
    write(&script(&Table::new("inet t"), &of("1")));
    write(
        "add element inet t clients { 192.0.2.1 timeout 1h }\nadd chain inet t others\nadd rule inet t others counter",
    );
    write("insert rule inet t c counter\nadd set inet t theirs { type mark; elements = { 7 } }");
    write("add chain inet t theirs { type filter hook input priority 0; policy drop; }");
    let found = read("inet t", &listed("inet t")).unwrap();
    write(&script(&found, &of("2")));
    let now = listed("inet t");
    assert!(now.contains("192.0.2.1"), "{now}");
    assert!(!["others", "counter", "theirs", "input"].iter().any(|theirs| now.contains(theirs)), "{now}");
    assert_eq!(script(&read("inet t", &now).unwrap(), &of("2")), "");
}

#[test]
fn hooks_are_read() {
    if !enter() {
        return;
    }
    let mut table = Table::new("inet t");
    table.chains.insert("a".into(), Chain::base("nat", "prerouting", -100));
    table.chains.insert("b".into(), Chain::base("filter", "output", -110));
    write(&script(&Table::new("inet t"), &table));
    let seen = read("inet t", &listed("inet t")).unwrap();
    assert_eq!(seen.chains["b"].base, Some(Base { kind: "filter".into(), hook: "output".into(), priority: -110 }));
    assert_eq!(seen, table);
    assert!(read("inet t", "nonsense").is_err() && read("inet t", "{}").is_err());
}
