//! The ovn-nbctl script of `ovenbird render`, run against a real Northbound, makes the very rows of its JSON output.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::render;
use serde_json::{Map, Value, json};

mod common;

const DUAL: [&str; 2] = ["--cluster-subnets", "10.128.0.0/14/23,fd01::/48/64"];

/// Two nodes of both families, one with a gateway, and more pods than one transaction of the script holds.
fn manifests() -> String {
    let mut text = "{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {k8s.ovn.org/node-chassis-id: c1, \
          k8s.ovn.org/l3-gateway-config: '{\"default\":{\"mode\":\"shared\",\"interface-id\":\"br-ex_n1\",\
          \"mac-address\":\"0a:58:00:00:00:01\",\"ip-addresses\":[\"172.18.0.4/16\",\"fc00::4/64\"],\
          \"next-hops\":[\"172.18.0.1\",\"fc00::1\"]}}'}}}\n\
        ---\n{apiVersion: v1, kind: Node, metadata: {name: n2}}\n"
        .to_owned();
    for i in 0..120 {
        let node = 1 + i % 2;
        text.push_str(&format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p{i}, uid: \"u'{i}\"}}, spec: {{nodeName: n{node}}}}}\n"
        ));
    }
    text.push_str(
        "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: in}, spec: {podSelector: {}, \
          ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 80}]}]}}\n",
    );
    text
}

/// The database in the form of the JSON output: defaults and what the server adds left out.
fn dump(dir: &Path, tables: &Value) -> Value {
    let mut dump = Map::new();
    for (table, rows) in tables.as_object().unwrap() {
        let ops = json!(["OVN_Northbound", {"op": "select", "table": table, "where": []}]);
        let socket = format!("unix:{}", dir.join("nb.sock").display());
        let out = Command::new("ovsdb-client").args(["transact", &socket, &ops.to_string()]).output().unwrap();
        let reply: Value = serde_json::from_slice(&out.stdout).unwrap();
        let found = reply[0]["rows"].as_array().unwrap().iter().map(|row| {
            let mut row = row.as_object().unwrap().clone();
            let uuid = row["_uuid"][1].as_str().unwrap().to_owned();
            let empty = [json!(""), json!(["set", []]), json!(["map", []]), json!(false), json!(0)];
            row.retain(|column, value| !column.starts_with('_') && !empty.contains(value));
            (uuid, Value::Object(row))
        });
        dump.insert(table.clone(), Value::Object(found.collect()));
        assert_eq!(dump[table].as_object().unwrap().len(), rows.as_object().unwrap().len(), "rows of {table}");
    }
    Value::Object(dump)
}

#[test]
fn the_script_makes_the_rows() {
    if !common::has_ovn() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifests.yaml");
    std::fs::write(&file, manifests()).unwrap();
    let _server = common::database(dir.path(), "nb");

    let mut shell = Command::new("sh");
    shell.env("OVN_NB_DB", format!("unix:{}", dir.path().join("nb.sock").display())).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(render(&file, "nbctl", &DUAL).as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());

    let mut wanted: Value = serde_json::from_str(&render(&file, "json", &DUAL)).unwrap();
    assert_eq!(wanted["Logical_Switch_Port"].as_object().unwrap().len(), 120 + 2 * 2 + 1 + 3);
    // Of each family: the pods of the node with a gateway, its router, its host.
    assert_eq!(wanted["NAT"].as_object().unwrap().len(), 6);
    for acl in wanted["ACL"].as_object_mut().unwrap().values_mut() {
        acl.as_object_mut().unwrap().retain(|column, value| column != "tier" && *value != json!(false));
    }
    assert_eq!(wanted["ACL"].as_object().unwrap().len(), 2 + 2 + 2 * 2 + 2 + 2, "ARP, hairpin, nodes, default, rule");
    assert_eq!(dump(dir.path(), &wanted), wanted);
}
