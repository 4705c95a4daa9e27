//! Builds rows, contributions and complaints: the vocabulary that the features share.
//!
//! Must not: know a table's meaning.

use ovenbird_reconcile::ownership::{self, DEFAULT_CONTROLLER};
use ovenbird_reconcile::{Contribution, DesiredRow, Diagnostic, Output, Owner, RowId, Severity, Want, Zone, row_uuid};
use ovenbird_schema::northbound::logical_switch_port;
use ovsdb::{Atom, ColumnId, Datum, Str, TableDesc, Uuid};

use crate::view::View;

/// The one Northbound that there is.
const ZONE: Zone = Zone(0);

/// Identity of the row that an owner has in a table under a role.
pub(crate) fn id(table: &TableDesc, owner: &Owner, role: &str) -> Uuid {
    row_uuid(table.name, owner, role)
}

/// A row under construction.
pub(crate) struct RowBuilder<'a> {
    view: &'a View<'a>,
    row: DesiredRow,
}

impl<'a> RowBuilder<'a> {
    /// The row that `owner` has in `table` under `role`, with its ownership in the column `external_ids`.
    pub fn new(
        view: &'a View<'a>,
        table: &'static TableDesc,
        owner: &Owner,
        role: &str,
        external_ids: ColumnId,
        extra: &[(&str, Atom)],
    ) -> RowBuilder<'a> {
        let keys = if role.is_empty() { &[][..] } else { &[role][..] };
        RowBuilder::keyed(view, table, owner, role, keys, external_ids, extra)
    }

    /// As [`RowBuilder::new`], with the keys that ovn-kubernetes tells such rows of one object apart by.
    pub fn keyed(
        view: &'a View<'a>,
        table: &'static TableDesc,
        owner: &Owner,
        role: &str,
        keys: &[&str],
        external_ids: ColumnId,
        extra: &[(&str, Atom)],
    ) -> RowBuilder<'a> {
        let name = if owner.key.is_empty() { "cluster".to_owned() } else { owner.key.replace('/', ":") };
        let mut pairs = ownership::external_ids(DEFAULT_CONTROLLER, owner.kind.name, &name, keys);
        for value in pairs.iter_mut().filter_map(|(_, value)| value.as_mut()) {
            // What all rows repeat is held once.
            if let Some(text) = value.as_str().filter(|t| *t == DEFAULT_CONTROLLER || *t == owner.kind.name) {
                *value = view.text(text).into();
            }
        }
        pairs.extend(extra.iter().map(|(key, value)| (Atom::from(*key), Some(value.clone()))));
        RowBuilder::unnamed(view, table, owner, role).keys(external_ids, pairs)
    }

    /// As [`RowBuilder::new`], for a table that has no column `external_ids`.
    pub fn unnamed(view: &'a View<'a>, table: &'static TableDesc, owner: &Owner, role: &str) -> RowBuilder<'a> {
        let id = RowId::Ours(id(table, owner, role));
        RowBuilder { view, row: DesiredRow { zone: ZONE, table, id, columns: Vec::with_capacity(5) } }
    }

    /// Owns the column.
    pub fn exactly(mut self, (column, value): (ColumnId, Datum)) -> Self {
        self.row.columns.push((column, Want::Exactly(value)));
        self
    }

    /// Owns these keys of a map; `None` must be absent.
    pub fn keys<K: Into<Atom>>(mut self, column: ColumnId, pairs: impl IntoIterator<Item = (K, Option<Atom>)>) -> Self {
        let shared = |key: Atom| key.as_str().map_or(key.clone(), |text| self.view.text(text).into());
        let mut pairs: Vec<_> = pairs.into_iter().map(|(key, value)| (shared(key.into()), value)).collect();
        pairs.sort_unstable();
        self.row.columns.push((column, Want::Keys(pairs.into())));
        self
    }

    /// Of a row of Logical_Switch_Port: makes it a child of another, told apart by a tag.
    pub fn child_of(self, parent: &Str, tag: u16) -> Self {
        let row = self.exactly(logical_switch_port::parent_name(Some(parent.clone())));
        row.exactly(logical_switch_port::tag_request(Some(i64::from(tag))))
    }

    /// Leaves the column to contributions.
    pub fn members(mut self, column: ColumnId) -> Self {
        self.row.columns.push((column, Want::Members));
        self
    }

    /// The row.
    pub fn build(mut self) -> DesiredRow {
        self.row.columns.sort_unstable_by_key(|(column, _)| *column);
        self.row.columns.shrink_to_fit();
        self.row
    }
}

/// Adds the row `member` to a set of references of the row `container`.
pub(crate) fn contribution(table: &'static TableDesc, container: Uuid, column: ColumnId, member: Uuid) -> Contribution {
    Contribution { zone: ZONE, table, row: RowId::Ours(container), column, member: member.into() }
}

/// Adds a text to a set of the row `container`.
pub(crate) fn text_member(table: &'static TableDesc, container: Uuid, column: ColumnId, member: Str) -> Contribution {
    Contribution { zone: ZONE, table, row: RowId::Ours(container), column, member: Atom::String(member) }
}

/// A complaint about an annotation. The text of `problem` says what to do.
pub(crate) fn complaint(
    severity: Severity,
    reason: &'static str,
    annotation: &str,
    problem: &impl ToString,
) -> Diagnostic {
    let field = format!("metadata.annotations[{annotation}]");
    Diagnostic { severity, reason, field, message: problem.to_string() }
}

/// Nothing but one complaint: the object has no effect.
pub(crate) fn refused(reason: &'static str, annotation: &str, problem: &impl ToString) -> Output {
    let diagnostics = vec![complaint(Severity::Error, reason, annotation, problem)];
    Output { diagnostics, ..Output::default() }
}
