//! Operations of a transaction (RFC 7047 section 5.2), written straight to JSON.
//!
//! Inputs: Rust values in canonical form (see `value`). Outputs: the bytes of `params` of a `transact` request.
//! Must not: know the server's schema (the caller leaves out what `Replica::has_column` denies), or send anything.

use std::io::Write;

use crate::value::{Atom, Datum, Str, Uuid, write_string};

/// Columns by name, as a `<row>` of RFC 7047 section 5.1. A map column needs `Datum::Map` even when it is empty.
pub type NamedColumns = Vec<(&'static str, Datum)>;

/// One operation. Tables and columns go by their name on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Adds a row (section 5.2.1).
    Insert {
        /// Table.
        table: &'static str,
        /// UUID of the new row, an extension of ovsdb-server 2.13; `None` lets the server choose.
        uuid: Option<Uuid>,
        /// Columns that differ from their default.
        row: NamedColumns,
    },
    /// Reads rows (section 5.2.2).
    Select {
        /// Table.
        table: &'static str,
        /// Rows that match all of these; empty matches every row.
        conditions: Vec<Condition>,
        /// Columns to return; empty for all, with `_uuid` and `_version`.
        columns: Vec<&'static str>,
    },
    /// Replaces whole columns (section 5.2.3).
    Update {
        /// Table.
        table: &'static str,
        /// Rows that match all of these.
        conditions: Vec<Condition>,
        /// New values.
        row: NamedColumns,
    },
    /// Changes columns in place (section 5.2.4).
    Mutate {
        /// Table.
        table: &'static str,
        /// Rows that match all of these.
        conditions: Vec<Condition>,
        /// Changes, in order.
        mutations: Vec<Mutation>,
    },
    /// Removes rows (section 5.2.5).
    Delete {
        /// Table.
        table: &'static str,
        /// Rows that match all of these.
        conditions: Vec<Condition>,
    },
    /// Goes on only when (or until) rows compare as told, else fails the transaction with "timed out" (section 5.2.6).
    Wait {
        /// Table.
        table: &'static str,
        /// Rows that match all of these are compared.
        conditions: Vec<Condition>,
        /// Columns compared; empty for all.
        columns: Vec<&'static str>,
        /// The comparison.
        until: Until,
        /// The set of rows compared with.
        rows: Vec<NamedColumns>,
        /// Milliseconds to wait; 0 tests once, `None` waits for ever.
        timeout_ms: Option<u64>,
    },
    /// Asks for durability before the reply when true (section 5.2.7).
    Commit {
        /// Written to disk before the reply.
        durable: bool,
    },
    /// Aborts the transaction (section 5.2.8).
    Abort,
    /// A note for the server's log (section 5.2.9).
    Comment(Str),
    /// Fails the transaction unless this client holds the lock (section 5.2.10).
    Assert {
        /// Name of the lock.
        lock: Str,
    },
}

/// A test of rows (RFC 7047 section 5.1, `<condition>`).
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Compares a column.
    Column {
        /// Name, `_uuid` included.
        column: &'static str,
        /// Comparison.
        function: Function,
        /// What the column is compared with.
        value: Datum,
    },
    /// Matches every row or none (an extension, for monitors).
    Literal(bool),
}

/// A change of a column in place (RFC 7047 section 5.1, `<mutation>`).
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    /// Column by name.
    pub column: &'static str,
    /// What to do.
    pub mutator: Mutator,
    /// With what; `Mutator::Delete` on a map takes a set of keys or a map of pairs.
    pub value: Datum,
}

/// Comparison functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `includes`
    Includes,
    /// `excludes`
    Excludes,
}

/// Mutators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutator {
    /// `+=`
    Add,
    /// `-=`
    Subtract,
    /// `*=`
    Multiply,
    /// `/=`
    Divide,
    /// `%=`
    Modulo,
    /// `insert`: adds members or pairs; the pair of a key that is there stays as it was.
    Insert,
    /// `delete`: removes members, keys or pairs.
    Delete,
}

/// What a [`Op::Wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The rows are these.
    Equal,
    /// The rows are not these.
    NotEqual,
}

impl Condition {
    /// The row with this UUID.
    pub fn uuid(uuid: Uuid) -> Condition {
        Condition::equal("_uuid", uuid)
    }

    /// `column == value`.
    pub fn equal(column: &'static str, value: impl Into<Datum>) -> Condition {
        Condition::Column { column, function: Function::Equal, value: value.into() }
    }

    /// Appends the condition as JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Condition::Literal(v) => drop(write!(out, "{v}")),
            Condition::Column { column, function, value } => triple(column, function.text(), value, out),
        }
    }

    fn approximate_size(&self) -> usize {
        match self {
            Condition::Literal(_) => 5,
            Condition::Column { column, value, .. } => column.len() + 12 + datum_size(value),
        }
    }
}

impl Mutation {
    /// A change of `column`.
    pub fn new(column: &'static str, mutator: Mutator, value: impl Into<Datum>) -> Mutation {
        Mutation { column, mutator, value: value.into() }
    }

    /// Appends the mutation as JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        triple(self.column, self.mutator.text(), &self.value, out);
    }
}

impl Function {
    const fn text(self) -> &'static str {
        match self {
            Function::Less => "<",
            Function::LessOrEqual => "<=",
            Function::Equal => "==",
            Function::NotEqual => "!=",
            Function::GreaterOrEqual => ">=",
            Function::Greater => ">",
            Function::Includes => "includes",
            Function::Excludes => "excludes",
        }
    }
}

impl Mutator {
    const fn text(self) -> &'static str {
        match self {
            Mutator::Add => "+=",
            Mutator::Subtract => "-=",
            Mutator::Multiply => "*=",
            Mutator::Divide => "/=",
            Mutator::Modulo => "%=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        }
    }
}

impl Op {
    /// Appends the operation as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Op::Insert { table, uuid, row } => {
                open("insert", table, out);
                if let Some(uuid) = uuid {
                    drop(write!(out, ",\"uuid\":\"{uuid}\""));
                }
                out.extend_from_slice(b",\"row\":");
                write_row(row, out);
            }
            Op::Select { table, conditions, columns } => {
                open("select", table, out);
                write_conditions(conditions, out);
                write_columns(columns, out);
            }
            Op::Update { table, conditions, row } => {
                open("update", table, out);
                write_conditions(conditions, out);
                out.extend_from_slice(b",\"row\":");
                write_row(row, out);
            }
            Op::Mutate { table, conditions, mutations } => {
                open("mutate", table, out);
                write_conditions(conditions, out);
                out.extend_from_slice(b",\"mutations\":");
                list(mutations, out, |m, out| m.write_json(out));
            }
            Op::Delete { table, conditions } => {
                open("delete", table, out);
                write_conditions(conditions, out);
            }
            Op::Wait { table, conditions, columns, until, rows, timeout_ms } => {
                open("wait", table, out);
                write_conditions(conditions, out);
                write_columns(columns, out);
                let until = if *until == Until::Equal { "==" } else { "!=" };
                drop(write!(out, ",\"until\":\"{until}\",\"rows\":"));
                list(rows, out, |row, out| write_row(row, out));
                if let Some(ms) = timeout_ms {
                    drop(write!(out, ",\"timeout\":{ms}"));
                }
            }
            Op::Commit { durable } => drop(write!(out, "{{\"op\":\"commit\",\"durable\":{durable}")),
            Op::Abort => out.extend_from_slice(b"{\"op\":\"abort\""),
            Op::Comment(text) => {
                out.extend_from_slice(b"{\"op\":\"comment\",\"comment\":");
                write_string(text, out);
            }
            Op::Assert { lock } => {
                out.extend_from_slice(b"{\"op\":\"assert\",\"lock\":");
                write_string(lock, out);
            }
        }
        out.push(b'}');
    }

    /// About the number of bytes that [`Op::write_json`] appends, without writing them: for cutting batches.
    pub fn approximate_size(&self) -> usize {
        const ENVELOPE: usize = 40;
        let conditions = |c: &[Condition]| c.iter().map(Condition::approximate_size).sum::<usize>();
        let names = |c: &[&str]| c.iter().map(|c| c.len() + 3).sum::<usize>();
        ENVELOPE
            + match self {
                Op::Insert { table, uuid, row } => table.len() + row_size(row) + if uuid.is_some() { 47 } else { 0 },
                Op::Select { table, conditions: c, columns } => table.len() + conditions(c) + names(columns),
                Op::Update { table, conditions: c, row } => table.len() + conditions(c) + row_size(row),
                Op::Mutate { table, conditions: c, mutations } => {
                    let one = |m: &Mutation| m.column.len() + 12 + datum_size(&m.value);
                    table.len() + conditions(c) + mutations.iter().map(one).sum::<usize>()
                }
                Op::Delete { table, conditions: c } => table.len() + conditions(c),
                Op::Wait { table, conditions: c, columns, rows, .. } => {
                    table.len() + conditions(c) + names(columns) + rows.iter().map(|r| row_size(r)).sum::<usize>()
                }
                Op::Commit { .. } | Op::Abort => 0,
                Op::Comment(text) | Op::Assert { lock: text } => text.len(),
            }
    }
}

/// Appends `["database",op,...]`, the parameters of a `transact` request.
pub(crate) fn write_params(database: &str, ops: &[Op], out: &mut Vec<u8>) {
    out.push(b'[');
    write_string(database, out);
    for op in ops {
        out.push(b',');
        op.write_json(out);
    }
    out.push(b']');
}

/// Appends `[a,b,...]`.
pub(crate) fn list<T>(items: &[T], out: &mut Vec<u8>, one: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        one(item, out);
    }
    out.push(b']');
}

fn open(op: &str, table: &str, out: &mut Vec<u8>) {
    drop(write!(out, "{{\"op\":\"{op}\",\"table\":"));
    write_string(table, out);
}

fn triple(column: &str, word: &str, value: &Datum, out: &mut Vec<u8>) {
    out.push(b'[');
    write_string(column, out);
    drop(write!(out, ",\"{word}\","));
    value.write_json(out);
    out.push(b']');
}

fn write_conditions(conditions: &[Condition], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"where\":");
    list(conditions, out, |c, out| c.write_json(out));
}

fn write_columns(columns: &[&str], out: &mut Vec<u8>) {
    if !columns.is_empty() {
        out.extend_from_slice(b",\"columns\":");
        list(columns, out, |c, out| write_string(c, out));
    }
}

fn write_row(row: &[(&str, Datum)], out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, (column, value)) in row.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(column, out);
        out.push(b':');
        value.write_json(out);
    }
    out.push(b'}');
}

fn row_size(row: &[(&str, Datum)]) -> usize {
    row.iter().map(|(column, value)| column.len() + 4 + datum_size(value)).sum()
}

fn datum_size(datum: &Datum) -> usize {
    match datum {
        Datum::Atom(a) => atom_size(a),
        Datum::Set(v) => 10 + v.iter().map(|a| atom_size(a) + 1).sum::<usize>(),
        Datum::Map(v) => 10 + v.iter().map(|(k, a)| atom_size(k) + atom_size(a) + 4).sum::<usize>(),
    }
}

fn atom_size(atom: &Atom) -> usize {
    match atom {
        Atom::String(s) => s.len() + 2,
        Atom::Uuid(_) => 47,
        Atom::Integer(_) | Atom::Real(_) | Atom::Boolean(_) => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(op: &Op) -> String {
        let mut out = Vec::new();
        op.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_operation_has_the_form_of_section_5_2() {
        let nil = Uuid::nil();
        let cases = [
            (
                Op::Insert { table: "T", uuid: Some(nil), row: vec![("a", 1.into())] },
                r#"{"op":"insert","table":"T","uuid":"00000000-0000-0000-0000-000000000000","row":{"a":1}}"#,
            ),
            (
                Op::Select { table: "T", conditions: vec![], columns: vec!["a", "b"] },
                r#"{"op":"select","table":"T","where":[],"columns":["a","b"]}"#,
            ),
            (
                Op::Update {
                    table: "T",
                    conditions: vec![Condition::equal("n", "x\"y")],
                    row: vec![("s", Datum::set([]))],
                },
                r#"{"op":"update","table":"T","where":[["n","==","x\"y"]],"row":{"s":["set",[]]}}"#,
            ),
            (
                Op::Mutate {
                    table: "T",
                    conditions: vec![Condition::Literal(true)],
                    mutations: vec![Mutation::new("s", Mutator::Insert, Datum::set(["m".into()]))],
                },
                r#"{"op":"mutate","table":"T","where":[true],"mutations":[["s","insert",["set",["m"]]]]}"#,
            ),
            (Op::Delete { table: "T", conditions: vec![] }, r#"{"op":"delete","table":"T","where":[]}"#),
            (
                Op::Wait {
                    table: "T",
                    conditions: vec![],
                    columns: vec!["a"],
                    until: Until::NotEqual,
                    rows: vec![vec![("a", 0.into())]],
                    timeout_ms: Some(0),
                },
                r#"{"op":"wait","table":"T","where":[],"columns":["a"],"until":"!=","rows":[{"a":0}],"timeout":0}"#,
            ),
            (Op::Commit { durable: true }, r#"{"op":"commit","durable":true}"#),
            (Op::Abort, r#"{"op":"abort"}"#),
            (Op::Comment("why".into()), r#"{"op":"comment","comment":"why"}"#),
            (Op::Assert { lock: "l".into() }, r#"{"op":"assert","lock":"l"}"#),
        ];
        for (op, expected) in cases {
            assert_eq!(json(&op), expected);
            let size = op.approximate_size();
            assert!(size.abs_diff(expected.len()) < 40, "{op:?}: about {size}, is {}", expected.len());
        }
    }
}
