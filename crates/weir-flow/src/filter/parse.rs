//! Tokens into a filter.
//!
//! ```text
//! filter  = [ any ]
//! any     = every { "or" every }
//! every   = unary { "and" unary }
//! unary   = "not" unary | "(" any ")" | "all" | test
//! test    = field ( operator value | [ "not" ] "in" "(" value { "," value } ")" )
//! ```

use crate::field::{EndpointField, Field};

use super::error::{FilterError, Problem, nearest};
use super::lex::{KEYWORDS, Token, TokenKind, tokens};
use super::value::{self, ValueType};
use super::{Filter, MAX_BYTES, MAX_DEPTH, MAX_TESTS, Operator, Subject, Test, Value};

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_BYTES {
        let problem = Problem::TooLong { bytes: text.len() };
        return Err(FilterError { position: MAX_BYTES, length: 0, problem });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, tests: 0 };
    if parser.peek().kind == TokenKind::End {
        return Ok(Filter::All);
    }
    let filter = parser.any()?;
    match parser.peek().kind {
        TokenKind::End => Ok(filter),
        _ => Err(parser.unexpected("`and`, `or` or the end")),
    }
}

struct Parser {
    /// Ends with [`TokenKind::End`], which is never passed.
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    tests: usize,
}

impl Parser {
    fn any(&mut self) -> Result<Filter, FilterError> {
        let mut filter = self.every()?;
        while self.take_keyword("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.every()?));
        }
        Ok(filter)
    }

    fn every(&mut self) -> Result<Filter, FilterError> {
        let mut filter = self.unary()?;
        while self.take_keyword("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.unary()?));
        }
        Ok(filter)
    }

    fn unary(&mut self) -> Result<Filter, FilterError> {
        let start = self.peek();
        let (is_not, is_open) = (start.kind.is_keyword("not"), start.kind == TokenKind::Open);
        if start.kind.is_keyword("all") {
            self.advance();
            return self.counted(Filter::All);
        }
        if !is_not && !is_open {
            return self.test();
        }
        if self.depth == MAX_DEPTH {
            return Err(self.error(Problem::TooDeep));
        }
        self.advance();
        self.depth += 1;
        let filter = if is_not {
            Filter::Not(Box::new(self.unary()?))
        } else {
            let inner = self.any()?;
            self.expect(&TokenKind::Close, "`)`, `and` or `or`")?;
            inner
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn test(&mut self) -> Result<Filter, FilterError> {
        let subject = self.subject()?;
        let negated_list = self.peek().kind.is_keyword("not");
        if negated_list {
            self.advance();
        }
        if self.take_keyword("in") {
            let values = self.list(subject)?;
            let test = Filter::Test(Test { subject, operator: Operator::In, values });
            return self.counted(negate_if(negated_list, test));
        }
        let TokenKind::Operator(written) = self.peek().kind else {
            let expected = if negated_list { "`in`" } else { "an operator (=, !=, in, ~, <, …)" };
            return Err(self.unexpected(expected));
        };
        if negated_list {
            return Err(self.unexpected("`in`"));
        }
        let (operator, negated) = operator(written);
        let kind = ValueType::of(subject);
        if !kind.takes(operator) {
            let field = subject.to_string();
            let valid = kind.operators();
            return Err(self.error(Problem::WrongOperator { field, operator: written, valid }));
        }
        self.advance();
        let values = vec![self.value(subject, operator)?];
        self.counted(negate_if(negated, Filter::Test(Test { subject, operator, values })))
    }

    /// The filter, unless it is one test too many.
    fn counted(&mut self, filter: Filter) -> Result<Filter, FilterError> {
        self.tests += 1;
        if self.tests > MAX_TESTS {
            return Err(self.error(Problem::TooManyTests));
        }
        Ok(filter)
    }

    fn subject(&mut self) -> Result<Subject, FilterError> {
        let TokenKind::Word(word) = &self.peek().kind else {
            return Err(self.unexpected("a field, `not` or `(`"));
        };
        if KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) {
            return Err(self.unexpected("a field, `not` or `(`"));
        }
        let name = word.to_ascii_lowercase();
        match subject(&name) {
            Some(subject) => {
                self.advance();
                Ok(subject)
            }
            None if matches!(name.as_str(), "source.port" | "src.port") => {
                Err(self.error(Problem::SourcePort))
            }
            None => {
                let nearest = nearest_field(&name);
                Err(self.error(Problem::UnknownField { name: word.clone(), nearest }))
            }
        }
    }

    fn list(&mut self, subject: Subject) -> Result<Vec<Value>, FilterError> {
        self.expect(&TokenKind::Open, "`(` and a list of values")?;
        let mut values = vec![self.value(subject, Operator::In)?];
        while self.peek().kind == TokenKind::Comma {
            self.advance();
            values.push(self.value(subject, Operator::In)?);
        }
        self.expect(&TokenKind::Close, "`,` or `)`")?;
        Ok(values)
    }

    fn value(&mut self, subject: Subject, operator: Operator) -> Result<Value, FilterError> {
        let kind = ValueType::of(subject);
        let value = match &self.peek().kind {
            TokenKind::Word(word)
                if word.eq_ignore_ascii_case("none")
                    && operator == Operator::In
                    && kind.can_be_absent() =>
            {
                Ok(Value::Absent)
            }
            // `none` is no keyword where the field is never absent: let the type refuse it.
            TokenKind::Word(word)
                if !word.eq_ignore_ascii_case("none")
                    && KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) =>
            {
                return Err(self.unexpected("a value (such a word is quoted)"));
            }
            TokenKind::Word(text) | TokenKind::Quoted(text) => value::read(kind, text),
            _ => return Err(self.unexpected("a value")),
        };
        let value = value.map_err(|problem| self.error(problem))?;
        self.advance();
        Ok(value)
    }

    fn peek(&self) -> &Token {
        // `advance` stops at the last token, so `next` is always within.
        &self.tokens[self.next]
    }

    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek().kind.is_keyword(keyword);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, kind: &TokenKind, expected: &'static str) -> Result<(), FilterError> {
        if self.peek().kind != *kind {
            return Err(self.unexpected(expected));
        }
        self.advance();
        Ok(())
    }

    fn unexpected(&self, expected: &'static str) -> FilterError {
        self.error(Problem::Unexpected { expected, found: self.peek().kind.shown() })
    }

    fn error(&self, problem: Problem) -> FilterError {
        let Token { position, length, .. } = *self.peek();
        FilterError { position, length, problem }
    }
}

fn negate_if(negated: bool, filter: Filter) -> Filter {
    if negated { Filter::Not(Box::new(filter)) } else { filter }
}

/// The operator, and whether it is negated.
fn operator(written: &str) -> (Operator, bool) {
    match written {
        "!=" => (Operator::In, true),
        "~" => (Operator::Contains, false),
        "!~" => (Operator::Contains, true),
        "<" => (Operator::Less, false),
        "<=" => (Operator::LessOrEqual, false),
        ">" => (Operator::Greater, false),
        ">=" => (Operator::GreaterOrEqual, false),
        _ => (Operator::In, false),
    }
}

fn subject(name: &str) -> Option<Subject> {
    if name == "port" {
        return Some(Subject::Field(Field::DestinationPort));
    }
    let either = EndpointField::ALL.into_iter().find(|field| field.name() == name);
    Field::parse(name).map(Subject::Field).or_else(|| either.map(Subject::Either))
}

/// The field that was probably meant: a name from other tools, else the nearest in spelling.
fn nearest_field(name: &str) -> Option<String> {
    let (side, field) = match name.split_once('.') {
        Some(("src" | "source", field)) => ("source.", field),
        Some(("dst" | "dest" | "destination", field)) => ("destination.", field),
        _ => ("", name),
    };
    let field = match field {
        "ip" | "addr" | "host_ip" => "address",
        "exe" | "process" | "comm" | "program" | "command" => "executable",
        "proto" if side.is_empty() => "protocol",
        "dport" | "dst_port" if side.is_empty() => "destination.port",
        "svc" if side.is_empty() => "service",
        "ns" => "namespace",
        "owner" => "workload",
        "az" => "zone",
        "hostname" | "machine" => "host",
        "type" => "kind",
        other => other,
    };
    let corrected = format!("{side}{field}");
    if subject(&corrected).is_some() {
        return Some(corrected);
    }
    let mut names: Vec<String> = Field::all().map(|field| field.to_string()).collect();
    names.extend(EndpointField::ALL.into_iter().map(|field| field.name().to_owned()));
    names.push("port".to_owned());
    nearest(&corrected, names.iter())
}
