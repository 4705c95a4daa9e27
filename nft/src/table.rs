//! The model: a table, its chains, sets and maps.
//!
//! Texts are nft(8)'s own. A text that was read back is known by its mark only, for nft shows it in another form than it was written in.
//! Must not: judge texts; nft does.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Family and name: `inet ovenbird`.
    pub id: Cow<'static, str>,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A set, a map, or a verdict map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// What stands between its braces but comment and elements: `type ipv4_addr : verdict; flags interval`.
    pub spec: Text,
    /// It is a map.
    pub map: bool,
    /// Its contents are the kernel's: rules add to it. They outlive every write, as long as the set is declared alike.
    pub kept: bool,
    /// Key and, in a map, value, as nft lists them. Of a kept set they are neither read nor written.
    pub elements: BTreeMap<String, String>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls it; `None` for one that only other chains call.
    pub base: Option<Base>,
    /// Rules in their order.
    pub rules: Vec<Text>,
}

/// The hook of a base chain. Its policy is accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// `filter`, `nat` or `route`.
    pub kind: Cow<'static, str>,
    /// `prerouting`, ...
    pub hook: Cow<'static, str>,
    /// A number; lower ones are called first.
    pub priority: i32,
}

/// A piece of nft's language, or, of one that was read back, its mark alone.
#[derive(Clone, Debug)]
pub struct Text {
    text: Cow<'static, str>,
    mark: u64,
}

impl Table {
    /// An empty table.
    pub fn new(id: impl Into<Cow<'static, str>>) -> Table {
        Table { id: id.into(), ..Table::default() }
    }

    /// The chain of a name, which is made if need be.
    pub fn chain(&mut self, name: &str) -> &mut Chain {
        self.chains.entry(name.to_owned()).or_default()
    }
}

impl Set {
    /// A set without elements.
    pub fn plain(spec: impl Into<Text>) -> Set {
        Set { spec: spec.into(), ..Set::default() }
    }

    /// A map without elements.
    pub fn map(spec: impl Into<Text>) -> Set {
        Set { map: true, ..Set::plain(spec) }
    }

    /// A set that rules fill.
    pub fn kept(spec: impl Into<Text>) -> Set {
        Set { kept: true, ..Set::plain(spec) }
    }

    /// True when the one can become the other without being made anew.
    pub fn is_declared_as(&self, other: &Set) -> bool {
        (&self.spec, self.map) == (&other.spec, other.map)
    }
}

impl Chain {
    /// A base chain without rules.
    pub fn base(kind: &'static str, hook: &'static str, priority: i32) -> Chain {
        Chain { base: Some(Base { kind: kind.into(), hook: hook.into(), priority }), rules: Vec::new() }
    }

    /// Adds a rule.
    pub fn rule(&mut self, text: impl Into<Text>) -> &mut Chain {
        self.rules.push(text.into());
        self
    }
}

impl Text {
    /// One that was read back. `comment` is what stands with it, ours or another's.
    pub(crate) fn unseen(comment: Option<&str>) -> Text {
        // No text of ours has the mark 0.
        Text { text: Cow::Borrowed(""), mark: comment.and_then(|c| u64::from_str_radix(c, 16).ok()).unwrap_or(0) }
    }

    /// The text; empty of one that was read back.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The comment that nft is given with it.
    pub(crate) fn comment(&self) -> String {
        format!("{:016x}", self.mark)
    }
}

impl<T: Into<Cow<'static, str>>> From<T> for Text {
    fn from(text: T) -> Text {
        let text = text.into();
        Text { mark: mark(&text), text }
    }
}

impl Default for Text {
    fn default() -> Text {
        Text::from("")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.mark == other.mark
    }
}

impl Eq for Text {}

/// FNV-1a, which is the same in every build.
fn mark(text: &str) -> u64 {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, hash).max(1)
}
