//! What is described is what a real ovsdb-server reports of the installed schemas, through the generator's own `record`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use ovenbird_schema::{northbound, southbound, vswitch};
use ovenbird_schema_generate::types::{Kind, Type};
use ovenbird_schema_generate::{SOURCES, Source, input};
use ovsdb::{AtomKind, ColumnDesc, DatabaseDesc};

/// Serves `ovsschema` and records it: the server lives as long as the command it runs.
fn record(source: &Source, ovsschema: &str) -> input::Schema {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(path("input")).unwrap();
    run(Command::new("ovsdb-tool").args(["create", &path("db"), ovsschema]));
    let generator = env!("CARGO_BIN_EXE_ovenbird-schema-generate");
    let socket = path("socket");
    let command = format!(
        "{generator} --schema {} record --from unix:{socket} --db {} --version installed",
        dir.path().display(),
        source.stem
    );
    run(Command::new("ovsdb-server")
        .args(["--no-chdir", "--log-file=/dev/null", "-vconsole:emer"])
        .arg(format!("--unixctl={}", path("control")))
        .arg(format!("--remote=punix:{socket}"))
        .arg(format!("--run={command}"))
        .arg(path("db")));
    input::load(&source.input(dir.path(), "installed")).unwrap()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn check(stem: &str, database: &DatabaseDesc, ovsschema: &str) {
    if !Path::new(ovsschema).exists() {
        println!("SKIP: {ovsschema} is not installed");
        assert!(std::env::var_os("CI").is_none(), "nothing may be skipped in CI");
        return;
    }
    let source = SOURCES.iter().find(|s| s.stem == stem).unwrap();
    let schema = record(source, ovsschema);
    let recorded = source.load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    let position = recorded.iter().position(|r| r.version == schema.version);
    let version = source.versions[position.expect("the installed version's schema has no recording: record it")];

    assert_eq!(database.name, schema.name);
    let mut described = BTreeSet::new();
    for table in database.tables {
        let columns = table.columns.iter().filter(|c| c.versions.contains(&version));
        described.extend(columns.map(|c| (table.name.to_owned(), c.name.to_owned())));
    }
    let mut reported = BTreeSet::new();
    for (name, table) in &schema.tables {
        for (column, reported_column) in &table.columns {
            reported.insert((name.clone(), column.clone()));
            let table = database.table(name).unwrap();
            let column = table.column(table.column_id(column).unwrap());
            assert_eq!(column.mutable, reported_column.mutable, "{name}.{}", column.name);
            assert_fits(column, &Type::new(&reported_column.ty, version).unwrap());
        }
    }
    assert_eq!(described, reported, "described columns of version {version}, and reported ones");
}

/// The description is as wide as the reported type, or wider.
fn assert_fits(column: &ColumnDesc, reported: &Type) {
    let name = column.name;
    assert!(column.ty.min <= reported.min && column.ty.max >= reported.max, "{name}: {:?} {reported:?}", column.ty);
    assert_eq!(column.ty.value.is_some(), reported.value.is_some(), "{name}");
    for (described, reported) in
        [(Some(&column.ty.key), Some(&reported.key)), (column.ty.value.as_ref(), reported.value.as_ref())]
    {
        let (Some(described), Some(reported)) = (described, reported) else { continue };
        let kind = match reported.kind {
            Kind::Integer => AtomKind::Integer,
            Kind::Real => AtomKind::Real,
            Kind::Boolean => AtomKind::Boolean,
            Kind::String => AtomKind::String,
            Kind::Uuid => AtomKind::Uuid,
        };
        assert_eq!(described.kind, kind, "{name}");
        let reference = reported.reference.as_ref().map(|(table, strong)| (table.as_str(), *strong));
        assert_eq!(described.ref_table.map(|t| (t, described.strong)), reference, "{name}");
        let missing = reported.enumeration.iter().find(|(v, _)| !described.enumeration.contains(&v.as_str()));
        assert_eq!(missing, None, "{name}");
    }
}

#[test]
fn northbound_is_as_reported() {
    check("ovn-nb", &northbound::DATABASE, "/usr/share/ovn/ovn-nb.ovsschema");
}

#[test]
fn southbound_is_as_reported() {
    check("ovn-sb", &southbound::DATABASE, "/usr/share/ovn/ovn-sb.ovsschema");
}

#[test]
fn vswitch_is_as_reported() {
    check("vswitch", &vswitch::DATABASE, "/usr/share/openvswitch/vswitch.ovsschema");
}
