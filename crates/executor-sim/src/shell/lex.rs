//! From the text of a script to words and operators.

use std::iter::Peekable;
use std::str::Chars;

use super::syntax::{Part, Unsupported, Word, is_name};

/// A word or an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// `;` or the end of a line.
    End,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `&`
    Background,
    /// `>&2` or `1>&2`
    ToStderr,
}

/// The tokens of a script, without comments.
pub(super) fn tokens(script: &str) -> Result<Vec<Token>, Unsupported> {
    let mut rest = script.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = rest.peek().copied() {
        match c {
            '\n' | ';' => {
                rest.next();
                tokens.push(Token::End);
            }
            c if c.is_whitespace() => {
                rest.next();
            }
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '&' => tokens.push(doubled(&mut rest, Token::And).unwrap_or(Token::Background)),
            '|' => match doubled(&mut rest, Token::Or) {
                Some(or) => tokens.push(or),
                None => return Err(Unsupported::new("pipes (`|`)")),
            },
            '>' => tokens.push(to_stderr(&mut rest)?),
            '<' => return Err(Unsupported::new("input redirections (`<`)")),
            '(' | ')' => return Err(Unsupported::new("subshells, functions and `case` (parentheses)")),
            _ => {
                let word = word(&mut rest)?;
                // `1>&2` is the same as `>&2`.
                let is_number = word.as_plain().is_some_and(|text| text.chars().all(|c| c.is_ascii_digit()));
                match rest.peek() {
                    Some('>') if is_number && word.as_plain() != Some("1") => return Err(redirection()),
                    Some('>') if is_number => {}
                    _ => tokens.push(Token::Word(word)),
                }
            }
        }
    }
    Ok(tokens)
}

type Rest<'a> = Peekable<Chars<'a>>;

/// Takes one or two of the same character. Returns `token` if there are two.
fn doubled(rest: &mut Rest<'_>, token: Token) -> Option<Token> {
    let first = rest.next();
    rest.next_if(|next| Some(*next) == first).map(|_| token)
}

fn redirection() -> Unsupported {
    Unsupported::new("output redirections other than `>&2`")
}

fn to_stderr(rest: &mut Rest<'_>) -> Result<Token, Unsupported> {
    let is_next = ['>', '&', '2'].into_iter().all(|expected| rest.next_if_eq(&expected).is_some());
    if is_next { Ok(Token::ToStderr) } else { Err(redirection()) }
}

fn word(rest: &mut Rest<'_>) -> Result<Word, Unsupported> {
    let mut parts = Parts::default();
    while let Some(c) = rest.next_if(|c| !c.is_whitespace() && !";&|<>()".contains(*c)) {
        match c {
            '\'' => single_quoted(rest, &mut parts)?,
            '"' => double_quoted(rest, &mut parts)?,
            '\\' => parts.quoted(rest.next().map_or_else(String::new, String::from)),
            '$' => parts.0.push(variable(rest, false)?),
            '`' => return Err(command_substitution()),
            c => parts.plain(c),
        }
    }
    Ok(Word(parts.0))
}

/// The parts of a word. Neighbouring characters of the same kind become one part.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn plain(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Part::Plain(text)) => text.push(c),
            _ => self.0.push(Part::Plain(c.to_string())),
        }
    }

    fn quoted(&mut self, text: String) {
        self.0.push(Part::Quoted(text));
    }
}

fn single_quoted(rest: &mut Rest<'_>, parts: &mut Parts) -> Result<(), Unsupported> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('\'') => break,
            Some(c) => text.push(c),
            None => return Err(Unsupported::new("a quote that is not closed (`'`)")),
        }
    }
    parts.quoted(text);
    Ok(())
}

fn double_quoted(rest: &mut Rest<'_>, parts: &mut Parts) -> Result<(), Unsupported> {
    let mut text = String::new();
    let is_empty = rest.peek() == Some(&'"');
    loop {
        match rest.next() {
            Some('"') => break,
            Some('\\') => match rest.next_if(|c| "$`\"\\".contains(*c)) {
                Some(escaped) => text.push(escaped),
                None => text.push('\\'),
            },
            Some('$') => {
                if !text.is_empty() {
                    parts.quoted(std::mem::take(&mut text));
                }
                parts.0.push(variable(rest, true)?);
            }
            Some('`') => return Err(command_substitution()),
            Some(c) => text.push(c),
            None => return Err(Unsupported::new("a quote that is not closed (`\"`)")),
        }
    }
    if is_empty || !text.is_empty() {
        parts.quoted(text);
    }
    Ok(())
}

fn command_substitution() -> Unsupported {
    Unsupported::new("command substitution (`$(…)`)")
}

/// What follows a `$`.
fn variable(rest: &mut Rest<'_>, is_quoted: bool) -> Result<Part, Unsupported> {
    let name = match rest.peek().copied() {
        Some('{') => braced_name(rest)?,
        Some('(') => return Err(command_substitution()),
        Some('@') => {
            rest.next();
            return Ok(Part::Arguments);
        }
        Some(c @ ('#' | '!' | '-' | '*')) => return Err(Unsupported(format!("`${c}`"))),
        Some(c) if c == '$' || c == '?' || c.is_ascii_digit() => {
            rest.next();
            c.to_string()
        }
        Some(_) | None => {
            let mut name = String::new();
            while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                name.push(c);
            }
            name
        }
    };
    // A `$` that no name follows stands for itself.
    Ok(if name.is_empty() { Part::Quoted("$".into()) } else { Part::Variable { name, is_quoted } })
}

fn braced_name(rest: &mut Rest<'_>) -> Result<String, Unsupported> {
    rest.next();
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| *c != '}') {
        name.push(c);
    }
    rest.next();
    let is_number = !name.is_empty() && name.chars().all(|c| c.is_ascii_digit());
    if !is_name(&name) && !is_number {
        return Err(Unsupported(format!("`${{{name}}}`")));
    }
    Ok(name)
}
