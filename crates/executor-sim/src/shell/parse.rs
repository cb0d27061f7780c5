//! From the text of a script to its commands.

use super::lex::{Token, tokens};
use super::syntax::{Command, List, Part, RunIf, Simple, Unsupported, Word, is_name};

/// Words that begin a command that the simulated shell does not have.
const OTHER_COMPOUNDS: [&str; 9] = ["if", "case", "until", "select", "function", "{", "!", "[[", "time"];

/// Words that belong to a command that has to begin before them.
const INNER_WORDS: [&str; 9] = ["do", "done", "then", "else", "elif", "fi", "esac", "}", "in"];

/// The commands of a script.
pub(super) fn parse(script: &str) -> Result<List, Unsupported> {
    let mut parser = Parser { tokens: tokens(script)?, at: 0 };
    parser.list(None)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn skip_ends(&mut self) {
        while self.peek() == Some(&Token::End) {
            self.at += 1;
        }
    }

    /// Whether the next token is this reserved word.
    fn is_at(&self, reserved: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if word.as_plain() == Some(reserved))
    }

    fn expect(&mut self, reserved: &str) -> Result<(), Unsupported> {
        self.skip_ends();
        if !self.is_at(reserved) {
            return Err(Unsupported(format!("a loop without `{reserved}`")));
        }
        self.at += 1;
        Ok(())
    }

    /// Commands up to the end of the script, or up to this reserved word.
    fn list(&mut self, until: Option<&str>) -> Result<List, Unsupported> {
        let mut list = List::new();
        let mut run_if = RunIf::Always;
        loop {
            self.skip_ends();
            if self.peek().is_none() || until.is_some_and(|reserved| self.is_at(reserved)) {
                return Ok(list);
            }
            list.push((run_if, self.command()?));
            run_if = match self.peek() {
                Some(Token::And) => RunIf::Succeeded,
                Some(Token::Or) => RunIf::Failed,
                Some(Token::End | Token::Background) | None => RunIf::Always,
                Some(Token::Word(_) | Token::ToStderr) => {
                    return Err(Unsupported::new("redirections and words after `done`"));
                }
            };
            self.at += 1;
        }
    }

    fn command(&mut self) -> Result<Command, Unsupported> {
        let first = match self.peek() {
            Some(Token::Word(word)) => word.as_plain().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let command = match first.as_str() {
            "for" => self.for_loop()?,
            "while" => self.while_loop()?,
            other if OTHER_COMPOUNDS.contains(&other) => return Err(Unsupported(format!("`{other}`"))),
            inner if INNER_WORDS.contains(&inner) => {
                return Err(Unsupported(format!("`{inner}` at the beginning of a command")));
            }
            _ => return self.simple().map(Command::Simple),
        };
        if self.peek() == Some(&Token::Background) {
            return Err(Unsupported::new("loops in the background (`done &`)"));
        }
        Ok(command)
    }

    fn for_loop(&mut self) -> Result<Command, Unsupported> {
        self.at += 1;
        let name = match self.next() {
            Some(Token::Word(word)) => word.as_plain().filter(|name| is_name(name)).map(str::to_owned),
            _ => None,
        };
        let name = name.ok_or_else(|| Unsupported::new("`for` without a variable"))?;
        let mut words = Vec::new();
        if self.is_at("in") {
            self.at += 1;
            while let Some(Token::Word(word)) = self.peek() {
                words.push(word.clone());
                self.at += 1;
            }
        } else {
            words.push(Word(vec![Part::Arguments]));
        }
        Ok(Command::For { name, words, body: self.body()? })
    }

    fn while_loop(&mut self) -> Result<Command, Unsupported> {
        self.at += 1;
        let condition = self.list(Some("do"))?;
        let is_endless = match condition.as_slice() {
            [(RunIf::Always, Command::Simple(Simple { words, .. }))] => {
                matches!(words.as_slice(), [word] if matches!(word.as_plain(), Some(":" | "true")))
            }
            _ => false,
        };
        if !is_endless {
            return Err(Unsupported::new("`while` with a condition other than `:` or `true`"));
        }
        Ok(Command::Forever(self.body()?))
    }

    /// `do LIST; done`
    fn body(&mut self) -> Result<List, Unsupported> {
        self.expect("do")?;
        let body = self.list(Some("done"))?;
        self.expect("done")?;
        Ok(body)
    }

    fn simple(&mut self) -> Result<Simple, Unsupported> {
        let mut simple = Simple::default();
        loop {
            match self.peek() {
                Some(Token::Word(word)) => simple.words.push(word.clone()),
                Some(Token::ToStderr) => simple.to_stderr = true,
                Some(Token::Background) => {
                    simple.in_background = true;
                    break;
                }
                Some(Token::End | Token::And | Token::Or) | None => break,
            }
            self.at += 1;
        }
        if simple == Simple::default() || simple.words.is_empty() && simple.in_background {
            return Err(Unsupported::new("an operator without a command"));
        }
        Ok(simple)
    }
}
