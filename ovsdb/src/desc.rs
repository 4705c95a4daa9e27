//! Static descriptions of databases: what a program was compiled to know of a schema.
//!
//! The generated crate `schema` fills these; `ovsdb` decodes rows by them and probes them against the schema that a
//! server reports (`get_schema`). A description is the union over supported server versions, so a described column may be
//! absent on a given server: ask [`crate::Replica::has_column`] before writing it.
//!
//! Must not: allocate, or hold anything learnt at run time.

/// A database: name and tables in the order of their indexes.
#[derive(Debug)]
pub struct DatabaseDesc {
    /// Name on the wire, e.g. `OVN_Northbound`.
    pub name: &'static str,
    /// Tables; `tables[i].index == i`.
    pub tables: &'static [&'static TableDesc],
}

/// A table.
#[derive(Debug)]
pub struct TableDesc {
    /// Name on the wire, e.g. `Logical_Switch`.
    pub name: &'static str,
    /// Position in [`DatabaseDesc::tables`].
    pub index: u16,
    /// True when rows live without being referenced (RFC 7047 section 3.2, `isRoot`).
    pub is_root: bool,
    /// True when the table holds at most one row (`maxRows: 1`), e.g. `NB_Global`.
    pub is_singleton: bool,
    /// Columns sorted by name, at most 64; a [`ColumnId`] is a position here.
    pub columns: &'static [ColumnDesc],
    /// Unique indexes, as column positions (RFC 7047 section 3.2, `indexes`).
    pub indexes: &'static [&'static [ColumnId]],
    /// Server versions that have the table, e.g. `["23.03", "25.03"]`.
    pub versions: &'static [&'static str],
}

/// A column.
#[derive(Debug)]
pub struct ColumnDesc {
    /// Name on the wire.
    pub name: &'static str,
    /// Type (RFC 7047 section 3.2, `<type>`).
    pub ty: ColumnType,
    /// False when the value is fixed at insertion.
    pub mutable: bool,
    /// Server versions that have the column.
    pub versions: &'static [&'static str],
}

/// Position of a column in [`TableDesc::columns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnId(pub u16);

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColumnType {
    /// Type of the elements, or of the keys of a map.
    pub key: BaseType,
    /// Type of the values of a map; `None` for scalars and sets.
    pub value: Option<BaseType>,
    /// Fewest elements: 0 or 1.
    pub min: u8,
    /// Most elements; `u32::MAX` is unlimited.
    pub max: u32,
}

/// Type of one atom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaseType {
    /// Kind of atom.
    pub kind: AtomKind,
    /// Table that a UUID refers to.
    pub ref_table: Option<&'static str>,
    /// True for a strong reference: the target must exist at commit, and a non-root target lives by it.
    pub strong: bool,
    /// Permitted strings; empty when all are.
    pub enumeration: &'static [&'static str],
}

/// The five atomic types of RFC 7047 section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomKind {
    /// 64-bit signed.
    Integer,
    /// Double.
    Real,
    /// true or false.
    Boolean,
    /// UTF-8 text.
    String,
    /// UUID.
    Uuid,
}

/// The three canonical shapes of [`crate::Datum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Scalar or optional scalar.
    Atom,
    /// More than one element possible.
    Set,
    /// Map.
    Map,
}

impl BaseType {
    /// A type without constraint or reference.
    pub const fn plain(kind: AtomKind) -> BaseType {
        BaseType { kind, ref_table: None, strong: false, enumeration: &[] }
    }
}

impl ColumnType {
    /// The canonical shape of values of this type.
    pub const fn shape(&self) -> Shape {
        if self.value.is_some() {
            Shape::Map
        } else if self.max > 1 {
            Shape::Set
        } else {
            Shape::Atom
        }
    }

    /// True when the column may be empty (min 0).
    pub const fn is_optional(&self) -> bool {
        self.min == 0
    }
}

impl TableDesc {
    /// Position of a column by name (binary search).
    pub fn column_id(&self, name: &str) -> Option<ColumnId> {
        self.columns.binary_search_by(|c| c.name.cmp(name)).ok().map(|i| ColumnId(i as u16))
    }

    /// Description of a column.
    ///
    /// # Panics
    /// When `id` belongs to another table: a defect of the caller, never of data.
    pub fn column(&self, id: ColumnId) -> &'static ColumnDesc {
        &self.columns[id.0 as usize]
    }
}

impl DatabaseDesc {
    /// A table by name.
    pub fn table(&self, name: &str) -> Option<&'static TableDesc> {
        self.tables.iter().copied().find(|t| t.name == name)
    }
}

impl PartialEq for TableDesc {
    /// Descriptions are statics: the same table is the same address.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for TableDesc {}
