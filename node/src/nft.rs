//! Tables of nftables that are kept as somebody's pure function wants them.
//!
//! ```text
//! wanted --> [ovenbird-nft: script] --> nft -f -        nft -j list table --> [ovenbird-nft: read] --> what stands there
//! ```
//!
//! Must not: touch a table that it is not asked about.

use ovenbird_nft::{ReadError, Table, read, script};

use crate::tool::{NFT, ToolError};

/// A table that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// nft(8).
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// What it lists.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Carries a text out, in one transaction.
///
/// # Errors
/// When nft cannot be run or refuses; then nothing is changed.
pub async fn apply(text: &str) -> Result<(), ToolError> {
    NFT.run(["-f", "-"], text).await.map(drop)
}

/// The table as it stands in the kernel; an empty one when there is none.
///
/// # Errors
/// When nft does not list it.
pub async fn stored(id: &str) -> Result<Table, NftError> {
    let (family, name) = id.split_once(' ').unwrap_or(("inet", id));
    let tables = NFT.run(["list", "tables", family], "").await?;
    if !tables.lines().any(|line| line.trim() == format!("table {id}")) {
        return Ok(Table::new(id.to_owned()));
    }
    Ok(read(id, &NFT.run(["-j", "list", "table", family, name], "").await?)?)
}

/// Makes the kernel's table this one, whatever it was. True when something was written.
///
/// # Errors
/// When nft does not list it, or refuses what is written.
pub async fn replace(table: &Table) -> Result<bool, NftError> {
    write(&stored(&table.id).await?, table).await
}

/// Makes the kernel's table, which is `old`, this one. True when something was written.
///
/// # Errors
/// When nft refuses; then what it has is to be read again.
pub async fn write(old: &Table, new: &Table) -> Result<bool, NftError> {
    let text = script(old, new);
    if !text.is_empty() {
        apply(&text).await?;
    }
    Ok(!text.is_empty())
}
