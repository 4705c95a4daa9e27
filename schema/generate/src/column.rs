//! One column as Rust source: description, enum, writer and getter.
//!
//! Inputs: a column of the union. Outputs: source text. Must not: know the table around it.

use std::fmt::Write;

use anyhow::Result;

use crate::Source;
use crate::merge::UnionColumn;
use crate::names::{camel, constant, snake};
use crate::prose;
use crate::types::{BaseType, Kind, Type};

/// A column and its name.
pub struct Column<'a> {
    /// Name on the wire.
    pub name: &'a str,
    column: &'a UnionColumn,
    ty: &'a Type,
}

impl<'a> Column<'a> {
    /// A column by name.
    pub fn new(name: &'a str, column: &'a UnionColumn) -> Column<'a> {
        Column { name, column, ty: &column.ty }
    }

    /// True when its writer takes free text.
    pub fn takes_text(&self) -> bool {
        let text = |base: &BaseType| base.kind == Kind::String && base.enumeration.is_empty();
        text(&self.ty.key) || self.ty.value.as_ref().is_some_and(text)
    }

    /// True when its writer takes UUIDs.
    pub fn takes_uuid(&self) -> bool {
        self.ty.key.kind == Kind::Uuid || self.ty.value.as_ref().is_some_and(|v| v.kind == Kind::Uuid)
    }

    /// True for a map from free text to free text.
    pub fn is_strings(&self) -> bool {
        let free = |base: &BaseType| base.kind == Kind::String && base.enumeration.is_empty();
        free(&self.ty.key) && self.ty.value.as_ref().is_some_and(free)
    }

    fn is_scalar(&self) -> bool {
        self.ty.max == 1 && self.ty.value.is_none()
    }

    /// Call of `describe` that makes its description.
    pub fn description(&self, source: &Source) -> String {
        let Type { key, value, min, max } = self.ty;
        let max = if *max == u32::MAX { "d::UNLIMITED".to_owned() } else { max.to_string() };
        let key = base_source(key);
        let ty = match (value, min, self.is_scalar()) {
            (Some(value), ..) => format!("d::map({key}, {})", base_source(value)),
            (None, 1, true) => format!("d::one({key})"),
            (None, _, true) => format!("d::optional({key})"),
            (None, min, false) => format!("d::set({key}, {min}, {max})"),
        };
        let call = if self.column.mutable { "d::column" } else { "d::fixed" };
        format!("{call}({:?}, {ty}, {})", self.name, prose::version_list(source, &self.column.versions))
    }

    /// Type, mutability and versions in words.
    pub fn facts(&self, source: &Source) -> String {
        let key = base_words(&self.ty.key);
        let ty = match &self.ty.value {
            Some(value) => format!("map from {key} to {}", base_words(value)),
            None if self.is_scalar() && self.ty.min == 1 => key,
            None if self.is_scalar() => format!("optional {key}"),
            None if self.ty.max == u32::MAX => format!("set of {key}"),
            None => format!("set of {key}, at most {}", self.ty.max),
        };
        let fixed = if self.column.mutable { "" } else { ", fixed at insertion" };
        format!("Type: {ty}{fixed}. {}", prose::versions(source, &self.column.versions))
    }

    /// Enum of the permitted values, if they are enumerated.
    pub fn enumeration(&self, source: &Source, out: &mut String) -> Result<()> {
        let values = &self.ty.key.enumeration;
        if values.is_empty() {
            return Ok(());
        }
        let name = camel(self.name);
        writeln!(out, "/// Values of [`{}`].", constant(self.name))?;
        writeln!(out, "#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum {name} {{")?;
        for (value, versions) in values {
            // A value is as old as its column unless a newer version added it.
            let own = if *versions == self.column.versions { "".into() } else { prose::versions(source, versions) };
            writeln!(out, "/// {}\n{},", format!("`{value}`. {own}").trim(), camel(value))?;
        }
        writeln!(out, "}}\n\nimpl {name} {{\n/// The value on the wire.")?;
        writeln!(out, "pub const fn as_str(self) -> &'static str {{\nmatch self {{")?;
        for (value, _) in values {
            writeln!(out, "{name}::{} => {value:?},", camel(value))?;
        }
        writeln!(out, "}}\n}}\n}}\n\nimpl From<{name}> for ovsdb::Atom {{")?;
        writeln!(out, "fn from(value: {name}) -> Self {{\nvalue.as_str().into()\n}}\n}}\n")?;
        Ok(())
    }

    /// Function that makes a value to write.
    pub fn writer(&self, out: &mut String) -> Result<()> {
        let id = constant(self.name);
        let key = self.argument(&self.ty.key);
        let text = key == "impl Into<Str>";
        let (argument, body) = match &self.ty.value {
            Some(_) if self.is_strings() => (
                "pairs: impl IntoIterator<Item = (impl Into<Str>, impl Into<Str>)>".to_owned(),
                format!("write::strings({id}, pairs)"),
            ),
            Some(value) => {
                let argument = format!("pairs: impl IntoIterator<Item = ({key}, {})>", self.argument(value));
                let pairs = if text { "pairs.into_iter().map(|(k, v)| (write::text(k), v))" } else { "pairs" };
                (argument, format!("write::map({id}, {pairs})"))
            }
            None if self.is_scalar() && self.ty.min == 1 => {
                let value = if text { "write::text(value)" } else { "value" };
                (format!("value: {key}"), format!("write::scalar({id}, {value})"))
            }
            None if self.is_scalar() => {
                let value = if text { "value.map(write::text)" } else { "value" };
                (format!("value: Option<{key}>"), format!("write::optional({id}, {value})"))
            }
            None => {
                let values = if text { "values.into_iter().map(write::text)" } else { "values" };
                (format!("values: impl IntoIterator<Item = {key}>"), format!("write::set({id}, {values})"))
            }
        };
        writeln!(out, "/// A value of [`{id}`] to write.")?;
        writeln!(out, "pub fn {}({argument}) -> (ColumnId, Datum) {{\n{body}\n}}\n", snake(self.name))?;
        Ok(())
    }

    /// Getter of `Ref`.
    pub fn getter(&self, out: &mut String) -> Result<()> {
        let id = constant(self.name);
        let key = rust_type(&self.ty.key);
        let (result, call) = match &self.ty.value {
            Some(_) if self.is_strings() => ("Strings<'a>".to_owned(), "strings"),
            Some(value) => (format!("impl Iterator<Item = ({key}, {})>", rust_type(value)), "map"),
            None if self.is_scalar() && self.ty.min == 1 => (key.to_owned(), "scalar"),
            None if self.is_scalar() => (format!("Option<{key}>"), "optional"),
            None => (format!("impl Iterator<Item = {key}>"), "set"),
        };
        writeln!(out, "/// Value of [`{id}`].")?;
        writeln!(out, "pub fn {}(self) -> {result} {{\nread::{call}(self.0, {id})\n}}\n", snake(self.name))?;
        Ok(())
    }

    fn argument(&self, base: &BaseType) -> String {
        match base.kind {
            Kind::String if !base.enumeration.is_empty() => camel(self.name),
            Kind::String => "impl Into<Str>".to_owned(),
            _ => rust_type(base).to_owned(),
        }
    }
}

fn rust_type(base: &BaseType) -> &'static str {
    match base.kind {
        Kind::Integer => "i64",
        Kind::Real => "f64",
        Kind::Boolean => "bool",
        Kind::String => "&'a str",
        Kind::Uuid => "Uuid",
    }
}

fn base_source(base: &BaseType) -> String {
    match (base.kind, &base.reference) {
        (_, Some((table, true))) => format!("d::strong({table:?})"),
        (_, Some((table, false))) => format!("d::weak({table:?})"),
        (Kind::String, _) if !base.enumeration.is_empty() => {
            let values: Vec<String> = base.enumeration.iter().map(|(v, _)| format!("{v:?}")).collect();
            format!("d::one_of(&[{}])", values.join(", "))
        }
        (kind, _) => format!("d::{}", format!("{kind:?}").to_uppercase()),
    }
}

fn base_words(base: &BaseType) -> String {
    let kind = format!("{:?}", base.kind).to_lowercase();
    let range = match base.range {
        (Some(min), Some(max)) => format!(" ({min} to {max})"),
        (Some(min), None) => format!(" (at least {min})"),
        (None, Some(max)) => format!(" (at most {max})"),
        (None, None) => String::new(),
    };
    match &base.reference {
        Some((table, true)) => format!("reference to {table}"),
        Some((table, false)) => format!("weak reference to {table}"),
        None if !base.enumeration.is_empty() => "enumerated string".to_owned(),
        None => kind + &range,
    }
}
