//! `ovenbird-schema-generate`: `record` asks a server for a schema, `generate` writes the source (`make gen`).
//!
//! To support another version, let its server run the recorder (the server ends with it), name the version in `SOURCES`, and
//! `make gen`; the generator then asks for texts of what is new:
//!
//! ```sh
//! ovsdb-tool create nb.db ovn-nb.ovsschema
//! ovsdb-server --remote=punix:$PWD/nb.sock --unixctl=$PWD/nb.ctl \
//!     --run="ovenbird-schema-generate record --from unix:$PWD/nb.sock --db ovn-nb --version 26.03" nb.db
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use ovenbird_schema_generate::{SOURCES, generate, record};

#[derive(Parser)]
#[command(about = "Generates the crate ovenbird-schema.")]
struct Arguments {
    /// Folder of the crate ovenbird-schema.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    schema: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes schema/src/generated from schema/input and schema/docs.
    Generate,
    /// Records the schema of a running server into schema/input.
    Record {
        /// Where the server listens, as unix:PATH.
        #[arg(long)]
        from: String,
        /// The database: ovn-nb, ovn-sb or vswitch.
        #[arg(long)]
        db: String,
        /// Its version, e.g. 25.03.
        #[arg(long)]
        version: String,
    },
}

fn main() -> Result<()> {
    let Arguments { schema, command } = Arguments::parse();
    match command {
        Command::Generate => generate(&schema, &schema.join("src/generated")),
        Command::Record { from, db, version } => record_input(&schema, &from, &db, &version),
    }
}

fn record_input(schema: &Path, from: &str, db: &str, version: &str) -> Result<()> {
    let Some(source) = SOURCES.iter().find(|s| s.stem == db) else {
        bail!("--db {db} is not ovn-nb, ovn-sb or vswitch")
    };
    let socket = from.strip_prefix("unix:").context("--from must be unix:PATH")?;
    let text = record::record(Path::new(socket), source.database)?;
    let path = source.input(schema, version);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
