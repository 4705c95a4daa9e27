//! Cuts a match into tokens.
//!
//! Input: the text. Output: tokens with their places, closed by [`Token::End`]. Must not: know what a word means.

use super::ParseError;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name of a field or predicate.
    Word(String),
    /// A number or an address, with its mask if it has one.
    Constant(String),
    /// `"text"`, without the quotes.
    Text(String),
    /// `$name`.
    AddressSet(String),
    /// `@name`.
    PortGroup(String),
    /// An operator or bracket.
    Sign(&'static str),
    /// The end.
    End,
}

/// Longer ones first.
const SIGNS: &[&str] = &["==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "{", "}", ","];

/// All tokens of a text, each with the byte at which it starts.
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ParseError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (length, token) = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (sign.len(), Token::Sign(sign))
        } else if first == '"' {
            quoted(rest).ok_or_else(|| ParseError::new(at, "text without closing quote"))?
        } else if matches!(first, '$' | '@') {
            let name = run(&rest[1..], is_of_word);
            if name.is_empty() {
                return Err(ParseError::new(at, format!("name expected after {first}")));
            }
            let token = if first == '$' { Token::AddressSet } else { Token::PortGroup };
            (1 + name.len(), token(name.to_owned()))
        } else {
            word_or_constant(rest).ok_or_else(|| ParseError::new(at, format!("{first:?} means nothing here")))?
        };
        tokens.push((at, token));
        at += length;
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn word_or_constant(rest: &str) -> Option<(usize, Token)> {
    let value = run(rest, |c| is_of_word(c) || c == ':');
    let first = value.chars().next()?;
    if !value.contains(':') && !first.is_ascii_digit() {
        return Some((value.len(), Token::Word(value.to_owned())));
    }
    let mask = rest[value.len()..].strip_prefix('/').map(|mask| run(mask, |c| is_of_word(c) || c == ':'));
    let length = value.len() + mask.map_or(0, |mask| 1 + mask.len());
    Some((length, Token::Constant(rest[..length].to_owned())))
}

/// A text in quotes; of the escapes of JSON those of one character.
fn quoted(rest: &str) -> Option<(usize, Token)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((at + 1, Token::Text(text))),
            '\\' => text.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}

fn run(text: &str, fits: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !fits(c)).unwrap_or(text.len())]
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}
