//! Rows as a shell script of ovn-nbctl commands that makes them, with the same UUIDs, in an empty Northbound.
//!
//! Roots come first; every other row is created together with the reference that keeps it alive, so that the script can be
//! cut into transactions of a moderate size. Needs an ovn-nbctl that takes `--id=UUID` (OVN 22.03 and later).

use std::collections::{BTreeMap, VecDeque};

use ovenbird_reconcile::WholeRow;
use ovenbird_schema::northbound;
use ovsdb::{Atom, ColumnId, Datum, Uuid};

/// Rows in one transaction.
const BATCH: usize = 50;

/// The script.
pub fn script(rows: &[WholeRow]) -> String {
    let by_uuid: BTreeMap<Uuid, &WholeRow> = rows.iter().map(|row| (row.uuid, row)).collect();
    let mut queue: VecDeque<(&WholeRow, Option<String>)> =
        rows.iter().filter(|row| row.table.is_root).map(|row| (row, None)).collect();
    let mut commands = Vec::new();
    let mut created = std::collections::BTreeSet::new();
    while let Some((row, reference)) = queue.pop_front() {
        let mut command = String::new();
        if created.insert(row.uuid) {
            command = create(row, &by_uuid);
            queue.extend(children(row, &by_uuid));
        }
        let parts = [command, reference.unwrap_or_default()];
        commands.push(parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" \\\n  -- "));
    }
    let mut script = "#!/bin/sh\nset -e\n".to_owned();
    for batch in commands.chunks(BATCH) {
        script.push_str("ovn-nbctl ");
        script.push_str(&batch.join(" \\\n  -- "));
        script.push_str(" >/dev/null\n");
    }
    script
}

/// The rows that live by a reference of this one, each with the command that adds the reference.
fn children<'a>(row: &'a WholeRow, by_uuid: &BTreeMap<Uuid, &'a WholeRow>) -> Vec<(&'a WholeRow, Option<String>)> {
    let mut children = Vec::new();
    for (column, value) in &row.columns {
        let required = is_required(row, *column);
        for child in value.atoms().iter().filter(|_| !required).filter_map(|atom| dependent(atom, by_uuid)) {
            let column = row.table.column(*column).name;
            children.push((child, Some(format!("add {} {} {column} {}", row.table.name, row.uuid, child.uuid))));
        }
    }
    children
}

/// The row that an atom refers to, when it is one that cannot live alone.
fn dependent<'a>(atom: &Atom, by_uuid: &BTreeMap<Uuid, &'a WholeRow>) -> Option<&'a WholeRow> {
    by_uuid.get(&atom.as_uuid()?).copied().filter(|row| !row.table.is_root)
}

/// A row cannot be without such a reference, not even for a moment.
fn is_required(row: &WholeRow, column: ColumnId) -> bool {
    let ty = row.table.column(column).ty;
    ty.min > 0 && ty.key.ref_table.is_some()
}

/// The command that creates a row, without its references to rows that come later, but with those that it cannot be without.
fn create(row: &WholeRow, by_uuid: &BTreeMap<Uuid, &WholeRow>) -> String {
    let required = row.columns.iter().filter(|(column, _)| is_required(row, *column));
    let first = required.flat_map(|(_, value)| value.atoms()).filter_map(|atom| dependent(atom, by_uuid));
    let mut command: String = first.map(|child| create(child, by_uuid) + " \\\n  -- ").collect();
    command.push_str(&create_alone(row, by_uuid));
    command
}

fn create_alone(row: &WholeRow, by_uuid: &BTreeMap<Uuid, &WholeRow>) -> String {
    let mut command = format!("--id={} create {}", row.uuid, row.table.name);
    for (column, value) in &row.columns {
        // Without what only newer versions have, such as tiers of ACLs, the rows mean the same.
        let everywhere = row.table.column(*column).versions.len() == northbound::ALL.len();
        let later = !is_required(row, *column) && value.atoms().iter().any(|atom| dependent(atom, by_uuid).is_some());
        if !value.is_empty() && everywhere && !later {
            command.push(' ');
            command.push_str(&quoted(&format!("{}={}", row.table.column(*column).name, datum(value))));
        }
    }
    command
}

/// A value in the syntax of ovs-vsctl(8).
fn datum(value: &Datum) -> String {
    let list = |items: Vec<String>| items.join(",");
    match value {
        Datum::Atom(value) => atom(value),
        Datum::Set(atoms) => format!("[{}]", list(atoms.iter().map(atom).collect())),
        Datum::Map(pairs) => {
            format!("{{{}}}", list(pairs.iter().map(|(k, v)| format!("{}={}", atom(k), atom(v))).collect()))
        }
    }
}

fn atom(value: &Atom) -> String {
    match value {
        Atom::String(text) => {
            let mut json = Vec::new();
            ovsdb::value::write_string(text, &mut json);
            String::from_utf8_lossy(&json).into_owned()
        }
        Atom::Integer(v) => v.to_string(),
        Atom::Real(v) => format!("{v:?}"),
        Atom::Boolean(v) => v.to_string(),
        Atom::Uuid(v) => v.to_string(),
    }
}

/// A word for sh(1).
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
