//! Short constructors of column descriptions, so that a generated table reads as a table.
//!
//! Inputs: what a schema says. Outputs: the static types of `ovsdb::desc`. Must not: know any table.

use ovsdb::{AtomKind, BaseType, ColumnDesc, ColumnType};

pub(crate) const INTEGER: BaseType = BaseType::plain(AtomKind::Integer);
pub(crate) const BOOLEAN: BaseType = BaseType::plain(AtomKind::Boolean);
pub(crate) const STRING: BaseType = BaseType::plain(AtomKind::String);
pub(crate) const UUID: BaseType = BaseType::plain(AtomKind::Uuid);
/// The schema's `"max": "unlimited"`.
pub(crate) const UNLIMITED: u32 = u32::MAX;

/// A string that is one of `values`.
pub(crate) const fn one_of(values: &'static [&'static str]) -> BaseType {
    BaseType { enumeration: values, ..STRING }
}

/// A strong reference to a row of `table`.
pub(crate) const fn strong(table: &'static str) -> BaseType {
    BaseType { ref_table: Some(table), strong: true, ..UUID }
}

/// A weak reference to a row of `table`: the server drops it when the row goes.
pub(crate) const fn weak(table: &'static str) -> BaseType {
    BaseType { ref_table: Some(table), ..UUID }
}

/// Exactly one element.
pub(crate) const fn one(key: BaseType) -> ColumnType {
    set(key, 1, 1)
}

/// One element or none.
pub(crate) const fn optional(key: BaseType) -> ColumnType {
    set(key, 0, 1)
}

/// `min` to `max` elements.
pub(crate) const fn set(key: BaseType, min: u8, max: u32) -> ColumnType {
    ColumnType { key, value: None, min, max }
}

/// Any number of pairs.
pub(crate) const fn map(key: BaseType, value: BaseType) -> ColumnType {
    ColumnType { key, value: Some(value), min: 0, max: UNLIMITED }
}

/// A column that can be changed after insertion.
pub(crate) const fn column(name: &'static str, ty: ColumnType, versions: &'static [&'static str]) -> ColumnDesc {
    ColumnDesc { name, ty, mutable: true, versions }
}

/// A column that is fixed at insertion.
pub(crate) const fn fixed(name: &'static str, ty: ColumnType, versions: &'static [&'static str]) -> ColumnDesc {
    ColumnDesc { name, ty, mutable: false, versions }
}
