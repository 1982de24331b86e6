//! Text into tokens.

use super::error::{FilterError, Problem};

/// A token and the bytes of the text it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) position: usize,
    pub(super) length: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A bare word: a field, a keyword or a value.
    Word(String),
    /// A quoted value, its escapes resolved.
    Quoted(String),
    /// A comparison, as written.
    Operator(&'static str),
    Open,
    Close,
    Comma,
    End,
}

impl TokenKind {
    /// How an error names it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("`{}`", word.escape_debug()),
            Self::Quoted(text) => format!("{text:?}"),
            Self::Operator(operator) => format!("`{operator}`"),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
            Self::Comma => "`,`".to_owned(),
            Self::End => "the end".to_owned(),
        }
    }

    /// True for this keyword, in any case.
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// Longest first, so that `<=` is not read as `<`.
const OPERATORS: [&str; 8] = ["!=", "!~", "<=", ">=", "=", "~", "<", ">"];

/// Words that mean something by themselves; as values they are quoted.
pub(super) const KEYWORDS: [&str; 6] = ["and", "or", "not", "in", "none", "all"];

/// True for the characters of which bare words are made.
pub(super) fn is_bare(character: char) -> bool {
    !character.is_whitespace()
        && !character.is_control()
        && !matches!(character, '(' | ')' | ',' | '=' | '!' | '<' | '>' | '~' | '"' | '\'')
}

/// All tokens of the text, the last one [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let position = text.len() - rest.len();
        let (kind, length) = token(rest, first).map_err(|(offset, length, problem)| {
            FilterError { position: position + offset, length, problem }
        })?;
        tokens.push(Token { kind, position, length });
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    tokens.push(Token { kind: TokenKind::End, position: text.len(), length: 0 });
    Ok(tokens)
}

/// An error as (offset from the token's start, length, problem).
type Located = (usize, usize, Problem);

fn token(rest: &str, first: char) -> Result<(TokenKind, usize), Located> {
    match first {
        '(' => return Ok((TokenKind::Open, 1)),
        ')' => return Ok((TokenKind::Close, 1)),
        ',' => return Ok((TokenKind::Comma, 1)),
        '"' | '\'' => return quoted(rest, first),
        _ => {}
    }
    if let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) {
        return Ok((TokenKind::Operator(operator), operator.len()));
    }
    let length = rest.find(|character| !is_bare(character)).unwrap_or(rest.len());
    match rest.get(..length) {
        Some(word) if !word.is_empty() => Ok((TokenKind::Word(word.to_owned()), length)),
        _ => Err((0, first.len_utf8(), Problem::UnexpectedCharacter { character: first })),
    }
}

fn quoted(rest: &str, quote: char) -> Result<(TokenKind, usize), Located> {
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((offset, character)) = characters.next() {
        match character {
            '\\' => {
                let escaped = escape(&mut characters);
                value.push(escaped.ok_or((offset, 2, Problem::UnknownEscape))?);
            }
            character if character == quote => {
                return Ok((TokenKind::Quoted(value), offset + 1));
            }
            character => value.push(character),
        }
    }
    Err((0, rest.len(), Problem::UnclosedQuote { quote }))
}

fn escape(characters: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    match characters.next()?.1 {
        plain @ ('\\' | '"' | '\'') => Some(plain),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'u' => {
            if characters.next()?.1 != '{' {
                return None;
            }
            let mut code = 0_u32;
            for _ in 0..=6 {
                match characters.next()?.1 {
                    '}' => return char::from_u32(code),
                    digit => code = code.checked_mul(16)?.checked_add(digit.to_digit(16)?)?,
                }
            }
            None
        }
        _ => None,
    }
}
