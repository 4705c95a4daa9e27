//! From one table to another: a text for nft(8), which is one transaction.
//!
//! ```text
//! flush chains that differ -> delete elements, sets, chains -> add chains, sets, elements -> add rules
//! ```
//!
//! In this order nothing is deleted that something still refers to, and nothing refers to what is not there yet. Packets see the table as it
//! was or as it will be. Must not: write what is there already.

use std::fmt::Write as _;

use crate::table::{Base, Chain, Set, Table};

/// The text that makes `old`, which the kernel has, into `new`; empty when nothing is to be done. A table that the kernel does not have is
/// an empty one.
pub fn script(old: &Table, new: &Table) -> String {
    // A set is made anew only when no rule refers to it, and which rules did is not known of a table that was read.
    let all = sets(old, new).any(|(_, old, new)| !new.is_declared_as(old));
    let mut script = Script { old, new, all, text: String::new() };
    script.flush_chains();
    script.delete_elements();
    script.delete_objects();
    script.add_chains();
    script.add_sets();
    script.add_rules();
    match script.text {
        text if text.is_empty() => text,
        text => format!("add table {}\n{text}", new.id),
    }
}

/// The text that removes a table, be it there or not.
pub fn delete(id: &str) -> String {
    format!("add table {id}\ndelete table {id}\n")
}

/// Sets that are in both tables: name, old, new.
fn sets<'a>(old: &'a Table, new: &'a Table) -> impl Iterator<Item = (&'a str, &'a Set, &'a Set)> {
    old.sets.iter().filter_map(|(name, old)| Some((name.as_str(), old, new.sets.get(name)?)))
}

struct Script<'a> {
    old: &'a Table,
    new: &'a Table,
    /// All rules are written anew.
    all: bool,
    text: String,
}

impl Script<'_> {
    /// True for a chain whose rules are written.
    fn is_written(&self, name: &str, chain: &Chain) -> bool {
        self.all || self.old.chains.get(name) != Some(chain)
    }

    fn line(&mut self, verb: &str, kind: &str, name: &str, rest: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{verb} {kind} {} {name}{rest}", self.new.id);
    }

    fn flush_chains(&mut self) {
        let new = self.new;
        for (name, chain) in &self.old.chains {
            let stays = new.chains.get(name).is_some_and(|new| !self.is_written(name, new));
            if !stays && !chain.rules.is_empty() {
                self.line("flush", "chain", name, "");
            }
        }
    }

    fn delete_elements(&mut self) {
        let alike = sets(self.old, self.new).filter(|(_, old, new)| !new.kept && new.is_declared_as(old));
        for (name, old, new) in alike {
            let goes = |(key, value): &(&String, &String)| new.elements.get(*key) != Some(*value);
            // Never `flush`: of a set that is part of a window (`Parts`) there are elements besides.
            self.elements("delete", name, old.elements.iter().filter(goes).collect());
        }
    }

    fn delete_objects(&mut self) {
        let (old, new) = (self.old, self.new);
        let kind = |set: &Set| if set.map { "map" } else { "set" };
        let gone =
            old.sets.iter().filter(|(name, old)| !new.sets.get(*name).is_some_and(|new| new.is_declared_as(old)));
        gone.for_each(|(name, set)| self.line("delete", kind(set), name, ""));
        let gone = old.chains.iter().filter(|(name, old)| new.chains.get(*name).is_none_or(|new| new.base != old.base));
        gone.for_each(|(name, _)| self.line("delete", "chain", name, ""));
    }

    fn add_chains(&mut self) {
        let (old, new) = (self.old, self.new);
        for (name, chain) in new.chains.iter().filter(|(n, new)| old.chains.get(*n).is_none_or(|c| c.base != new.base))
        {
            let base = chain.base.as_ref().map(|Base { kind, hook, priority }| {
                format!(" {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
            });
            self.line("add", "chain", name, &base.unwrap_or_default());
        }
    }

    fn add_sets(&mut self) {
        let old = self.old;
        for (name, set) in &self.new.sets {
            let before = old.sets.get(name).filter(|old| set.is_declared_as(old));
            if before.is_none() {
                let spec = format!(" {{ {}; comment \"{}\"; }}", set.spec.as_str(), set.spec.comment());
                self.line("add", if set.map { "map" } else { "set" }, name, &spec);
            }
        }
        for (name, set) in self.new.sets.iter().filter(|(_, set)| !set.kept) {
            let before = old.sets.get(name).filter(|old| set.is_declared_as(old));
            let known = |key: &String, value: &String| before.is_some_and(|b| b.elements.get(key) == Some(value));
            let missing = set.elements.iter().filter(|(key, value)| !known(key, value)).collect();
            self.elements("add", name, missing);
        }
    }

    fn elements(&mut self, verb: &str, name: &str, elements: Vec<(&String, &String)>) {
        let (open, between, close) = match elements.len() {
            0 => return,
            1 => (" { ", "", " }"),
            _ => (" {\n\t", ",\n\t", "\n}"),
        };
        let mut text = open.to_owned();
        for (i, (key, value)) in elements.into_iter().enumerate() {
            text.push_str(if i == 0 { "" } else { between });
            text.push_str(key);
            if !value.is_empty() {
                text.push_str(" : ");
                text.push_str(value);
            }
        }
        text.push_str(close);
        self.line(verb, "element", name, &text);
    }

    fn add_rules(&mut self) {
        for (name, chain) in &self.new.chains {
            if self.is_written(name, chain) {
                for rule in &chain.rules {
                    self.line("add", "rule", name, &format!(" {} comment \"{}\"", rule.as_str(), rule.comment()));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
