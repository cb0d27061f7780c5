//! Numbers, sizes and times, and limits that may be none.

use std::time::Duration;

/// A limit as it is typed: -1, 0 and `unlimited` are none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit<T> {
    Unlimited,
    At(T),
}

impl<T> Limit<T> {
    /// The limit that is given, or the former one, where an absent field is no limit.
    pub(super) fn over(given: Option<Self>, before: Option<T>) -> Option<T> {
        match given {
            Some(Self::At(limit)) => Some(limit),
            Some(Self::Unlimited) => None,
            None => before,
        }
    }
}

impl Limit<u64> {
    /// The same, where `u64::MAX` is no limit, because an absent field has a default.
    pub(super) fn over_default(given: Option<Self>, before: Option<u64>) -> Option<u64> {
        if given == Some(Self::Unlimited) { Some(u64::MAX) } else { Self::over(given, before) }
    }
}

fn limit<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    match text {
        "-1" | "0" | "unlimited" => Ok(Limit::Unlimited),
        _ => read(text).map(Limit::At).map_err(|why| format!("{why}; -1 is no limit")),
    }
}

pub(super) fn limit_of_size(text: &str) -> Result<Limit<u64>, String> {
    limit(text, size)
}

pub(super) fn limit_of_number(text: &str) -> Result<Limit<u64>, String> {
    limit(text, |text| text.parse().map_err(|_| "give a number".into()))
}

pub(super) fn limit_of_cpus(text: &str) -> Result<Limit<f64>, String> {
    limit(text, |text| text.parse().map_err(|_| "give a number of CPUs such as 0.5".into()))
}

/// Bytes, or with k, m, g or t for powers of 1024. With a unit, there may be a fraction.
pub(super) fn size(text: &str) -> Result<u64, String> {
    bytes(text).ok_or_else(|| "give a size such as 64m, 1.5g or a number of bytes".into())
}

fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let unit = number.chars().last().and_then(|unit| "kmgt".find(unit));
    let Some(unit) = unit else { return number.parse().ok() };
    let number = number.get(..number.len() - 1)?;
    let shift = 10 * (1 + unit);
    let Some((whole, fraction)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(1 << shift);
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits would be less than a byte.
    if !digits(fraction) || fraction.len() > 15 {
        return None;
    }
    let tenths = u128::from(fraction.parse::<u64>().ok()?) << shift;
    let part = u64::try_from(tenths / 10_u128.pow(u32::try_from(fraction.len()).ok()?)).ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1 << shift)?.checked_add(part)
}

/// A number of seconds, or with units.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| "give a time such as 500ms, 30s or 2m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("1GiB", 1 << 30),
            ("512", 512),
            ("2k", 2048),
            ("1gb", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.1k", 102),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "m", "-1", "1.5", "1.g", ".5g", "1.5.5g", "1.-5g", "99999999999t", "99999999999.5t", "1x"]
        {
            assert!(size(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("-1").is_err() && duration("soon").is_err());
    }

    #[test]
    fn no_limit_has_three_names() {
        for none in ["-1", "0", "unlimited"] {
            assert_eq!(limit_of_size(none), Ok(Limit::Unlimited));
            assert_eq!(limit_of_number(none), Ok(Limit::Unlimited));
            assert_eq!(limit_of_cpus(none), Ok(Limit::Unlimited));
        }
        assert_eq!(limit_of_number("7"), Ok(Limit::At(7)));
        for bad in ["-2", "many", ""] {
            assert!(limit_of_number(bad).is_err() && limit_of_size(bad).is_err(), "{bad:?} was taken");
        }
        let at = Some(Limit::At(5));
        assert_eq!((Limit::over(at, Some(6)), Limit::over(None, Some(6))), (Some(5), Some(6)));
        let none = Some(Limit::Unlimited);
        assert_eq!((Limit::over(none, Some(6)), Limit::over_default(none, Some(6))), (None, Some(u64::MAX)));
    }
}
