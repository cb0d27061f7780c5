//! Known vulnerabilities of runtimes, by the version that the runtime reports.
//!
//! Listed are those by which a container gets at the host through the runtime, with a configuration as Longshore writes
//! it. `docs/security.md` has these and others, each with what Longshore does about it.

use std::fmt;

/// A vulnerability of a runtime that a later version has fixed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownVulnerability {
    /// Its name, as in `CVE-2024-21626`.
    pub cve: &'static str,
    /// The versions in which it was fixed, one for each series that got a fix.
    pub fixed_in: &'static [&'static str],
}

impl fmt::Display for KnownVulnerability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (fixed in {})", self.cve, self.fixed_in.join(", "))
    }
}

/// Runtime, first version that has it, name, fixes.
type Entry = (&'static str, &'static str, &'static str, &'static [&'static str]);

const NOVEMBER_2025: &[&str] = &["1.2.8", "1.3.3", "1.4.0-rc.3"];

const KNOWN: [Entry; 11] = [
    ("runc", "0", "CVE-2019-5736", &["1.0.0-rc7"]),
    ("runc", "0", "CVE-2019-19921", &["1.0.0-rc10"]),
    ("runc", "0", "CVE-2021-30465", &["1.0.0-rc95"]),
    ("runc", "1.0.0-rc95", "CVE-2023-27561", &["1.1.5"]),
    ("runc", "1.0.0-rc93", "CVE-2024-21626", &["1.1.12"]),
    ("runc", "0", "CVE-2024-45310", &["1.1.14", "1.2.0-rc.3"]),
    ("runc", "0", "CVE-2025-31133", NOVEMBER_2025),
    ("runc", "1.0.0-rc3", "CVE-2025-52565", NOVEMBER_2025),
    ("runc", "0", "CVE-2025-52881", NOVEMBER_2025),
    ("crun", "0", "CVE-2019-18837", &["0.10.5"]),
    ("youki", "0", "CVE-2025-62161, CVE-2025-62596", &["0.5.7"]),
];

/// The vulnerabilities that a runtime of this version has, unless a distribution has fixed them without a new version.
/// `version` is the first line of `--version`, as in `runc version 1.1.5`; see
/// [`CommandLine::version`](crate::CommandLine::version). Of a runtime or a version that is not known, none is known.
pub fn known_vulnerabilities(version: &str) -> Vec<KnownVulnerability> {
    let mut words = version.split_whitespace();
    let name = words.next().unwrap_or_default();
    let Some(version) = words.find_map(Version::parse) else { return Vec::new() };
    let has = |(runtime, since, _, fixed_in): &Entry| {
        *runtime == name
            && Version::parse(since).is_some_and(|since| since <= version)
            && !is_fixed(version, fixed_in)
    };
    KNOWN.into_iter().filter(has).map(|(_, _, cve, fixed_in)| KnownVulnerability { cve, fixed_in }).collect()
}

/// A series has a fix of its own, or is later than every series that needed one.
fn is_fixed(version: Version, fixed_in: &[&str]) -> bool {
    let fixes = || fixed_in.iter().filter_map(|fix| Version::parse(fix));
    fixes().any(|fix| fix.series() == version.series() && fix <= version)
        || fixes().all(|fix| fix.series() < version.series())
}

/// The last field is the number of a release candidate, or `u32::MAX` for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32, u32);

impl Version {
    /// Parses a version as runtimes report it: `1.1.12`, `1.0.0-rc95`, `1.4.0-rc.3+dev`, `1.1.12-0ubuntu2~22.04.1`,
    /// `1.8`. What follows the numbers is a distribution's, unless it begins with `-rc`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('v');
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (numbers, rest) = text.split_at_checked(end)?;
        let mut numbers = numbers.trim_end_matches('.').split('.').map(|number| number.parse::<u32>().ok());
        let major = numbers.next()??;
        let (minor, patch) = (numbers.next().unwrap_or(Some(0))?, numbers.next().unwrap_or(Some(0))?);
        let candidate = rest.strip_prefix("-rc").or_else(|| rest.strip_prefix("~rc")).map(|rest| {
            let rest = rest.trim_start_matches('.');
            let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
            digits.parse().unwrap_or(0)
        });
        Some(Self(major, minor, patch, candidate.unwrap_or(u32::MAX)))
    }

    const fn series(self) -> (u32, u32) {
        (self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(version: &str) -> Vec<&'static str> {
        known_vulnerabilities(version).into_iter().map(|known| known.cve).collect()
    }

    const LATEST: [&str; 3] = ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"];

    #[test]
    fn versions_are_ordered_as_they_were_released() {
        let released = [
            "0.1.1",
            "1.0.0-rc9",
            "1.0.0-rc10",
            "1.0.0-rc95",
            "1.0.0",
            "1.1.5+ds1",
            "1.1.12-0ubuntu2~22.04.1",
            "1.2.0-rc.1",
            "1.2.0~rc1+ds1",
            "1.2.0-rc.3+dev",
            "1.2",
            "v1.2.8",
            "1.10.0",
        ];
        let versions = released.map(|version| Version::parse(version).unwrap());
        assert!(versions.is_sorted(), "{versions:?}");
        for other in ["", "version", "-rc1", "1.x.", "unknown", "99999999999.0", ".1"] {
            let parsed = Version::parse(other);
            assert!(parsed.is_none() || other == "1.x.", "{other:?}: {parsed:?}");
        }
    }

    #[test]
    fn a_version_has_what_it_was_not_fixed_for() {
        let all_of_1_1_5 = [&["CVE-2024-21626", "CVE-2024-45310"], &LATEST[..]].concat();
        assert_eq!(named("runc version 1.1.5+ds1"), all_of_1_1_5);
        assert_eq!(
            named("runc version 1.1.12-0ubuntu2~22.04.1"),
            [&["CVE-2024-45310"], &LATEST[..]].concat()
        );
        assert_eq!(named("runc version 1.1.15"), LATEST);
        assert_eq!(named("runc version 1.2.7"), LATEST);
        assert_eq!(named("runc version 1.3.0-rc.1"), LATEST);
        assert_eq!(named("runc version 1.4.0-rc.2"), LATEST);
        for fixed in ["1.2.8", "1.3.3", "1.3.10", "1.4.0-rc.3", "1.4.0", "1.5.0-rc.1", "2.0.0"] {
            assert_eq!(named(&format!("runc version {fixed}")), [""; 0], "{fixed}");
        }
        assert!(named("runc version 1.0.0-rc6").contains(&"CVE-2019-5736"));
        assert!(!named("runc version 1.0.0-rc6").contains(&"CVE-2024-21626"), "it came with rc93");
        assert!(!named("runc version 1.0.0-rc8").contains(&"CVE-2019-5736"));
    }

    #[test]
    fn other_runtimes_have_their_own() {
        assert_eq!(named("crun version 1.8.1"), [""; 0]);
        assert_eq!(named("crun version 0.10.4"), ["CVE-2019-18837"]);
        assert_eq!(named("youki version 0.5.6"), ["CVE-2025-62161, CVE-2025-62596"]);
        assert_eq!(named("youki version 0.5.7"), [""; 0]);
        for unknown in ["", "runc", "runc version unknown", "runsc version release-20240101.0", "true 0.1"] {
            assert_eq!(named(unknown), [""; 0], "{unknown}");
        }
    }

    #[test]
    fn each_entry_can_be_read() {
        for (_, since, cve, fixed_in) in KNOWN {
            assert!(Version::parse(since).is_some() && cve.starts_with("CVE-") && !fixed_in.is_empty());
            assert!(fixed_in.iter().all(|fix| Version::parse(fix).is_some()), "{cve}");
        }
    }
}
