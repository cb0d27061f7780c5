//! Numbers in digits, and the files of `/proc`.

use core::ffi::CStr;

use crate::sys;

/// A short text that ends with a NUL.
pub struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Text {
    pub fn new(parts: &[&[u8]]) -> Self {
        let mut text = Self { bytes: [0; 64], len: 0 };
        for part in parts {
            // The last byte stays a NUL.
            for (place, byte) in text.bytes.iter_mut().take(63).skip(text.len).zip(*part) {
                *place = *byte;
                text.len += 1;
            }
        }
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// A number in digits.
pub fn digits(number: u64) -> Text {
    let mut reversed = [0; 20];
    let (mut rest, mut count) = (number, 0);
    for place in &mut reversed {
        *place = b'0' + (rest % 10) as u8;
        (rest, count) = (rest / 10, count + 1);
        if rest == 0 {
            break;
        }
    }
    let digits = reversed.get_mut(..count).unwrap_or_default();
    digits.reverse();
    Text::new(&[digits])
}

/// The number at the beginning of a text.
pub fn parse(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits
        .clone()
        .try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    number.filter(|_| digits.count() > 0)
}

/// When a process was started, in clock ticks, and its flags. It may be a zombie.
pub fn start_and_flags(pid: u32) -> Option<(u64, u64)> {
    let path = Text::new(&[b"/proc/", digits(u64::from(pid)).as_bytes(), b"/stat"]);
    let mut stat = [0; 512];
    let count = sys::read_file(path.as_c(), &mut stat).ok()?;
    let stat = stat.get(..count)?;
    // Its name is in parentheses, and can contain anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(end + 2..)?.split(|byte| *byte == b' ');
    let flags = parse(fields.nth(6)?)?;
    let start = parse(fields.nth(12)?)?;
    Some((start, flags))
}

/// This process's `oom_score_adj`, if it is negative.
pub fn oom_score() -> Option<u64> {
    let mut text = [0; 16];
    let count = sys::read_file(OOM_SCORE, &mut text).ok()?;
    parse(text.get(..count)?.strip_prefix(b"-")?)
}

pub const OOM_SCORE: &CStr = c"/proc/self/oom_score_adj";
