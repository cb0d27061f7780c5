//! Text from elsewhere, made harmless for a terminal: a specification, a container and a runtime may put anything into it.
//! The output of the program itself is its own, and is passed on as it is.

use std::fmt::Display;
use std::io;

use super::refused::Refused;
use super::relay::copy::write_all;

/// Says a sentence on stderr, and waits for a slow reader. If stderr is closed, full, or a terminal that is gone, the exit
/// code has to do.
pub(crate) fn say(sentence: impl Display) {
    // In one write, so that sentences of several commands do not mix.
    let line = format!("longshore: {}\n", plain(sentence));
    let _nobody_reads_it = write_all(&io::stderr(), line.as_bytes());
}

/// Says a text of ours on stderr, in the lines and colours that it has.
pub(crate) fn say_as_it_is(text: &str) {
    let _nobody_reads_it = write_all(&io::stderr(), text.as_bytes());
}

/// Prints a line, or several, of a command's answer.
///
/// # Errors
/// As [`answer`].
pub(crate) fn print(line: impl Display) -> Result<(), Refused> {
    answer(format!("{line}\n").as_bytes())
}

/// Writes a command's answer to stdout, and waits for a slow reader. A reader that has gone has read enough.
///
/// # Errors
/// If not all of it could be written.
pub(crate) fn answer(text: &[u8]) -> Result<(), Refused> {
    match write_all(&io::stdout(), text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Refused::Answer { why: error.to_string() })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A sentence in one line: what would move the cursor, change colours or reverse the text is escaped, as in `\u{1b}`.
pub(crate) fn plain(text: impl Display) -> String {
    escaped(&text.to_string(), char::is_control, |c| c.escape_default().to_string())
}

/// JSON, whose strings hold the same. Other control characters are escaped by the serializer, or are layout.
pub(crate) fn json(text: &str) -> String {
    let is_raw = |c: char| c.is_control() && !c.is_ascii_control() || c == '\u{7f}';
    escaped(text, is_raw, |c| format!("\\u{:04x}", u32::from(c)))
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match is_bad(character) || changes_order(character) {
            true => safe.push_str(&escape(character)),
            false => safe.push(character),
        }
    }
    safe
}

/// Whether a terminal may show what follows in another order, or on another line.
fn changes_order(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls() {
        assert_eq!(plain("a\u{1b}[2J\nb\u{9b}c\u{202e}é"), "a\\u{1b}[2J\\nb\\u{9b}c\\u{202e}é");
        let text = "\u{1b}\u{7f}\u{9b}\u{202e}\né";
        let written = serde_json::to_string_pretty(&[text]).unwrap();
        let safe = json(&written);
        assert_eq!(safe, "[\n  \"\\u001b\\u007f\\u009b\\u202e\\né\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&safe).unwrap(), [text], "its meaning is the same");
    }
}
