//! Properties of this crate's parsers for any input. `fuzz/` and the test below provide the input.

use std::path::{Component, Path};

use executor_core::lifecycle::ContainerId;
use executor_disk::mount_table::parse_mount;
use executor_programs::messages::{Record, Spawn};
use executor_programs::wire::{HEADER, Header, NONE, Reader, Writer};

use crate::oom::KillReader;
use crate::root::sweep::{parse_owner, parse_record};
use crate::{cgroup, journal, procfs};

/// A path within a cgroup hierarchy that leads nowhere else.
fn stays_inside(path: &str) -> bool {
    path.is_empty() || path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".")
}

/// The file of an executor in `executors`. What is removed for a line is below the hierarchy.
///
/// # Panics
/// When the property does not hold.
pub fn records(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        let Some((parent, made)) = parse_record(line) else { continue };
        assert!(stays_inside(parent), "{parent:?}");
        assert!(made.iter().all(|one| stays_inside(&one.topmost) && !one.topmost.is_empty()), "{line:?}");
        let mut written = parent.to_owned();
        for one in &made {
            written += &format!("\t{}\t{}", one.hierarchy, one.topmost);
        }
        assert_eq!(parse_record(&written), Some((parent, made)));
    }
}

/// The file `owner` of a container. Its cgroups are a directory of this container's and of this executor's.
///
/// # Panics
/// When the property does not hold.
#[expect(clippy::expect_used, reason = "the id is one")]
pub fn owner(bytes: &[u8]) {
    let id = ContainerId::new("container").expect("an id");
    let text = String::from_utf8_lossy(bytes);
    assert!(text.starts_with("executor") || parse_owner(&text, "executor", &id).is_none());
    if let Some(Some(place)) = parse_owner(&text, "executor", &id) {
        assert!(stays_inside(&place.path), "{place:?}");
        let ends = ["/longshore/executor/container", "/longshore-executor-container.scope"];
        assert!(ends.iter().any(|end| place.path.ends_with(end)), "{place:?}");
    }
}

/// A journal. Nothing is killed for an incomplete line, and the process that is looked at is the one of the line.
///
/// # Panics
/// When the property does not hold.
pub fn journal(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
        if let Some(pid) = journal::parse_line(line) {
            let own = line.trim_start().trim_start_matches(['+', '0']);
            assert!(line.ends_with('\n') && own.starts_with(&pid.to_string()), "{line:?}: {pid}");
        }
    }
}

/// A runtime's record of its init: runc's `state.json`, crun's `status`.
///
/// # Panics
/// When the property does not hold.
pub fn init(bytes: &[u8]) {
    let Some((pid, start)) = journal::parse_init(bytes) else { return };
    assert!(pid.get() > 0);
    for [pid_key, start_key] in [["init_process_pid", "init_process_start"], ["pid", "process-start-time"]] {
        let written = serde_json::json!({ pid_key: pid.get(), start_key: start });
        assert_eq!(journal::parse_init(written.to_string().as_bytes()), Some((pid, start)));
    }
}

/// `/proc/<pid>/stat`. A process decides on its name, and on nothing else that is read.
///
/// # Panics
/// When the property does not hold.
pub fn stat(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    if let Some(stat) = procfs::parse_stat(&name) {
        assert!(name.contains(&format!("({}) {}", stat.comm, stat.state)), "{name:?}: {stat:?}");
    }
    let line = format!("42 ({name}) S 7 41 40 0 -1 4 0 0 0 0 0 0 0 0 20 0 3 0 815 0 0\n");
    let Some(stat) = procfs::parse_stat(&line) else { panic!("{line:?}") };
    let read = (stat.state, stat.parent, stat.group, stat.session, stat.threads, stat.start);
    assert_eq!((read, &*stat.comm), (('S', 7, 41, 40, 3, 815), &*name));
    assert!(stat.is_ending());
}

/// `/proc/self/mountinfo`. Who mounts decides on the mount point, which the kernel escapes, and on nothing else.
///
/// # Panics
/// When the property does not hold.
pub fn mountinfo(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        drop(parse_mount(line));
    }
    let escape = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}"),
        byte if byte.is_ascii() => char::from(*byte).to_string(),
        // The kernel leaves these as they are. A `String` cannot have all of them.
        _ => "x".into(),
    };
    let point: String = bytes.iter().map(escape).collect();
    let line = format!("36 35 98:0 / /{point} rw master:1 - cgroup none rw,cpu");
    let Some(mount) = parse_mount(line.as_bytes()) else { panic!("{line:?}") };
    let expected = bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { 'x' });
    assert_eq!(mount.point.to_str(), Some(&*format!("/{}", expected.collect::<String>())));
    assert_eq!((&*mount.kind, &*mount.super_options), ("cgroup", "rw,cpu"));
}

/// Records of `/dev/kmsg`. A process chooses its name, and its cgroup below that of its container. Both decide nothing: the
/// pid is that of the kernel, and the cgroup begins with that of the container.
///
/// # Panics
/// When the property does not hold.
pub fn kernel_log(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut reader = KillReader::default();
    for record in text.split_inclusive('\n') {
        drop(reader.read(record));
    }
    let chosen: String = text.chars().filter(|char| !matches!(char, '\n' | ';')).collect();
    let record = format!(
        "6,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/c{chosen},task_memcg=/c{chosen},task={chosen},pid=812,uid=0\n"
    );
    drop(reader.read(&record));
    let record =
        format!("3,2,2000000,-;Memory cgroup out of memory: Killed process 812 ({chosen}) total-vm:1kB\n");
    let Some(kill) = reader.read(&record) else { panic!("{record:?}") };
    assert_eq!(kill.pid.get(), 812, "{record:?}");
    assert!(kill.cgroup.is_some_and(|cgroup| cgroup.starts_with("/c")), "{record:?}");
}

/// `/proc/<pid>/environ`. Only a whole entry is the variable, not a part of another one.
///
/// # Panics
/// When the property does not hold.
pub fn environ(bytes: &[u8]) {
    const VARIABLE: &str = "LONGSHORE_EXECUTOR=e";
    let ended = [&[0], bytes, &[0]].concat();
    let entry = [&[0], VARIABLE.as_bytes(), &[0]].concat();
    let has = ended.windows(entry.len()).any(|part| part == entry);
    assert_eq!(procfs::contains_variable(bytes, VARIABLE), has);
}

/// A runtime's `state.json`. Every directory that is taken from it is in our cgroups.
///
/// # Panics
/// When the property does not hold.
pub fn state(bytes: &[u8]) {
    let path = "/longshore/executor/container";
    for dir in cgroup::named_by(bytes, path) {
        assert!(dir.ends_with(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path))), "{dir:?}");
        assert!(dir.components().all(|part| part != Component::ParentDir), "{dir:?}");
    }
}

/// A message to a keeper. What is read of it is written as it was, and a `Spawn` that is not refused has every descriptor and every
/// text that it says it has.
///
/// # Panics
/// When the property does not hold.
pub fn keeper(bytes: &[u8]) {
    if let Some(header) = Header::parse(bytes) {
        assert_eq!(header.bytes()[..], bytes[..HEADER]);
    }
    let body = bytes.get(HEADER..).unwrap_or(bytes);
    if let Some(record) = Record::read(&mut Reader(body)) {
        let mut written = [0; Record::SIZE];
        record.write(&mut Writer::new(&mut written));
        assert_eq!(written[..], body[..Record::SIZE]);
    }
    for descriptors in [0, 1, 3, 253] {
        let Ok(spawn) = Spawn::parse(body, descriptors) else { continue };
        let is_there = |index| usize::try_from(index).is_ok_and(|index| index < descriptors);
        assert!(spawn.inherited().all(is_there) && (spawn.program == NONE || is_there(spawn.program)));
        let inherited = spawn.inherited().count();
        assert!((3..=253).contains(&inherited) && spawn.program_number() as usize >= inherited);
        let mut texts = Reader(spawn.texts);
        let count = std::iter::from_fn(|| texts.text()).filter(|text| text.last() == Some(&0)).count();
        assert_eq!(count as u64, u64::from(spawn.args) + u64::from(spawn.variables) + 1);
        assert!(texts.0.is_empty());
        let mut written = vec![0; spawn.size()];
        spawn.write(&mut Writer::new(&mut written));
        assert_eq!([&written, spawn.texts].concat(), body);
    }
}

#[cfg(test)]
mod tests {
    use executor_programs::messages::Spawn;
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = String> {
        let part =
            prop::sample::select(vec!["..", ".", "", "longshore", "executor", "container", "sys", "\u{e4}"]);
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn anything(bytes: Vec<u8>) {
            for property in [
                super::state,
                super::records,
                super::owner,
                super::journal,
                super::init,
                super::stat,
                super::mountinfo,
                super::environ,
                super::kernel_log,
                super::keeper,
            ] {
                property(&bytes);
            }
        }

        #[test]
        fn messages_to_a_keeper(
            numbers in prop::collection::vec(prop::sample::select(vec![0_u32, 1, 2, 3, 5, u32::MAX]), 10..16),
            texts in "(a|b=|\0){0,12}",
        ) {
            let numbers: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).collect();
            super::keeper(&[&[0; 24], &numbers[..], texts.as_bytes()].concat());
        }

        #[test]
        fn a_message_to_a_keeper_that_it_takes(args in 1_u32..5, variables in 0_u32..5, more in 0_u32..3) {
            let numbers = [u32::MAX, args, variables, 3, 0, 0, 0, 0, 0, 0, 2, 1, 0];
            let numbers: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).collect();
            let body = [numbers, vec![0; (1 + args + variables + more) as usize]].concat();
            super::keeper(&[&[0; 24], &body[..]].concat());
            prop_assert_eq!(Spawn::parse(&body, 3).is_ok(), more == 0);
            prop_assert!(Spawn::parse(&body, 2).is_err());
        }

        #[test]
        fn records_and_owners(text in "(executor\n)?(/|\\.\\.|/longshore|/executor|/container|ci|-|\t|\n|ci\\.slice:|:longshore:executor-container){0,12}\n?") {
            super::records(text.as_bytes());
            super::owner(text.as_bytes());
        }

        #[test]
        fn journals(text in "((0|1|42|4294967296|-1| |\n|x){0,5}\n?){0,4}") {
            super::journal(text.as_bytes());
        }

        #[test]
        fn inits(pid: u64, start: u64, runc: bool) {
            let [pid_key, start_key] =
                if runc { ["init_process_pid", "init_process_start"] } else { ["pid", "process-start-time"] };
            super::init(serde_json::json!({ pid_key: pid, start_key: start }).to_string().as_bytes());
        }

        #[test]
        fn processes(text in "(\\(|\\)| |\n|a|Z|1|\\) Z 1 1 1 ){0,8}") {
            super::stat(text.as_bytes());
        }

        #[test]
        fn mounts(text in "( |\t|\n|\\\\|040| - |/|cgroup|\u{e4}){0,8}") {
            super::mountinfo(text.as_bytes());
        }

        #[test]
        fn kernel_logs(text in "(6,1,1,-;|oom-kill:|oom_memcg=|,task_memcg=|/c|,task=|,pid=|,uid=|0|7|,global_oom|Killed process |\\(|\n){0,14}") {
            super::kernel_log(text.as_bytes());
        }

        #[test]
        fn environments(text in "(LONGSHORE_EXECUTOR=e|LONGSHORE_EXECUTOR=|e|\0|A=|\n){0,6}") {
            super::environ(text.as_bytes());
        }

        #[test]
        fn paths(paths in prop::collection::vec(path(), 0..4)) {
            let named: serde_json::Map<_, _> =
                paths.into_iter().enumerate().map(|(number, path)| (number.to_string(), path.into())).collect();
            super::state(serde_json::json!({ "cgroup_paths": named }).to_string().as_bytes());
        }
    }
}
