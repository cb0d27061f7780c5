//! The `process` object of a configuration, for a container's init and for an exec.

pub(crate) mod files;
pub(crate) mod program;
pub(crate) mod users;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use executor_core::lifecycle::TerminalSize;
use executor_core::{Capability, Config, ContainerSpec, ExecSpec, ProcessSpec, Security};
use executor_disk::Dir;
use serde_json::{Value, json};

use crate::capabilities::{self, Sets};
use crate::container_files::ContainerFiles;
use crate::error::Error;
use crate::ids::{Ids, Owner};
use crate::json::{list, strings};
use crate::rootfs_dir::RootfsDir;
use program::{Rights, Subject};
use users::User;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file in the bundle that holds the `process` object of init. The `process` object of an exec is made from it.
const FILE: &str = "process.json";

/// The most bytes of it that are read. The arguments and the environment of a process have 6 MiB at most.
const LIMIT: u64 = 64 << 20;

/// A container's first process.
pub(crate) struct Init {
    /// Its `process` object.
    pub(crate) json: Value,
    /// The capabilities that it may have at most.
    pub(crate) capabilities: BTreeSet<Capability>,
    /// Its user and group on the host.
    pub(crate) owner: Owner,
    pub(crate) user: User,
    pub(crate) cwd: PathBuf,
}

/// The init that the specification asks for. Its user is looked up in the root file system.
pub(crate) fn of_init(view: &RootfsDir, spec: &ContainerSpec, ids: &Ids) -> Result<Init, Error> {
    let user = users::resolve(view, spec.process.user.as_deref(), ids)?;
    let capabilities = capabilities::of(&spec.process, spec.security)?;
    let json = init(spec, &user, &capabilities)?;
    let owner = ids.on_the_host(user.uid, user.gid);
    Ok(Init { json, capabilities, owner, user, cwd: without_dots(&spec.process.cwd) })
}

/// A working directory without `.` and `..`, as docker has it: a name before `..` is left out, whatever is there. A runtime
/// would make the directories on the way that are missing.
fn without_dots(cwd: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in cwd.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    clean
}

/// Keeps the `process` object of init for [`exec`].
pub(crate) fn keep(dir: &Dir, process: &Value) -> Result<(), Error> {
    // The environment may hold secrets.
    let written = dir.write_new(FILE, process.to_string().as_bytes(), 0o600);
    written.map(drop).map_err(Error::io("write", &dir.path_of(FILE)))
}

/// The `process` object of an exec in the container whose bundle is in `dir`. `view` is the container's root file system.
pub(crate) fn exec(
    dir: &Dir,
    view: &RootfsDir,
    spec: &ContainerSpec,
    exec: &ExecSpec,
) -> Result<Value, Error> {
    let ids = Ids::of(spec);
    let kept = dir.read(FILE, LIMIT).map_err(Error::io("read", &dir.path_of(FILE)))?;
    let kept = serde_json::from_slice(&kept).map_err(|source| Error::Json { op: "read", source })?;
    let user = users::resolve(view, exec.user.as_deref().or(spec.process.user.as_deref()), &ids)?;
    let mut process = changed(kept, &spec.process, exec, exec.user.is_some().then_some(&user));
    if spec.config.is_none() && exec.user.is_some() {
        let all = capabilities::of(&spec.process, spec.security)?;
        process["capabilities"] = Sets::of(&all, &spec.process, spec.security, user.uid).to_json();
    }
    let program = exec.args.first().map(String::as_str);
    let found = check_program(&ContainerFiles::of_running(view), spec, program, &process, &user, &ids)?;
    if let Some(path) = found {
        process["args"][0] = json!(path);
    }
    Ok(process)
}

/// Fails if a program does not exist or cannot be executed by `process`. Returns its path if the runtime would try another
/// file than execvp(3).
pub(crate) fn check_program(
    seen: &ContainerFiles<'_>,
    spec: &ContainerSpec,
    program: Option<&str>,
    process: &Value,
    user: &User,
    ids: &Ids,
) -> Result<Option<PathBuf>, Error> {
    let variables: Vec<_> = strings(&process["env"]).collect();
    let path = variables.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    // Without a PATH, the runtime decides where it looks for the program.
    let (Some(program), Some(path)) = (program, path) else { return Ok(None) };
    let mut user = user.clone();
    let more = process["user"]["additionalGids"].as_array().into_iter().flatten();
    user.groups.extend(more.filter_map(|gid| u32::try_from(gid.as_u64()?).ok()));
    let cwd = Path::new(process["cwd"].as_str().unwrap_or("/"));
    let rights = rights(process, spec, user.uid, ids);
    program::check(seen, &Subject { program, cwd, path, user: &user.on_the_host(ids), rights })
}

/// What a process may execute and search beside what the modes of files allow.
fn rights(process: &Value, spec: &ContainerSpec, uid: u32, ids: &Ids) -> Rights {
    let sets = &process["capabilities"];
    if !sets.is_object() || uid == 0 && ids.map.is_some() {
        return Rights { overrides: true, searches: true };
    }
    // An ordinary user has what it is given, and not what root has by default.
    let is_given = |name: &str| {
        let asked = spec.process.cap_add.iter().any(|capability| capability.name() == name);
        uid == 0 || asked || spec.config.is_some() || spec.security == Security::Insecure
    };
    let has = |name: &str| {
        let in_set = |set: &str| strings(&sets[set]).any(|one| one == name);
        in_set("ambient") || is_given(name) && in_set("effective")
    };
    Rights { overrides: has("CAP_DAC_OVERRIDE"), searches: has("CAP_DAC_READ_SEARCH") }
}

/// The `process` object of a container's init.
pub(crate) fn init(
    spec: &ContainerSpec,
    user: &User,
    capabilities: &BTreeSet<Capability>,
) -> Result<Value, Error> {
    let asked = &spec.process;
    let mut process = match &spec.config {
        Some(config) => callers_init(config, asked, user),
        None => default_init(spec, user, capabilities),
    };
    process["args"] = json!(asked.args);
    process["cwd"] = json!(without_dots(&asked.cwd));
    set_terminal(&mut process, asked.terminal);
    if asked.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(score) = asked.oom_score_adj {
        process["oomScoreAdj"] = json!(score);
    }
    for limit in &asked.ulimits {
        let limits = list(&mut process, &["rlimits"])?;
        limits.retain(|other| other["type"] != limit.kind());
        limits.push(json!({"type": limit.kind(), "soft": limit.soft, "hard": limit.hard}));
    }
    Ok(process)
}

/// The `process` object in the caller's own configuration, with the user, environment and capabilities that the
/// specification asks for.
fn callers_init(config: &Config, asked: &ProcessSpec, user: &User) -> Value {
    let mut process = config.json().get("process").cloned().unwrap_or_default();
    process["env"] = json!(pairs(&asked.env).collect::<Vec<_>>());
    if asked.user != config.user() {
        process["user"] = user_object(user);
    }
    change_capabilities(&mut process, asked, user);
    process
}

fn default_init(spec: &ContainerSpec, user: &User, capabilities: &BTreeSet<Capability>) -> Value {
    json!({
        "capabilities": Sets::of(capabilities, &spec.process, spec.security, user.uid).to_json(),
        "noNewPrivileges": false,
        "env": environment(&spec.process.env, user),
        "user": user_object(user),
    })
}

/// Adds to what the caller's own configuration has, and takes from it. What is added must outlast the execution of the program, which
/// takes the inheritable and ambient sets for another user than root.
fn change_capabilities(process: &mut Value, asked: &ProcessSpec, user: &User) {
    if asked.cap_add.is_empty() && asked.cap_drop.is_empty() {
        return;
    }
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let mut names: BTreeSet<String> = strings(&process["capabilities"][set]).map(str::to_owned).collect();
        if user.uid != 0 || !["inheritable", "ambient"].contains(&set) {
            names.extend(asked.cap_add.iter().map(|capability| capability.name().to_owned()));
        }
        names.retain(|name| asked.cap_drop.iter().all(|dropped| dropped.name() != name));
        process["capabilities"][set] = json!(names);
    }
}

fn user_object(user: &User) -> Value {
    json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups})
}

fn set_terminal(process: &mut Value, terminal: Option<TerminalSize>) {
    process["terminal"] = json!(terminal.is_some());
    match terminal {
        Some(TerminalSize { rows, columns }) => {
            process["consoleSize"] = json!({"height": rows, "width": columns});
        }
        None => {
            process.as_object_mut().map(|process| process.remove("consoleSize"));
        }
    }
}

/// The `process` object of init, changed to what an exec asks for.
fn changed(mut process: Value, init: &ProcessSpec, exec: &ExecSpec, user: Option<&User>) -> Value {
    process["args"] = json!(exec.args);
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    let mut env: Vec<String> = strings(&process["env"]).map(str::to_owned).collect();
    if let Some(user) = user {
        process["user"] = user_object(user);
        // This user has another home than init's, unless the specification sets HOME itself.
        if init.env.iter().all(|(key, _)| key != "HOME") {
            set_variable(&mut env, format!("HOME={}", home(user)));
        }
    }
    pairs(&exec.env).for_each(|entry| set_variable(&mut env, entry));
    process["env"] = json!(env);
    set_terminal(&mut process, exec.terminal);
    process
}

fn pairs(env: &[(String, String)]) -> impl Iterator<Item = String> {
    env.iter().map(|(key, value)| format!("{key}={value}"))
}

fn home(user: &User) -> &str {
    user.home.as_deref().unwrap_or(if user.uid == 0 { "/root" } else { "/" })
}

/// Sets a variable, given as `NAME=value`. An earlier value is removed.
fn set_variable(env: &mut Vec<String>, entry: String) {
    let name = entry.split_inclusive('=').next().unwrap_or_default();
    env.retain(|other| !other.starts_with(name));
    env.push(entry);
}

/// Defaults come first, so that the specification's variables replace them.
fn environment(env: &[(String, String)], user: &User) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let defaults = [DEFAULT_PATH.to_owned(), format!("HOME={}", home(user))];
    defaults.into_iter().chain(pairs(env)).for_each(|entry| set_variable(&mut all, entry));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_starts_from_the_containers_settings() {
        let mut spec = ContainerSpec::host(["init"]);
        spec.process.env = vec![("A".into(), "1".into()), ("B".into(), "1".into())];
        spec.process.no_new_privileges = true;
        spec.process.terminal = Some(TerminalSize::default());
        let user = |uid, home: &str| User { uid, gid: uid, groups: [uid].into(), home: Some(home.into()) };
        let capabilities = capabilities::of(&spec.process, spec.security).unwrap();
        let init = init(&spec, &user(1, "/one"), &capabilities).unwrap();
        let mut asked = ExecSpec::new(["ls"]);
        asked.env = vec![("B".into(), "2".into())];
        asked.cwd = Some("/tmp".into());
        let same = changed(init.clone(), &spec.process, &asked, None);
        assert_eq!(
            (&same["args"], &same["cwd"], &same["user"]),
            (&json!(["ls"]), &json!("/tmp"), &init["user"])
        );
        assert_eq!(same["env"], json!([DEFAULT_PATH, "HOME=/one", "A=1", "B=2"]));
        assert_eq!((&same["noNewPrivileges"], &same["terminal"]), (&json!(true), &json!(false)));
        assert_eq!(same["capabilities"], init["capabilities"]);
        let other = changed(init.clone(), &spec.process, &ExecSpec::new(["ls"]), Some(&user(2, "/two")));
        assert_eq!((&other["user"]["uid"], &other["cwd"]), (&json!(2), &json!("/")));
        assert!(other["env"].as_array().unwrap().contains(&json!("HOME=/two")));
    }
}
