//! The grammar of matches.
//!
//! ```text
//! expression = operand { "&&" operand } | operand { "||" operand }
//! operand    = [ "!" ] ( "(" expression ")" | predicate | literal ) | comparison
//! comparison = field relation constants | constants relation field [ relation constants ]
//! constants  = constant | "{" constant { [ "," ] constant } [ "," ] "}"
//! ```
//!
//! Input: tokens. Output: an [`Expression`] without negations but at its leaves: each is read knowing whether it stands below an odd number of `!`.
//! Source: ovn-sb(5), and for what is refused the behaviour of ovn-controller. Must not: look at packets.

use super::constant::{Constant, Format};
use super::lexer::{Token, tokens};
use super::symbol::{FieldSymbol, Symbol, find};
use super::{Expression, Names, ParseError, Sets, Values};

/// Parentheses within parentheses, as many as OVN takes.
const DEEPEST: usize = 100;

/// Reads a whole text.
pub(super) fn parse(text: &str, sets: &Sets) -> Result<Expression, ParseError> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, sets };
    let expression = parser.expression(false)?;
    match parser.peek() {
        Token::End => Ok(expression),
        _ => parser.refuse("end of the match expected"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One side of a comparison.
struct Constants {
    at: usize,
    list: Vec<Operand>,
    in_braces: bool,
}

enum Operand {
    Values(Values),
    Names(Names),
}

struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    sets: &'a Sets,
}

impl Parser<'_> {
    fn expression(&mut self, negated: bool) -> Result<Expression, ParseError> {
        let mut parts = vec![self.operand(negated)?];
        let Token::Sign(sign @ ("&&" | "||")) = *self.peek() else { return Ok(parts.remove(0)) };
        while self.take(sign) {
            parts.push(self.operand(negated)?);
        }
        if matches!(self.peek(), Token::Sign("&&" | "||")) {
            return self.refuse("&& and || must be parenthesized when used together");
        }
        let all = (sign == "&&") != negated;
        Ok(if all { Expression::All(parts) } else { Expression::Any(parts) })
    }

    fn operand(&mut self, negated: bool) -> Result<Expression, ParseError> {
        if !self.take("!") {
            return Ok(self.primary(negated)?.0);
        }
        match self.primary(!negated)? {
            (expression, true) => Ok(expression),
            (_, false) => self.refuse("missing parentheses around operand of !"),
        }
    }

    /// An operand, and whether `!` may stand before it.
    fn primary(&mut self, negated: bool) -> Result<(Expression, bool), ParseError> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return self.refuse("parentheses nested too deeply");
            }
            let expression = self.expression(negated)?;
            self.depth -= 1;
            return if self.take(")") { Ok((expression, true)) } else { self.refuse("`)' expected") };
        }
        let at = self.at();
        if let Token::Word(name) = self.peek().clone() {
            self.next += 1;
            let symbol = find(&name).ok_or_else(|| ParseError::new(at, format!("unknown symbol {name}")))?;
            if let Symbol::Predicate { expansion, nominal } = symbol {
                return Ok((predicate(at, &name, expansion, nominal, negated)?, true));
            }
            let relation = self.relation()?;
            let constants = self.constants()?;
            return Ok((compare(at, &name, symbol, relation, constants, negated)?, false));
        }
        if let Token::Constant(text) = self.peek()
            && let Some(value) = literal(text)
            && !matches!(self.tokens.get(self.next + 1), Some((_, Token::Sign("==" | "!=" | "<" | "<=" | ">" | ">="))))
        {
            self.next += 1;
            return Ok((Expression::Literal(value != negated), true));
        }
        Ok((self.turned(negated)?, false))
    }

    /// A comparison or a range that begins with a constant.
    fn turned(&mut self, negated: bool) -> Result<Expression, ParseError> {
        let constants = self.constants()?;
        let first = self.relation()?;
        let at = self.at();
        let Token::Word(name) = self.peek().clone() else { return self.refuse("field name expected") };
        self.next += 1;
        let symbol = find(&name).filter(|symbol| !matches!(symbol, Symbol::Predicate { .. }));
        let symbol = symbol.ok_or_else(|| ParseError::new(at, format!("unknown field {name}")))?;
        let lower = compare(at, &name, symbol, first.turned(), constants, negated)?;
        if !matches!(self.peek(), Token::Sign("==" | "!=" | "<" | "<=" | ">" | ">=")) {
            return Ok(lower);
        }
        let second = self.relation()?;
        if !first.same_way(second) {
            return self.refuse("range expressions must have the form `x < field < y' or `x > field > y'");
        }
        let constants = self.constants()?;
        let upper = compare(at, &name, symbol, second, constants, negated)?;
        let both = vec![lower, upper];
        Ok(if negated { Expression::Any(both) } else { Expression::All(both) })
    }

    fn constants(&mut self) -> Result<Constants, ParseError> {
        let at = self.at();
        if !self.take("{") {
            return Ok(Constants { at, list: vec![self.constant()?], in_braces: false });
        }
        let mut list = Vec::new();
        loop {
            list.push(self.constant()?);
            self.take(",");
            if self.take("}") {
                return Ok(Constants { at, list, in_braces: true });
            }
        }
    }

    fn constant(&mut self) -> Result<Operand, ParseError> {
        let at = self.at();
        let operand = match self.peek() {
            Token::Constant(text) => {
                let constant = Constant::parse(text).map_err(|problem| ParseError::new(at, problem))?;
                Operand::Values(Values::One(constant))
            }
            Token::Text(name) => Operand::Names(Names::One(name.clone())),
            Token::AddressSet(name) => match self.sets.addresses.get(name) {
                Some(set) => Operand::Values(Values::Set(set.clone())),
                None => return self.refuse("address set name expected"),
            },
            Token::PortGroup(name) => match self.sets.groups.get(name) {
                Some(group) => Operand::Names(Names::Group(group.clone())),
                None => return self.refuse("port group name expected"),
            },
            _ => return self.refuse("constant expected"),
        };
        self.next += 1;
        Ok(operand)
    }

    fn relation(&mut self) -> Result<Relation, ParseError> {
        let relation = match self.peek() {
            Token::Sign("==") => Relation::Equal,
            Token::Sign("!=") => Relation::Unequal,
            Token::Sign("<") => Relation::Less,
            Token::Sign("<=") => Relation::LessOrEqual,
            Token::Sign(">") => Relation::Greater,
            Token::Sign(">=") => Relation::GreaterOrEqual,
            _ => return self.refuse("relational operator expected"),
        };
        self.next += 1;
        Ok(relation)
    }

    /// The next token; [`Token::End`] is never passed.
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(0, |(at, _)| *at)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(s) if *s == sign);
        self.next += usize::from(found);
        found
    }

    fn refuse<T>(&self, problem: &str) -> Result<T, ParseError> {
        Err(ParseError::new(self.at(), problem))
    }
}

impl Relation {
    /// `5 < x` is `x > 5`.
    fn turned(self) -> Relation {
        match self {
            Relation::Less => Relation::Greater,
            Relation::LessOrEqual => Relation::GreaterOrEqual,
            Relation::Greater => Relation::Less,
            Relation::GreaterOrEqual => Relation::LessOrEqual,
            same => same,
        }
    }

    fn opposite(self) -> Relation {
        match self {
            Relation::Equal => Relation::Unequal,
            Relation::Unequal => Relation::Equal,
            Relation::Less => Relation::GreaterOrEqual,
            Relation::LessOrEqual => Relation::Greater,
            Relation::Greater => Relation::LessOrEqual,
            Relation::GreaterOrEqual => Relation::Less,
        }
    }

    fn same_way(self, other: Relation) -> bool {
        use Relation::{Greater, GreaterOrEqual, Less, LessOrEqual};
        matches!(
            (self, other),
            (Less | LessOrEqual, Less | LessOrEqual) | (Greater | GreaterOrEqual, Greater | GreaterOrEqual)
        )
    }
}

fn literal(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn predicate(at: usize, name: &str, expansion: &str, nominal: bool, negated: bool) -> Result<Expression, ParseError> {
    if nominal && negated {
        let problem = format!("nominal predicate {name} may only be tested positively");
        return Err(ParseError::new(at, problem));
    }
    let expression = parse(expansion, &Sets::default()).map_err(|e| ParseError::new(at, e.to_string()))?;
    Ok(if negated { Expression::Not(Box::new(expression)) } else { expression })
}

/// A comparison below an odd number of `!` (`negated`) or an even one.
fn compare(
    at: usize,
    name: &str,
    symbol: Symbol,
    relation: Relation,
    constants: Constants,
    negated: bool,
) -> Result<Expression, ParseError> {
    let relation = if negated { relation.opposite() } else { relation };
    let nominal = match symbol {
        Symbol::Field(field) => field.nominal,
        _ => true,
    };
    let is_equality = matches!(relation, Relation::Equal | Relation::Unequal);
    if nominal && relation != Relation::Equal {
        let problem = format!("nominal field {name} may only be tested for equality");
        return Err(ParseError::new(at, problem));
    }
    if !is_equality && (constants.in_braces || constants.list.len() != 1) {
        return Err(ParseError::new(constants.at, "only == and != may be used with sets"));
    }
    match symbol {
        Symbol::Field(field) => {
            let values = of_field(name, &field, constants)?;
            if is_equality {
                let positive = relation == Relation::Equal;
                return Ok(Expression::OneOf { field: field.field, positive, values });
            }
            range(at, field, relation, &values)
        }
        Symbol::Port(out) => {
            let at = constants.at;
            let names = constants.list.into_iter().map(|operand| match operand {
                Operand::Names(names) => Ok(names),
                Operand::Values(_) => Err(ParseError::new(at, format!("{name} is compared with names"))),
            });
            Ok(Expression::Port { out, names: names.collect::<Result<_, _>>()? })
        }
        Symbol::Predicate { .. } => Err(ParseError::new(at, format!("predicate {name} stands alone"))),
    }
}

/// The constants, if they fit the field.
fn of_field(name: &str, field: &FieldSymbol, constants: Constants) -> Result<Vec<Values>, ParseError> {
    let fits = |constant: &Constant| {
        let bits = u128::BITS - constant.value.leading_zeros();
        let right_kind = constant.format == Format::Number || constant.format == field.format;
        right_kind && bits <= field.width
    };
    let at = constants.at;
    let check = |operand: Operand| match operand {
        Operand::Values(values) => {
            let misfit = match &values {
                Values::One(constant) => !fits(constant),
                Values::Set(set) => !set.iter().all(fits),
            };
            if misfit { Err(ParseError::new(at, format!("a constant does not fit {name}"))) } else { Ok(values) }
        }
        Operand::Names(_) => Err(ParseError::new(at, format!("{name} is compared with numbers and addresses"))),
    };
    constants.list.into_iter().map(check).collect()
}

fn range(at: usize, field: FieldSymbol, relation: Relation, values: &[Values]) -> Result<Expression, ParseError> {
    let [Values::One(bound)] = values else {
        return Err(ParseError::new(at, "only == and != may be used with sets"));
    };
    if bound.is_masked() {
        return Err(ParseError::new(at, "only == and != may be used with masked constants"));
    }
    let (least, most) = match relation {
        Relation::LessOrEqual => (0, bound.value),
        Relation::GreaterOrEqual => (bound.value, u128::MAX),
        // Nothing is below 0, or above all.
        Relation::Less => bound.value.checked_sub(1).map_or((1, 0), |most| (0, most)),
        Relation::Greater => bound.value.checked_add(1).map_or((1, 0), |least| (least, u128::MAX)),
        Relation::Equal | Relation::Unequal => (bound.value, bound.value),
    };
    Ok(Expression::Range { field: field.field, least, most })
}
