//! The language of matches: ovn-sb(5), column `match` of Logical_Flow, as far as access rules need it.
//!
//! ```text
//! text --[lexer]--> tokens --[parser, symbol, constant]--> Expression --(frame)--> bool
//! ```
//!
//! [`Expression::parse`] refuses what OVN's own parser refuses (unknown sets and groups, `&&` beside `||` without parentheses, negated nominal
//! fields, ...), and addresses of one family compared with fields of the other, which OVN takes and nobody means. Not supported: subfields (`x[0..3]`),
//! connection tracking, VLANs, registers, functions, templates and comments. Errors are values that name the byte. Must not: know tables.

mod constant;
mod lexer;
mod parser;
mod symbol;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use constant::{Constant, Format};

use crate::frame::{Field, Frame};

/// What `$name` and `@name` stand for.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// Addresses by the name of the set.
    pub addresses: HashMap<String, Arc<[Constant]>>,
    /// Names of ports by the name of the group.
    pub groups: HashMap<String, Arc<HashSet<String>>>,
}

/// A match, with its sets in place. Negations stand at the comparisons, as OVN moves them there: `!(tcp.dst == 80)` holds for TCP to another port,
/// and not for UDP.
#[derive(Clone, Debug)]
pub enum Expression {
    /// `0` or `1`.
    Literal(bool),
    /// `a && b && ...`
    All(Vec<Expression>),
    /// `a || b || ...`
    Any(Vec<Expression>),
    /// A field is, or is not, one of some constants.
    OneOf {
        /// Field.
        field: Field,
        /// `==` rather than `!=`.
        positive: bool,
        /// Constants.
        values: Vec<Values>,
    },
    /// A predicate does not hold.
    Not(Box<Expression>),
    /// A field is in a range; an empty one has `least > most`.
    Range {
        /// Field.
        field: Field,
        /// Lowest value.
        least: u128,
        /// Highest value.
        most: u128,
    },
    /// `inport` or `outport` is one of some ports.
    Port {
        /// `outport` rather than `inport`.
        out: bool,
        /// Names.
        names: Vec<Names>,
    },
}

/// Constants of a comparison: one, or a set of addresses.
#[derive(Clone, Debug)]
pub enum Values {
    /// Written out.
    One(Constant),
    /// `$name`.
    Set(Arc<[Constant]>),
}

/// Ports of a comparison: one, or a group.
#[derive(Clone, Debug)]
pub enum Names {
    /// `"name"`.
    One(String),
    /// `@name`.
    Group(Arc<HashSet<String>>),
}

/// Why a match cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {problem}")]
pub struct ParseError {
    /// Offset into the text, in bytes.
    pub at: usize,
    /// What is wrong.
    pub problem: String,
}

impl ParseError {
    fn new(at: usize, problem: impl Into<String>) -> ParseError {
        ParseError { at, problem: problem.into() }
    }
}

impl Expression {
    /// Reads a match.
    pub fn parse(text: &str, sets: &Sets) -> Result<Expression, ParseError> {
        parser::parse(text, sets)
    }

    /// Whether a frame matches.
    pub fn matches(&self, frame: &Frame<'_>) -> bool {
        match self {
            Expression::Literal(value) => *value,
            Expression::All(parts) => parts.iter().all(|part| part.matches(frame)),
            Expression::Any(parts) => parts.iter().any(|part| part.matches(frame)),
            Expression::Not(predicate) => !predicate.matches(frame),
            Expression::OneOf { field, positive, values } => {
                frame.value(*field).is_some_and(|value| values.iter().any(|v| v.contain(value)) == *positive)
            }
            Expression::Range { field, least, most } => {
                frame.value(*field).is_some_and(|value| (*least..=*most).contains(&value))
            }
            Expression::Port { out, names } => {
                let port = if *out { frame.outport } else { frame.inport };
                names.iter().any(|name| name.contain(port))
            }
        }
    }
}

impl Values {
    fn contain(&self, value: u128) -> bool {
        match self {
            Values::One(constant) => constant.contains(value),
            Values::Set(set) => set.iter().any(|constant| constant.contains(value)),
        }
    }
}

impl Names {
    fn contain(&self, port: &str) -> bool {
        match self {
            Names::One(name) => name == port,
            Names::Group(group) => group.contains(port),
        }
    }
}
