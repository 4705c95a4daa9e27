//! What is written for what difference.

use super::*;

fn table() -> Table {
    let mut table = Table::new("inet t");
    let mut vips = Set::map("type ipv4_addr : verdict");
    vips.elements = [("10.0.0.1", "goto web"), ("10.0.0.2", "drop")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    table.sets.insert("vips".into(), vips);
    table.sets.insert("clients".into(), Set::kept("type ipv4_addr; size 65535; flags dynamic,timeout"));
    table.chains.insert("prerouting".into(), Chain::base("nat", "prerouting", -100));
    table.chain("prerouting").rule("ip daddr vmap @vips");
    table.chain("web").rule("update @clients { ip saddr timeout 60s }").rule("counter");
    table
}

fn check(old: &Table, new: &Table, expected: &str) {
    let expected: String =
        expected.lines().map(|line| line.strip_prefix("        ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    assert_eq!(script(old, new).trim_end(), expected.trim());
}

#[test]
fn nothing_is_written_for_no_difference() {
    check(&table(), &table(), "");
    let mut seen = table();
    seen.sets.get_mut("clients").unwrap().elements.insert("192.0.2.1".into(), String::new());
    check(&seen, &table(), "");
    assert_eq!(delete("inet t"), "add table inet t\ndelete table inet t\n");
}

#[test]
fn everything_is_written_for_an_empty_table() {
    check(
        &Table::new("inet t"),
        &table(),
        "
        add table inet t
        add chain inet t prerouting { type nat hook prerouting priority -100; policy accept; }
        add chain inet t web
        add set inet t clients { type ipv4_addr; size 65535; flags dynamic,timeout; comment \"37235ddd5dff2500\"; }
        add map inet t vips { type ipv4_addr : verdict; comment \"42305763bc18db49\"; }
        add element inet t vips {
        \t10.0.0.1 : goto web,
        \t10.0.0.2 : drop
        }
        add rule inet t prerouting ip daddr vmap @vips comment \"245536f487e3742d\"
        add rule inet t web update @clients { ip saddr timeout 60s } comment \"9818364b154bc7bb\"
        add rule inet t web counter comment \"77976c7416517c63\"",
    );
}

#[test]
fn an_element_costs_an_element() {
    let mut new = table();
    let vips = &mut new.sets.get_mut("vips").unwrap().elements;
    vips.insert("10.0.0.3".into(), "drop".into());
    check(&table(), &new, "add table inet t\nadd element inet t vips { 10.0.0.3 : drop }");
    vips_of(&mut new).insert("10.0.0.2".into(), "goto web".into());
    vips_of(&mut new).remove("10.0.0.3");
    check(
        &table(),
        &new,
        "add table inet t\ndelete element inet t vips { 10.0.0.2 : drop }\nadd element inet t vips { 10.0.0.2 : goto web }",
    );
}

fn vips_of(table: &mut Table) -> &mut std::collections::BTreeMap<String, String> {
    &mut table.sets.get_mut("vips").unwrap().elements
}

#[test]
fn a_chain_goes_after_what_refers_to_it() {
    let mut new = table();
    new.chains.remove("web");
    new.sets.remove("clients");
    vips_of(&mut new).remove("10.0.0.1");
    check(
        &table(),
        &new,
        "
        add table inet t
        flush chain inet t web
        delete element inet t vips { 10.0.0.1 : goto web }
        delete set inet t clients
        delete chain inet t web",
    );
}

#[test]
fn rules_are_written_anew_where_they_differ() {
    let mut new = table();
    new.chain("web").rules.pop();
    check(
        &table(),
        &new,
        "
        add table inet t
        flush chain inet t web
        add rule inet t web update @clients { ip saddr timeout 60s } comment \"9818364b154bc7bb\"",
    );
}

#[test]
fn a_set_of_another_type_takes_all_rules_along() {
    let mut new = table();
    new.sets.insert("vips".into(), Set::map("type ipv4_addr : verdict; flags interval"));
    let text = script(&table(), &new);
    let verbs: Vec<&str> =
        text.lines().map(|line| line.rsplit_once(" inet t").map_or(line, |(verb, _)| verb)).collect();
    let expected =
        ["add table", "flush chain", "flush chain", "delete map", "add map", "add rule", "add rule", "add rule"];
    assert_eq!(verbs, expected, "{text}");
}
