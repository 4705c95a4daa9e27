//! A table as people and nft(8) read it, without marks.

use std::fmt::{self, Display, Formatter};

use crate::table::{Base, Chain, Set, Table};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.id)?;
        let sets = self.sets.iter().map(|(name, set)| (if set.map { "map" } else { "set" }, name, set as &dyn Display));
        let chains = self.chains.iter().map(|(name, chain)| ("chain", name, chain as &dyn Display));
        for (i, (kind, name, object)) in sets.chain(chains).enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            write!(f, "{gap}\t{kind} {name} {{\n{object}\t}}\n")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in self.spec.as_str().split("; ") {
            writeln!(f, "\t\t{line}")?;
        }
        if self.elements.is_empty() {
            return Ok(());
        }
        writeln!(f, "\t\telements = {{")?;
        for (key, value) in &self.elements {
            let colon = if value.is_empty() { "" } else { " : " };
            writeln!(f, "\t\t\t{key}{colon}{value},")?;
        }
        writeln!(f, "\t\t}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(Base { kind, hook, priority }) = &self.base {
            writeln!(f, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;")?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{}", rule.as_str()))
    }
}
