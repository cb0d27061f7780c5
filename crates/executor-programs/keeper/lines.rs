//! The lines of a log file, as docker's `json-file` and as Kubernetes has them.

use crate::text::{Text, digits};
use crate::wire::Writer;

/// The form of a log file: the bytes as they are.
pub const RAW: u32 = 0;
/// `2016-10-06T00:17:09.669794202Z stdout F text`; `P` if the line goes on in the next one. Any other form is
/// `{"log":"text\n","stream":"stdout","time":"2016-10-06T00:17:09.669794202Z"}`.
pub const CRI: u32 = 2;

/// A longer line is written in parts.
pub const LONGEST: usize = 16 << 10;

/// The most bytes that a part becomes: each byte six, and what is around it.
pub const MOST: usize = 6 * LONGEST + 256;

/// The first part of some bytes that is written as a line of the file: up to a newline, or as much as a part may have. `None` if
/// the line is not complete and more of it may come.
pub fn first_part(bytes: &[u8], is_all: bool) -> Option<&[u8]> {
    if let Some(end) = bytes.iter().take(LONGEST).position(|byte| *byte == b'\n') {
        return bytes.get(..=end);
    }
    if bytes.len() < LONGEST {
        return Some(bytes).filter(|bytes| is_all && !bytes.is_empty());
    }
    // A character is in one part.
    let is_inside = |end: &usize| bytes.get(*end).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (LONGEST - 3..=LONGEST).rev().find(|end| !is_inside(end)).unwrap_or(LONGEST);
    bytes.get(..end)
}

/// Writes a part as a line of the file.
pub fn write(form: u32, stream: u32, part: &[u8], is_last: bool, now: u64, out: &mut Writer<'_>) {
    let stream: &[u8] = if stream == 2 { b"stderr" } else { b"stdout" };
    let time = time(now);
    if form == CRI {
        let text = part.strip_suffix(b"\n");
        let tag: &[u8] = if text.is_some() || is_last { b" F " } else { b" P " };
        for bytes in [time.as_bytes(), b" ", stream, tag, text.unwrap_or(part), b"\n"] {
            out.bytes(bytes);
        }
        return;
    }
    out.bytes(b"{\"log\":\"");
    for chunk in part.utf8_chunks() {
        chunk.valid().bytes().for_each(|byte| escape(byte, out));
        if !chunk.invalid().is_empty() {
            out.bytes("\u{fffd}".as_bytes());
        }
    }
    for bytes in [b"\",\"stream\":\"", stream, b"\",\"time\":\"", time.as_bytes(), b"\"}\n"] {
        out.bytes(bytes);
    }
}

fn escape(byte: u8, out: &mut Writer<'_>) {
    match byte {
        b'"' => out.bytes(b"\\\""),
        b'\\' => out.bytes(b"\\\\"),
        b'\n' => out.bytes(b"\\n"),
        b'\r' => out.bytes(b"\\r"),
        b'\t' => out.bytes(b"\\t"),
        0..0x20 | 0x7f => {
            let digit = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            out.bytes(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        byte => out.bytes(&[byte]),
    }
}

/// A moment, in nanoseconds since 1970, as RFC 3339 has it.
fn time(now: u64) -> Text {
    let (seconds, nanos) = (now / 1_000_000_000, now % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin with March here, so that a leap day is the last one. 1970 is in the fifth era of 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let padded = |number: u64, width: u64| digits(number + 10_u64.pow(width as u32));
    let [year, month, day] = [(400 * era + year + next, 4), (month, 2), (day, 2)].map(|(n, w)| padded(n, w));
    let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60].map(|n| padded(n, 2));
    let nanos = padded(nanos, 9);
    // The first digit is there for the zeros that follow it.
    let [year, month, day] = [&year, &month, &day].map(after_first);
    let [hour, minute, second, nanos] = [&hour, &minute, &second, &nanos].map(after_first);
    Text::new(&[year, b"-", month, b"-", day, b"T", hour, b":", minute, b":", second, b".", nanos, b"Z"])
}

fn after_first(text: &Text) -> &[u8] {
    text.as_bytes().get(1..).unwrap_or_default()
}
