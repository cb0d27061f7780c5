//! Variables of the program: `--env` and `--env-file`.

use std::path::Path;

use longshore::runtime::{read_whole, without_mark};

use super::container::Process;
use crate::command::refused::Refused;

type Variable = (String, String);

impl Process {
    /// All of them. Later ones outweigh former ones of the same name, so those of files come first.
    pub(super) fn variables(&self) -> Result<Vec<Variable>, Refused> {
        let mut all = Vec::new();
        for file in &self.env_file {
            of_file(file, &mut all)?;
        }
        for entry in &self.env {
            all.extend(variable(entry).map_err(|why| Refused::Variable { entry: entry.clone(), why })?);
        }
        Ok(all)
    }
}

fn of_file(file: &Path, all: &mut Vec<Variable>) -> Result<(), Refused> {
    let refused = |line, why: String| Refused::EnvFile { file: file.to_owned(), line, why };
    let unreadable = |why: String| Refused::EnvFileUnreadable { file: file.to_owned(), why };
    let text = read_whole(file).map_err(|error| unreadable(error.to_string()))?;
    let text = str::from_utf8(without_mark(&text)).map_err(|_| refused(None, "it is not UTF-8".into()))?;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if !line.is_empty() && !line.starts_with('#') {
            all.extend(variable(line).map_err(|why| refused(Some(number), why.into()))?);
        }
    }
    Ok(())
}

/// `NAME=VALUE`, or the name of a variable that is passed on. `None` if that is not set.
fn variable(entry: &str) -> Result<Option<Variable>, &'static str> {
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (entry, None),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("that is no variable's name");
    }
    let value = match value {
        Some(value) => Some(value),
        None => match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err("its value here is not UTF-8"),
        },
    };
    Ok(value.map(|value| (name.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Variable>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut all = Vec::new();
        of_file(file.path(), &mut all).map_err(|refused| refused.to_string())?;
        Ok(all)
    }

    #[test]
    fn a_file_has_a_variable_on_each_line() {
        let all = read("\u{feff}# comment\n\nA=1\n  B=\"x y\" \nC=\nLONGSHORE_NOT_SET\nPATH\r\n").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let path = pair("PATH", &std::env::var("PATH").unwrap());
        assert_eq!(all, [pair("A", "1"), pair("B", "\"x y\" "), pair("C", ""), path]);
        assert_eq!(read("\u{feff}A=1\n").unwrap(), [pair("A", "1")]);
        for (text, line) in [("A=1\n=x\n", ":2: "), ("a b=1\n", ":1: ")] {
            let said = read(text).unwrap_err();
            assert!(said.contains(line), "{said}");
        }
    }

    #[test]
    fn a_variable_has_a_name() {
        assert!(variable("").is_err() && variable("=x").is_err());
        assert_eq!(variable("A=b=c").unwrap(), Some(("A".into(), "b=c".into())));
    }
}
