//! Generator of the crate `ovenbird-schema`: schemas and doc texts in, Rust source out.
//!
//! ```text
//! schema/input/<db>-<version>.json --[input]--\
//!                                              [merge] -> union of the versions --[render]--> schema/src/generated/
//! schema/docs/<db>.toml -----------[docs]-----/
//! ```
//!
//! The output depends on these files alone. Must not: invent; a table or column without a text is an error.

mod column;
pub mod docs;
pub mod input;
pub mod merge;
mod names;
mod prose;
pub mod record;
mod render;
pub mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// One database of the crate: where its inputs are and what its module is called.
pub struct Source {
    /// Prefix of the input files and name of the docs file, e.g. `ovn-nb`.
    pub stem: &'static str,
    /// Name on the wire.
    pub database: &'static str,
    /// Name of the Rust module.
    pub module: &'static str,
    /// What its versions count, for the doc texts.
    pub product: &'static str,
    /// Versions, oldest first.
    pub versions: &'static [&'static str],
}

/// All databases. To support another version: record its schema and add it here.
pub const SOURCES: &[Source] = &[
    Source {
        stem: "ovn-nb",
        database: "OVN_Northbound",
        module: "northbound",
        product: "OVN",
        versions: &["23.03", "25.03", "26.03"],
    },
    Source {
        stem: "ovn-sb",
        database: "OVN_Southbound",
        module: "southbound",
        product: "OVN",
        versions: &["23.03", "25.03", "26.03"],
    },
    Source {
        stem: "vswitch",
        database: "Open_vSwitch",
        module: "vswitch",
        product: "OVS",
        versions: &["3.1", "3.5", "4.0"],
    },
];

/// Writes the source of every database below `out`, formatted. `schema` is the folder of the crate `ovenbird-schema`.
pub fn generate(schema: &Path, out: &Path) -> Result<()> {
    for source in SOURCES {
        let database = merge::merge(&source.load(schema)?, source.versions)?;
        let docs = docs::Docs::load(&schema.join("docs").join(format!("{}.toml", source.stem)), &database)?;
        let files = render::render(source, &database, &docs)?;
        write(out, source, &files).with_context(|| format!("writing the source of {}", database.name))?;
    }
    format(schema, out)
}

impl Source {
    /// The recorded schemas, oldest first.
    pub fn load(&self, schema: &Path) -> Result<Vec<input::Schema>> {
        self.versions.iter().map(|v| input::load(&self.input(schema, v))).collect()
    }

    /// Path of the recorded schema of a version.
    pub fn input(&self, schema: &Path, version: &str) -> PathBuf {
        schema.join("input").join(format!("{}-{version}.json", self.stem))
    }
}

/// Replaces the files of one database, so that a table that went leaves no file behind.
fn write(out: &Path, source: &Source, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    let folder = out.join(source.module);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    for (path, text) in files {
        std::fs::write(out.join(path), text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Formats as `cargo fmt` does, so that its check agrees.
fn format(schema: &Path, out: &Path) -> Result<()> {
    let config = schema.join("../rustfmt.toml");
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024", "--config-path"]).arg(config);
    rustfmt.args(SOURCES.iter().map(|s| out.join(format!("{}.rs", s.module))));
    let output = rustfmt.output().context("running rustfmt")?;
    if !output.status.success() {
        bail!("rustfmt refused the generated source: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
