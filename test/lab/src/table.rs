//! Aligned tables for people, with colours only on a terminal.
//!
//! In: cells. Out: text. It must not be used where another program reads: that gets JSON.

use std::fmt;
use std::io::{self, IsTerminal};

/// What a cell says at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Neither.
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

/// Rows under a head.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<(String, Colour)>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new(heads: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![heads.into_iter().map(|head| (head.into(), Colour::Plain)).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Colour)>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colours = io::stdout().is_terminal();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count()).max()
        };
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            for (index, ((text, colour), width)) in row.iter().zip(&widths).enumerate() {
                let last = index + 1 == row.len();
                let padding = if last { 0 } else { width + 2 - text.chars().count() };
                match (colours, colour) {
                    (true, Colour::Good) => write!(f, "\x1b[32m{text}\x1b[0m")?,
                    (true, Colour::Bad) => write!(f, "\x1b[31m{text}\x1b[0m")?,
                    _ => f.write_str(text)?,
                }
                write!(f, "{:padding$}", "")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
