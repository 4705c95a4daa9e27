//! A table that many owners have a part in, kept so that the change of one owner costs as much as its part.
//!
//! ```text
//! owner -> part (a small table) --+--> claims: object or element -> owners, each with what it wants; the first owner has it
//!                                 +--> touched: object or element -> what stood there --[take_changes]--> two small tables
//! ```
//!
//! Owners may want the same chain or element; it is there as long as one does. If they want it different, the first in their order has it.
//! Must not: let two parts declare a set of one name differently, for a set that is made anew loses the elements of all parts. A set's
//! declaration follows from its name.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::table::{Chain, Set, Table};

/// See the file header. `O` is what owners are told apart by.
#[derive(Debug)]
pub struct Parts<O> {
    id: Cow<'static, str>,
    parts: BTreeMap<O, Vec<Item>>,
    claims: BTreeMap<Item, Claims<O>>,
    touched: BTreeMap<Item, Option<Value>>,
}

/// What can be wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Chain(Arc<str>),
    Set(Arc<str>),
    Element(Arc<str>, Arc<str>),
}

/// How it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Chain(Arc<Chain>),
    /// Without elements.
    Set(Arc<Set>),
    Element(Box<str>),
}

/// Who wants it: the first owner, and the others, which mostly are none.
#[derive(Debug)]
struct Claims<O> {
    owner: O,
    value: Value,
    others: BTreeMap<O, Value>,
}

impl<O: Ord + Clone> Parts<O> {
    /// The table of no owners.
    pub fn new(id: impl Into<Cow<'static, str>>) -> Parts<O> {
        Parts { id: id.into(), parts: BTreeMap::new(), claims: BTreeMap::new(), touched: BTreeMap::new() }
    }

    /// Replaces an owner's part. Its table's name does not matter.
    pub fn set(&mut self, owner: &O, part: Table) {
        let wanted = items(part);
        let before = self.parts.remove(owner).unwrap_or_default();
        let gone = before.into_iter().filter(|item| wanted.binary_search_by(|(wanted, _)| wanted.cmp(item)).is_err());
        gone.for_each(|item| self.claim(owner, item, None));
        let mut items = Vec::with_capacity(wanted.len());
        for (item, value) in wanted {
            items.push(item.clone());
            self.claim(owner, item, Some(value));
        }
        if !items.is_empty() {
            self.parts.insert(owner.clone(), items);
        }
    }

    /// The whole table.
    pub fn table(&self) -> Table {
        let mut table = Table::new(self.id.clone());
        self.claims.iter().for_each(|(item, claims)| put(&mut table, item, &claims.value));
        table
    }

    /// What has changed since the call before: tables that hold what stood there, and what stands there now. Their script is that of the
    /// whole.
    pub fn take_changes(&mut self) -> (Table, Table) {
        let (mut old, mut new) = (Table::new(self.id.clone()), Table::new(self.id.clone()));
        let mut sides = |item: &Item, before: Option<&Value>, now: Option<&Value>| {
            for (table, value) in [(&mut old, before), (&mut new, now)] {
                if let Some(value) = value {
                    put(table, item, value);
                }
            }
        };
        let touched = mem::take(&mut self.touched);
        for (item, before) in &touched {
            let now = self.claims.get(item).map(|claims| &claims.value);
            if before.as_ref() == now {
                continue;
            }
            // Elements come with their set.
            if let Item::Element(set, _) = item {
                let set = Item::Set(set.clone());
                let now = self.claims.get(&set).map(|claims| &claims.value);
                let before = touched.get(&set).map_or(now, Option::as_ref);
                sides(&set, before, now);
            }
            sides(item, before.as_ref(), now);
        }
        (old, new)
    }

    fn claim(&mut self, owner: &O, item: Item, value: Option<Value>) {
        let claims = self.claims.remove(&item);
        self.touched.entry(item.clone()).or_insert_with(|| claims.as_ref().map(|c| c.value.clone()));
        let claims = match value {
            Some(value) => Some(Claims::add(claims, owner, value)),
            None => claims.and_then(|c| c.without(owner)),
        };
        if let Some(claims) = claims {
            self.claims.insert(item, claims);
        }
    }
}

impl<O: Ord + Clone> Claims<O> {
    fn add(claims: Option<Claims<O>>, owner: &O, value: Value) -> Claims<O> {
        let alone = |owner: &O, value| Claims { owner: owner.clone(), value, others: BTreeMap::new() };
        let Some(mut claims) = claims else { return alone(owner, value) };
        // What thousands want alike is in memory once.
        let value = if value == claims.value { claims.value.clone() } else { value };
        match owner.cmp(&claims.owner) {
            Ordering::Equal => claims.value = value,
            Ordering::Greater => drop(claims.others.insert(owner.clone(), value)),
            Ordering::Less => {
                let mut others = mem::take(&mut claims.others);
                others.insert(claims.owner, claims.value);
                claims = Claims { others, ..alone(owner, value) };
            }
        }
        claims
    }

    fn without(mut self, owner: &O) -> Option<Claims<O>> {
        if self.owner != *owner {
            self.others.remove(owner);
            return Some(self);
        }
        let (owner, value) = self.others.pop_first()?;
        Some(Claims { owner, value, ..self })
    }
}

/// What a part wants, sorted.
fn items(part: Table) -> Vec<(Item, Value)> {
    let chain = |(name, chain): (String, Chain)| (Item::Chain(name.into()), Value::Chain(chain.into()));
    let mut items: Vec<_> = part.chains.into_iter().map(chain).collect();
    for (name, mut set) in part.sets {
        let name: Arc<str> = name.into();
        let elements = mem::take(&mut set.elements).into_iter();
        items.push((Item::Set(name.clone()), Value::Set(set.into())));
        items.extend(
            elements.map(|(key, value)| (Item::Element(name.clone(), key.into()), Value::Element(value.into()))),
        );
    }
    items.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    items
}

fn put(table: &mut Table, item: &Item, value: &Value) {
    match (item, value) {
        (Item::Chain(name), Value::Chain(chain)) => drop(table.chains.insert(name.to_string(), Chain::clone(chain))),
        (Item::Set(name), Value::Set(set)) => {
            table.sets.entry(name.to_string()).or_insert_with(|| Set::clone(set));
        }
        (Item::Element(set, key), Value::Element(value)) => {
            if let Some(set) = table.sets.get_mut(&**set) {
                set.elements.insert(key.to_string(), value.to_string());
            }
        }
        // A kind has its own values.
        _ => {}
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
