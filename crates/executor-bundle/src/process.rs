//! The `process` object of a configuration: of a container's init, and of a process that is added to one.

pub(crate) mod program;
pub(crate) mod users;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{StartFailure, TerminalSize};
use executor_core::{ContainerSpec, ExecSpec, IdMap, ProcessSpec};
use serde_json::{Value, json};

use crate::error::bad;
use crate::rootfs_dir::RootfsDir;
use crate::{capabilities, ids, json};
use program::Subject;
use users::User;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `process` object of init, once it is known that there is a program for it.
pub(crate) fn of_init(
    within: &RootfsDir,
    spec: &ContainerSpec,
    map: Option<&IdMap>,
    mounts: &[PathBuf],
) -> Result<Value, StartFailure> {
    let asked = &spec.process;
    let mut user = users::resolve(within, asked.user.as_deref())?;
    ids::check(&mut user, map)?;
    let process = process(spec, &user)?;
    check_program(within, &process, asked.args.first(), &user, map, mounts)?;
    Ok(process)
}

pub(crate) fn check_program(
    within: &RootfsDir,
    process: &Value,
    program: Option<&String>,
    user: &User,
    map: Option<&IdMap>,
    mounts: &[PathBuf],
) -> Result<(), StartFailure> {
    let entries = || process["env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let Some(path) = entries().rev().find_map(|entry| entry.strip_prefix("PATH=")) else {
        // The runtime has ideas of its own then.
        return Ok(());
    };
    let (uid, gid) = ids::on_the_host(map, user.uid, user.gid);
    let groups = user.groups.iter().map(|group| ids::on_the_host(map, 0, *group).1).collect();
    // Root stays root: what it may execute does not depend on whose it is.
    let user = User { uid: if user.uid == 0 { 0 } else { uid }, gid, groups, home: None };
    let cwd = Path::new(process["cwd"].as_str().unwrap_or("/"));
    program::check(within, &Subject { program: program.map(String::as_str), cwd, path, user: &user }, mounts)
}

/// The `process` object of a container's init.
pub(crate) fn process(spec: &ContainerSpec, user: &User) -> Result<Value, StartFailure> {
    if let Some(denied) =
        spec.process.cap_add.iter().find(|capability| !capabilities::is_ours_to_give(**capability))
    {
        return Err(bad("capability", &format!("{denied}: this process has none of it to give")));
    }
    let mut process = match &spec.config {
        Some(config) => config.json().get("process").cloned().unwrap_or_default(),
        None => default_process(spec),
    };
    let asked = &spec.process;
    match &spec.config {
        Some(config) => {
            process["env"] = json!(pairs(&asked.env).collect::<Vec<_>>());
            if asked.user != config.user() {
                process["user"] = user_object(user);
            }
            change_capabilities(&mut process, asked);
        }
        None => {
            process["env"] = json!(environment(&asked.env, user));
            process["user"] = user_object(user);
        }
    }
    process["args"] = json!(asked.args);
    process["cwd"] = json!(asked.cwd);
    set_terminal(&mut process, asked.terminal);
    if asked.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(score) = asked.oom_score_adj {
        process["oomScoreAdj"] = json!(score);
    }
    for limit in &asked.ulimits {
        let limits = json::list(&mut process, &["rlimits"])?;
        limits.retain(|other| other["type"] != limit.kind());
        limits.push(json!({"type": limit.kind(), "soft": limit.soft, "hard": limit.hard}));
    }
    Ok(process)
}

fn default_process(spec: &ContainerSpec) -> Value {
    let names: Vec<_> =
        capabilities::of(&spec.process, spec.security).iter().map(|capability| capability.name()).collect();
    json!({
        "capabilities": {
            "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [],
        },
        "noNewPrivileges": false,
    })
}

/// Of a configuration of the caller's.
fn change_capabilities(process: &mut Value, asked: &ProcessSpec) {
    if asked.cap_add.is_empty() && asked.cap_drop.is_empty() {
        return;
    }
    for set in ["bounding", "effective", "permitted"] {
        let before = process["capabilities"][set].as_array().cloned().unwrap_or_default();
        let mut names: BTreeSet<String> =
            before.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        names.extend(asked.cap_add.iter().map(|capability| capability.name().to_owned()));
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

/// The `process` object of an exec: the one of its container's init, with what it asks for in its place.
pub(crate) fn exec(mut process: Value, init: &ProcessSpec, exec: &ExecSpec, user: Option<&User>) -> Value {
    process["args"] = json!(exec.args);
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    let mut env: Vec<String> = process["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if let Some(user) = user {
        process["user"] = user_object(user);
        // The home of init's user is not this one's, unless somebody has said so.
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

/// The last value of a name counts.
pub(crate) fn set_variable(env: &mut Vec<String>, entry: String) {
    let name = entry.split_inclusive('=').next().unwrap_or_default();
    env.retain(|other| !other.starts_with(name));
    env.push(entry);
}

/// Defaults first, so that what is asked for replaces them.
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
        let init = process(&spec, &user(1, "/one")).unwrap();
        let mut asked = ExecSpec::new(["ls"]);
        asked.env = vec![("B".into(), "2".into())];
        asked.cwd = Some("/tmp".into());
        let same = exec(init.clone(), &spec.process, &asked, None);
        assert_eq!(
            (&same["args"], &same["cwd"], &same["user"]),
            (&json!(["ls"]), &json!("/tmp"), &init["user"])
        );
        assert_eq!(same["env"], json!([DEFAULT_PATH, "HOME=/one", "A=1", "B=2"]));
        assert_eq!((&same["noNewPrivileges"], &same["terminal"]), (&json!(true), &json!(false)));
        assert_eq!(same["capabilities"], init["capabilities"]);
        let other = exec(init.clone(), &spec.process, &ExecSpec::new(["ls"]), Some(&user(2, "/two")));
        assert_eq!((&other["user"]["uid"], &other["cwd"]), (&json!(2), &json!("/")));
        assert!(other["env"].as_array().unwrap().contains(&json!("HOME=/two")));
    }
}
