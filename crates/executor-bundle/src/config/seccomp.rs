//! The seccomp filter of a container, made from a profile in the format of containers-common for the container's
//! capabilities, the machine's architecture and its kernel.
//!
//! The default profile is that of containers-common, in `data/`. A rule of a profile may have conditions: it applies if
//! everything under `includes` holds and nothing under `excludes`. The runtime does not know such conditions, so they are
//! evaluated here.

mod errno;
mod foreign;
mod ours;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use executor_core::{Capability, KernelRelease, Seccomp, without_mark};
use executor_disk::read_regular;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use self::errno::{ErrnoName, named_or};
use crate::error::Error;

const DEFAULT: &str = include_str!("../../data/seccomp.json");

/// The names of this machine's architecture: Go's, which rules use, and libseccomp's.
const ARCHITECTURE: (&str, &str) = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
    b"aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
    b"riscv64" => ("riscv64", "SCMP_ARCH_RISCV64"),
    b"s390x" => ("s390x", "SCMP_ARCH_S390X"),
    b"powerpc64" => ("ppc64le", "SCMP_ARCH_PPC64LE"),
    _ => ("", ""),
};

/// A filter, as JSON text for `linux.seccomp`.
pub(crate) type Filter = Arc<RawValue>;

/// A profile in the format of containers-common, of docker, or of the runtime specification: they have most fields in common. A
/// field that is not known may forbid something, so it is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    default_errno: Option<ErrnoName>,
    /// By the machine's own architecture.
    #[serde(default)]
    arch_map: Option<Vec<Architecture>>,
    /// The architectures themselves.
    #[serde(default)]
    architectures: Option<Vec<String>>,
    /// Flags of seccomp(2), by their names in the runtime specification.
    #[serde(default)]
    flags: Option<Vec<String>>,
    /// A socket of whoever decides on calls with the action notify.
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// In older profiles, instead of `names`.
    #[serde(default)]
    name: Option<String>,
    action: Action,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    errno_ret: Option<u32>,
    #[serde(default)]
    errno: Option<ErrnoName>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
    /// For people.
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

/// What happens at a system call, as in the runtime specification.
#[derive(Clone, Copy, Deserialize, Serialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// A condition on an argument of a system call.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: Operator,
}

/// How an argument is compared, as in the runtime specification.
#[derive(Clone, Copy, Deserialize, Serialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Condition {
    arches: Vec<String>,
    caps: Vec<String>,
    min_kernel: Option<Least>,
}

/// The earliest kernel with which a rule applies, as in `5.12`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Least(KernelRelease);

impl TryFrom<String> for Least {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('.') {
            Some((major, minor)) if is_number(major) && is_number(minor) => {
                Ok(Self(KernelRelease::of(&text)))
            }
            Some(_) | None => {
                Err(format!("minKernel {text:?} is no release of Linux; give one such as 5.12"))
            }
        }
    }
}

/// What the conditions of a profile are evaluated against.
struct Machine<'a> {
    architecture: &'a str,
    kernel: KernelRelease,
    capabilities: &'a BTreeSet<Capability>,
}

impl Profile {
    /// Refuses what contradicts itself.
    fn check(&self) -> Result<(), String> {
        let has_any = |all: Option<usize>| all.is_some_and(|count| count > 0);
        let both = has_any(self.arch_map.as_ref().map(Vec::len))
            && has_any(self.architectures.as_ref().map(Vec::len));
        if both {
            return Err("it has architectures and archMap; give one of them".to_owned());
        }
        match self.syscalls.iter().find(|rule| rule.names.is_empty() == rule.name.is_none()) {
            Some(_) => Err("a rule needs either names or a name".to_owned()),
            None => Ok(()),
        }
    }

    /// The architectures of the filter, those that the kernel does not run left out of what the map has.
    fn architectures(&self) -> Vec<&String> {
        if let Some(named) = self.architectures.as_ref().filter(|named| !named.is_empty()) {
            return named.iter().collect();
        }
        let mut known = self.arch_map.iter().flatten();
        let Some(native) = known.find(|known| known.architecture == ARCHITECTURE.1) else {
            return Vec::new();
        };
        let foreign = native.sub_architectures.iter().flatten().filter(|foreign| foreign::may_run(foreign));
        [&native.architecture].into_iter().chain(foreign).collect()
    }
}

impl Rule {
    /// The rule without its conditions, in the form that the runtime takes.
    fn to_json(&self) -> Value {
        let names: Vec<_> = self.names.iter().chain(&self.name).collect();
        let mut syscall = json!({"names": names, "action": self.action});
        if let Some(args) = self.args.as_ref().filter(|args| !args.is_empty()) {
            syscall["args"] = json!(args);
        }
        if let Some(errno) = named_or(self.errno.as_ref(), self.errno_ret) {
            syscall["errnoRet"] = json!(errno);
        }
        syscall
    }
}

impl<'a> Machine<'a> {
    /// This machine, for processes with these capabilities.
    fn this(capabilities: &'a BTreeSet<Capability>) -> Self {
        Self { architecture: ARCHITECTURE.0, kernel: KernelRelease::running(), capabilities }
    }
}

impl Machine<'_> {
    fn has_all(&self, condition: &Condition) -> bool {
        let arches = &condition.arches;
        (arches.is_empty() || arches.iter().any(|arch| arch == self.architecture))
            && condition.caps.iter().all(|name| self.has_capability(name))
            && condition.min_kernel.as_ref().is_none_or(|least| self.kernel >= least.0)
    }

    fn has_any(&self, condition: &Condition) -> bool {
        condition.arches.iter().any(|arch| arch == self.architecture)
            || condition.caps.iter().any(|name| self.has_capability(name))
            || condition.min_kernel.as_ref().is_some_and(|least| self.kernel >= least.0)
    }

    fn has_capability(&self, name: &str) -> bool {
        self.capabilities.iter().any(|capability| capability.name() == name)
    }
}

/// The most bytes of a profile that are read. It is some ten KiB.
const LARGEST: u64 = 1 << 20;

/// The filter of a container whose processes may have these capabilities. `None` if it is unconfined. The default refuses
/// AF_VSOCK, unless the container has the host's network.
///
/// # Errors
/// If the profile cannot be read, or is not a profile.
pub(crate) fn filter(
    seccomp: &Seccomp,
    capabilities: &BTreeSet<Capability>,
    has_host_network: bool,
) -> Result<Option<Filter>, Error> {
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => default_filter(capabilities, has_host_network).map(Some),
        Seccomp::Profile(path) => {
            let text = read_regular(path, LARGEST).map_err(Error::file("seccomp", path))?;
            convert(&String::from_utf8_lossy(without_mark(&text)), capabilities)
                .map(Some)
                .map_err(no_profile(path.display()))
        }
    }
}

fn no_profile(what: impl Display) -> impl FnOnce(serde_json::Error) -> Error {
    move |source| Error::Content { field: "seccomp", subject: format!("{what} is not a profile"), source }
}

/// The filter of the default profile. It is cached for each set of capabilities, of which an executor sees few. The cache is
/// global: a filter depends on the machine and these arguments only, so every caller would make the same one.
fn default_filter(capabilities: &BTreeSet<Capability>, has_host_network: bool) -> Result<Filter, Error> {
    type Known = BTreeMap<(BTreeSet<Capability>, bool), Filter>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (capabilities.clone(), has_host_network);
    if let Some(filter) = known.get(&key) {
        return Ok(filter.clone());
    }
    let filter = convert_default(capabilities, has_host_network).map_err(no_profile("the default"))?;
    known.insert(key, filter.clone());
    Ok(filter)
}

fn convert(profile: &str, capabilities: &BTreeSet<Capability>) -> Result<Filter, serde_json::Error> {
    let profile: Profile = serde_json::from_str(profile)?;
    profile.check().map_err(serde_json::Error::custom)?;
    to_raw_value(&fitted(&profile, &Machine::this(capabilities))).map(Filter::from)
}

fn convert_default(
    capabilities: &BTreeSet<Capability>,
    has_host_network: bool,
) -> Result<Filter, serde_json::Error> {
    let machine = Machine::this(capabilities);
    let mut profile: Profile = serde_json::from_str(DEFAULT)?;
    if !machine.has_capability("CAP_SYS_ADMIN") {
        profile.refuse_cgroup_namespaces();
    }
    profile.decide_on_sockets(has_host_network, machine.has_capability("CAP_AUDIT_WRITE"));
    to_raw_value(&fitted(&profile, &machine)).map(Filter::from)
}

fn fitted(profile: &Profile, machine: &Machine<'_>) -> Value {
    let mut syscalls = Vec::new();
    for rule in &profile.syscalls {
        if machine.has_all(&rule.includes) && !machine.has_any(&rule.excludes) {
            // A rule for either of two capabilities is there twice if a container has both.
            let rule = rule.to_json();
            if !syscalls.contains(&rule) {
                syscalls.push(rule);
            }
        }
    }
    let mut filter = json!({
        "defaultAction": profile.default_action,
        "architectures": profile.architectures(),
        "syscalls": syscalls,
    });
    let optional = [
        ("defaultErrnoRet", json!(named_or(profile.default_errno.as_ref(), profile.default_errno_ret))),
        ("flags", json!(profile.flags)),
        ("listenerPath", json!(profile.listener_path)),
        ("listenerMetadata", json!(profile.listener_metadata)),
    ];
    for (name, value) in optional.into_iter().filter(|(_, value)| !value.is_null()) {
        filter[name] = value;
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::lifecycle::StartFailure;

    fn capabilities(names: &[&str]) -> BTreeSet<Capability> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn allowed(profile: &str, machine: &Machine<'_>) -> BTreeSet<String> {
        let filter = fitted(&serde_json::from_str(profile).unwrap(), machine);
        let rules = filter["syscalls"].as_array().unwrap().clone();
        let allowing = rules.into_iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
        let names = allowing.flat_map(|rule| rule["names"].as_array().unwrap().clone());
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_rule_applies_when_its_conditions_hold() {
        let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["always"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
            {"names": ["no-admin"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["no-arm"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.12"}}]}"#;
        let allowed = |architecture, kernel, names: &[&str]| {
            allowed(
                profile,
                &Machine {
                    architecture,
                    kernel: KernelRelease::of(kernel),
                    capabilities: &capabilities(names),
                },
            )
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(allowed("amd64", "5.4", &[]), set(&["always", "no-admin", "no-arm"]));
        assert_eq!(allowed("arm64", "6.1", &["SYS_ADMIN"]), set(&["always", "admin", "arm", "new"]));
        let both = set(&["always", "admin", "both", "no-arm", "new"]);
        assert_eq!(allowed("amd64", "5.12", &["SYS_ADMIN", "BPF"]), both);
    }

    #[test]
    fn the_default_profile_becomes_a_filter() {
        let filter = |names: &[&str]| {
            let filter = filter(&Seccomp::Default, &capabilities(names), false).unwrap().unwrap();
            serde_json::from_str::<Value>(filter.get()).unwrap()
        };
        let (plain, admin) = (filter(&[]), filter(&["SYS_ADMIN"]));
        assert_eq!(
            (&plain["defaultAction"], &plain["defaultErrnoRet"]),
            (&json!("SCMP_ACT_ERRNO"), &json!(38))
        );
        assert_eq!(plain["architectures"][0], ARCHITECTURE.1);
        let allows = |filter: &Value, name: &str| {
            let rules = filter["syscalls"].as_array().unwrap();
            let named = |rule: &&Value| rule["names"].as_array().unwrap().contains(&json!(name));
            rules.iter().filter(named).any(|rule| rule["action"] == "SCMP_ACT_ALLOW")
        };
        for (name, without, with) in [
            ("openat", true, true),
            ("futex_waitv", true, true),
            ("bpf", false, true),
            ("kexec_load", false, false),
        ] {
            assert_eq!((allows(&plain, name), allows(&admin, name)), (without, with), "{name}");
        }
        // Conditions on arguments are kept.
        let personality = |rule: &&Value| rule["names"] == json!(["personality"]);
        let rule = plain["syscalls"].as_array().unwrap().iter().find(personality).unwrap();
        assert_eq!((&rule["args"][0]["index"], &rule["args"][0]["op"]), (&json!(0), &json!("SCMP_CMP_EQ")));
    }

    #[test]
    fn no_field_is_dropped() {
        let of = |more: &str| {
            let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {more}}}"#);
            let filter = convert(&text, &BTreeSet::new()).map_err(|error| error.to_string())?;
            Ok::<Value, String>(serde_json::from_str(filter.get()).unwrap())
        };
        let taken = of(
            r#""architectures": ["SCMP_ARCH_ARM"], "flags": ["SECCOMP_FILTER_FLAG_LOG"], "defaultErrno": "ENOSYS",
            "defaultErrnoRet": 1, "listenerPath": "/s", "listenerMetadata": "m",
            "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ERRNO", "errno": "EACCES", "comment": "why"},
                {"name": "b", "action": "SCMP_ACT_ERRNO", "errno": "7", "includes": {"minKernel": "3.0"}},
                {"names": ["c"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "errno": "", "excludes": {"minKernel": "999.0"}}]"#,
        );
        let expected = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM"], "defaultErrnoRet": 38,
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/s", "listenerMetadata": "m", "syscalls": [
                {"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}, {"names": ["b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7},
                {"names": ["c"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]});
        assert_eq!(taken, Ok(expected));
        let map = format!(
            r#""archMap": [{{"architecture": "{}", "subArchitectures": ["SCMP_ARCH_ARM"]}}]"#,
            ARCHITECTURE.1
        );
        assert_eq!(of(&map).unwrap()["architectures"], json!([ARCHITECTURE.1, "SCMP_ARCH_ARM"]));
        for (wrong, why) in [
            (r#""flag": []"#, "unknown field `flag`"),
            (r#""architectures": ["SCMP_ARCH_ARM"], "archMap": [{"architecture": "x"}]"#, "give one of them"),
            (r#""archMap": [{"architecture": "x", "sub": []}]"#, "unknown field `sub`"),
            (
                r#""syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "priority": 1}]"#,
                "unknown field `priority`",
            ),
            (r#""syscalls": [{"action": "SCMP_ACT_LOG"}]"#, "either names or a name"),
            (r#""syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "errno": "ENONE"}]"#, "ENONE"),
            (
                r#""syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "includes": {"cap": []}}]"#,
                "unknown field `cap`",
            ),
            (
                r#""syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "excludes": {"minKernel": "new"}}]"#,
                "minKernel",
            ),
            (
                r#""syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ", "mask": 1}]}]"#,
                "unknown field `mask`",
            ),
        ] {
            assert!(of(wrong).is_err_and(|error| error.contains(why)), "{wrong}: {:?}", of(wrong));
        }
    }

    #[test]
    fn a_file_that_is_not_a_profile_is_refused() {
        let profile = |path: &str| {
            filter(&Seccomp::Profile(path.into()), &BTreeSet::new(), false)
                .map(drop)
                .map_err(StartFailure::from)
                .unwrap_err()
                .message
        };
        assert!(profile("/no/such/profile").starts_with("seccomp: /no/such/profile: "));
        assert!(profile("/etc/passwd").starts_with("seccomp: /etc/passwd is not a profile: "));
        let wrong = |text: &str| convert(text, &BTreeSet::new()).unwrap_err().to_string();
        assert!(wrong(r#"{"defaultAction": "SCMP_ACT_PERHAPS"}"#).contains("SCMP_ACT_PERHAPS"));
        let operator = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}]}"#;
        assert!(wrong(operator).contains("SCMP_CMP_LIKE"));
        assert!(filter(&Seccomp::Unconfined, &BTreeSet::new(), false).unwrap().is_none());
    }
}
