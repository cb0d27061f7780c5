//! The JSON form of what the library hands out and takes: it comes back the same, and it is what `docs/schema` says. A
//! schema is written anew with `LONGSHORE_WRITE_SCHEMA=1`; then its diff is what is reviewed.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use longshore::{
    Cancel, CancelCause, ContainerId, ContainerSpec, Device, DeviceRights, Event, EventKind, ExecId,
    ExecSpec, Exit, ExitReason, ExitStatus, HostPid, IdMap, IdRange, KeepExited, Leftover, LeftoverKind,
    Mount, Network, Notice, OomKill, Pressure, ProcessId, Rootfs, Seccomp, Selinux, Signal, Snapshot,
    StartFailure, StartFailureKind, Stdio, StdioSpec, Swept, TerminalSize, Timestamp, Usage,
};
use longshore_tests::{on_stage, shell};
use proptest::prelude::*;
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The schema of a type, as it is in `docs/schema`.
fn schema<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

fn compare<T: JsonSchema>(name: &str) {
    let path = format!("{}/../docs/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = format!("{:#}\n", schema::<T>());
    if std::env::var_os("LONGSHORE_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, text, "docs/schema/{name}.json is not what the types are");
}

#[test]
fn the_schemas_in_docs_are_those_of_the_types() {
    compare::<ContainerSpec>("container-spec");
    compare::<ExecSpec>("exec-spec");
    compare::<Notice>("notice");
    compare::<Snapshot>("snapshot");
    compare::<Exit>("exit");
}

/// The events that documents show. One with an ellipsis is not whole.
#[test]
fn what_documents_show_is_what_is_published() {
    for file in ["README.md", "crates/longshore/src/guide/exits.md"] {
        let text = std::fs::read_to_string(format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let shown: Vec<_> =
            text.lines().filter(|line| line.contains("\"event\":") && !line.contains('…')).collect();
        assert!(!shown.is_empty(), "{file}");
        for line in shown {
            let event: Event = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&event).unwrap(), line, "{file}");
        }
    }
}

/// What is wrong with a value of this type as JSON.
fn against_schema<T: JsonSchema>(json: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema::<T>()).unwrap();
    validator.iter_errors(json).map(|error| error.to_string()).collect()
}

fn comes_back<T>(value: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + JsonSchema + PartialEq + Debug,
{
    let text = serde_json::to_string(value).unwrap();
    prop_assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{}", text);
    let wrong = against_schema::<T>(&serde_json::from_str(&text).unwrap());
    prop_assert!(wrong.is_empty(), "{}: {:?}", text, wrong);
    Ok(())
}

/// Up to 40 days, to the nanosecond.
fn span() -> impl Strategy<Value = Duration> {
    (0..3_456_000u64, 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

/// Up to the year 2100, to the nanosecond.
fn moment() -> impl Strategy<Value = Timestamp> {
    (0..4_102_444_800u64, 0..1_000_000_000u32)
        .prop_map(|(seconds, nanos)| Timestamp::from_epoch(Duration::new(seconds, nanos)))
}

fn id() -> impl Strategy<Value = ContainerId> {
    "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}".prop_map(|id| ContainerId::new(id).unwrap())
}

fn exec_id() -> impl Strategy<Value = ExecId> {
    (1..100u64).prop_map(ExecId::numbered)
}

fn signal() -> impl Strategy<Value = Signal> {
    (1..=64u8).prop_map(|number| Signal::new(number).unwrap())
}

fn cancel() -> impl Strategy<Value = Cancel> {
    (signal(), span()).prop_map(|(signal, grace)| Cancel::with_grace(grace).signal(signal))
}

fn reason() -> impl Strategy<Value = ExitReason> {
    let causes = [
        CancelCause::Requested,
        CancelCause::TimedOut,
        CancelCause::ContainerExited,
        CancelCause::Shutdown,
        CancelCause::Abandoned,
    ];
    let kinds =
        [StartFailureKind::NotFound, StartFailureKind::RuntimeTimedOut, StartFailureKind::NoResources];
    prop_oneof![
        Just(ExitReason::Normal),
        (prop::sample::select(causes.to_vec()), any::<bool>())
            .prop_map(|(cause, killed)| ExitReason::Cancelled { cause, killed }),
        any::<bool>().prop_map(|killed| ExitReason::TimedOut { killed }),
        Just(ExitReason::OutOfMemory),
        (prop::sample::select(kinds.to_vec()), ".{0,20}")
            .prop_map(|(kind, message)| ExitReason::StartFailed(StartFailure::new(kind, message))),
        Just(ExitReason::Lost),
    ]
}

fn usage() -> impl Strategy<Value = Option<Box<Usage>>> {
    let some = (prop::option::of(span()), prop::option::of(any::<u64>()), any::<u64>(), span());
    prop::option::of(some.prop_map(|(cpu, memory, oom_kills, stalled)| {
        let mut pressure = Pressure::default();
        pressure.io.get_or_insert_default().some = stalled;
        let pressure = Some(pressure);
        Box::new(Usage { cpu, cpu_user: cpu, memory, oom_kills, pressure, ..Usage::default() })
    }))
}

fn exit() -> impl Strategy<Value = Exit> {
    let status = prop_oneof![
        any::<u8>().prop_map(ExitStatus::Code),
        signal().prop_map(ExitStatus::Signal),
        Just(ExitStatus::Unknown)
    ];
    (status, reason(), prop::option::of(moment()), moment(), usage()).prop_map(
        |(status, reason, started_at, exited_at, usage)| {
            Exit::new(status, reason, &BTreeSet::from([3]), started_at, exited_at).with_usage(usage)
        },
    )
}

fn left() -> impl Strategy<Value = Vec<Leftover>> {
    let one = ".{1,12}"
        .prop_map(|path| Leftover::new(LeftoverKind::Mount, path, &std::io::Error::other("it is in use")));
    prop::collection::vec(one, 0..3)
}

fn kind() -> impl Strategy<Value = EventKind> {
    let pid = || (1..100_000u32).prop_map(|pid| HostPid::new(pid).unwrap());
    prop_oneof![
        Just(EventKind::Registered),
        pid().prop_map(|pid| EventKind::Created { pid }),
        pid().prop_map(|pid| EventKind::Started { pid }),
        exec_id().prop_map(|exec| EventKind::ExecAdded { exec }),
        (exec_id(), pid()).prop_map(|(exec, pid)| EventKind::ExecStarted { exec, pid }),
        (exec_id(), exit()).prop_map(|(exec, exit)| EventKind::ExecExited { exec, exit }),
        (
            prop::option::of(prop_oneof![Just(ProcessId::Init), exec_id().prop_map(ProcessId::Exec)]),
            prop::option::of(pid()),
            1..u64::MAX
        )
            .prop_map(|(process, pid, kills)| EventKind::OutOfMemory(
                OomKill::new(kills).of(process).pid(pid)
            )),
        Just(EventKind::Paused),
        Just(EventKind::Resumed),
        exit().prop_map(|exit| EventKind::Exited { exit }),
        left().prop_map(|left| EventKind::Released { left }),
    ]
}

fn notice() -> impl Strategy<Value = Notice> {
    prop_oneof![
        (1..1000u64, id(), moment(), kind())
            .prop_map(|(seq, id, at, kind)| Notice::Event(Event::new(seq, id, at, kind))),
        (id(), 0..9usize, left()).prop_map(|(id, killed, left)| Notice::Swept(Swept::new(
            String::from(id),
            killed,
            left
        ))),
        any::<u64>().prop_map(|missed| Notice::Gap { missed }),
    ]
}

fn stdio() -> impl Strategy<Value = Stdio> {
    prop_oneof![
        Just(Stdio::Null),
        Just(Stdio::Inherit),
        Just(Stdio::Pipe),
        (0..1_000_000usize).prop_map(|replay| Stdio::Shared { replay })
    ]
}

fn streams() -> impl Strategy<Value = StdioSpec> {
    (stdio(), stdio(), stdio()).prop_map(|(stdin, stdout, stderr)| StdioSpec { stdin, stdout, stderr })
}

fn rootfs() -> impl Strategy<Value = Rootfs> {
    prop_oneof![
        Just(Rootfs::Host),
        "/[a-z/]{0,9}".prop_map(|dir| Rootfs::Dir(dir.into())),
        prop::collection::vec("/[a-z]{1,9}", 1..4).prop_map(|dirs| Rootfs::Overlay {
            lower: dirs.into_iter().map(Into::into).collect(),
            upper: None
        })
    ]
}

fn spec() -> impl Strategy<Value = ContainerSpec> {
    let network = prop_oneof![
        Just(Network::None),
        Just(Network::Host),
        prop::option::of("[a-z]{1,9}").prop_map(|name| Network::Cni { name })
    ];
    let keep =
        prop_oneof![Just(KeepExited::No), Just(KeepExited::UntilRemoved), span().prop_map(KeepExited::For)];
    let limits =
        (prop::option::of(any::<u64>()), prop::option::of(0.01..64.0f64), prop::option::of(any::<u64>()));
    let process = (prop::collection::vec(".{1,9}", 1..4), "[A-Z]{1,9}", ".{0,9}", streams());
    (rootfs(), network, keep, limits, process, prop::option::of((span(), cancel())), prop::option::of(id()))
        .prop_map(|(rootfs, network, keep, (memory, cpus, pids), (args, name, value, stdio), limit, id)| {
            let mut spec = ContainerSpec::new(rootfs, args)
                .network(network)
                .keep_exited(keep)
                .env(&name, value)
                .label("build", name)
                .mount(Mount::bind_below("/a", "b", "/c").read_only())
                .mount(Mount::tmpfs("/t").option("size=1m"))
                .mount(Mount::file_system("mqueue", "mqueue", "/m"))
                .device(Device::node("/dev/disk/by-path/pci-0000:00:1f.2", DeviceRights::READ))
                .device(Device::cdi("vendor.com/gpu=0"));
            let range = IdRange { container: 0, host: 100_000, size: 65_536 };
            spec.id_map = Some(IdMap { uids: vec![range], gids: vec![range] });
            spec.dns.nameservers = vec!["127.0.0.9".parse().unwrap()];
            spec.seccomp = Some(Seccomp::Profile("/p.json".into()));
            spec.selinux = Some(Selinux::Generated);
            spec.telemetry.tracestate = Some("a=b".into());
            spec.id = id;
            spec.process.stdio = stdio;
            spec.process.terminal = Some(TerminalSize::default());
            spec.process.cap_add = vec!["NET_ADMIN".parse().unwrap()];
            spec.process.ulimits = vec!["nofile=64:unlimited".parse().unwrap()];
            spec.cgroup_parent = Some("/ci/jobs".parse().unwrap());
            spec.extra_hosts = vec!["db:10.0.0.7".parse().unwrap()];
            (spec.resources.memory, spec.resources.cpus, spec.resources.pids) = (memory, cpus, pids);
            spec.process.valid_exit_codes = BTreeSet::from([3, 4]);
            match limit {
                Some((after, cancel)) => spec.time_limit(after, cancel),
                None => spec,
            }
        })
}

fn exec_spec() -> impl Strategy<Value = ExecSpec> {
    (prop::collection::vec(".{1,9}", 1..4), ".{0,9}", prop::option::of(exec_id()), span(), cancel()).prop_map(
        |(args, value, id, after, cancel)| {
            let mut spec = ExecSpec::new(args).env("A", value).cwd("/").user("1:2").piped();
            spec.id = id;
            spec.time_limit(after, cancel)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn notices_come_back(notice in notice()) {
        comes_back(&notice)?;
    }

    #[test]
    fn exits_come_back(exit in exit()) {
        comes_back(&exit)?;
    }

    #[test]
    fn specifications_come_back(spec in spec()) {
        comes_back(&spec)?;
    }

    #[test]
    fn execs_come_back(spec in exec_spec()) {
        comes_back(&spec)?;
    }
}

#[test]
fn a_specification_needs_only_what_differs() {
    let read = |json: Value| serde_json::from_value::<ContainerSpec>(json);
    let spec = read(json!({"process": {"args": ["make"]}})).unwrap();
    assert_eq!(spec, ContainerSpec::host(["make"]));
    let spec = read(json!({
        "rootfs": {"dir": "/images/a"}, "resources": {"memory": 67_108_864},
        "process": {
            "args": ["make"], "env": ["CI=1"], "stdio": {"stdout": "pipe"},
            "time_limit": {"after": 1.5, "cancel": {"signal": "TERM", "grace": 5.0}},
        },
    }));
    let limit = Cancel::with_grace(Duration::from_secs(5));
    let expected =
        ContainerSpec::dir("/images/a", ["make"]).memory(64 << 20).env("CI", "1").stdout(Stdio::Pipe);
    assert_eq!(spec.unwrap(), expected.time_limit(Duration::from_millis(1500), limit));
    let cancel = |json: Value| serde_json::from_value::<Cancel>(json).unwrap();
    assert_eq!(cancel(json!({"grace": 60})), Cancel::with_grace(Duration::from_secs(60)));
    assert_eq!(cancel(json!({})), Cancel::now());
    let forever = ContainerSpec::host(["true"]).time_limit(Duration::MAX, Cancel::now());
    assert_eq!(read(serde_json::to_value(&forever).unwrap()).unwrap(), forever);
    for (wrong, why) in [
        (json!({"proces": {}}), "proces"),
        (json!({"process": {"env": ["CI"]}}), "NAME=value"),
        (json!({"resources": {"memory": -1}}), "-1"),
        (json!({"process": {"time_limit": {"after": -1.0}}}), "negative"),
        (json!({"id": "../x"}), "begins with"),
        (json!({"process": {"cap_add": ["EVERYTHING"]}}), "EVERYTHING"),
        (
            json!({"mounts": [{"source": {"bind": {"path": "/a", "selctor": "b"}}, "destination": "/b"}]}),
            "selctor",
        ),
        (json!({"rootfs": {"overlay": {"lower": ["/a"], "uper": null}}}), "uper"),
        (json!({"network": {"cni": {"nam": "a"}}}), "nam"),
        (json!({"process": {"stdio": {"stdout": {"shared": {"repay": 1}}}}}), "repay"),
        (json!({"process": {"time_limit": {"after": 1.0, "cancel": {"gracee": 5.0}}}}), "gracee"),
        (json!({"process": {"time_limit": {"after": 1.0, "cancle": {}}}}), "cancle"),
        (json!({"process": {"terminal": {"rows": 1, "columns": 1, "colums": 1}}}), "colums"),
        (json!({"devices": ["gpu"]}), "gpu"),
    ] {
        let error = read(wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn what_has_no_form_is_an_error() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let spec = ContainerSpec::host(["cat"]).stdin(file.into());
    assert!(serde_json::to_string(&spec).unwrap_err().to_string().contains("Fd"));
    let spec = ContainerSpec::host(["cat"]).mount(Mount::secret("password", "/s", 0o400, (0, 0)));
    let error = serde_json::to_string(&spec).unwrap_err().to_string();
    assert!(error.contains("Secret") && !error.contains("password"), "{error}");
}

/// What a container publishes on the real runtime, and how it stands, is what the schemas say.
#[test]
fn what_is_published_fits_the_schema() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut events = executor.events();
        let container = executor.run(shell("sleep 1; exit 3").label("build", "17")).await.unwrap();
        container.exec(ExecSpec::new(["true"])).await.unwrap();
        container.started().await.unwrap();
        let now = container.snapshot();
        let snapshot = serde_json::to_value(&now).unwrap();
        assert_eq!(serde_json::from_value::<Snapshot>(snapshot.clone()).unwrap(), now);
        assert_eq!(against_schema::<Snapshot>(&snapshot), Vec::<String>::new(), "{snapshot}");
        assert_eq!(snapshot["labels"], json!({"build": "17"}));
        let mut seen = Vec::new();
        while let Some(notice) = events.next().await {
            let json = serde_json::to_value(&notice).unwrap();
            assert_eq!(against_schema::<Notice>(&json), Vec::<String>::new(), "{json}");
            assert_eq!(serde_json::from_value::<Notice>(json.clone()).unwrap(), notice);
            seen.push(json["event"].as_str().unwrap().to_owned());
            if seen.last().is_some_and(|event| event == "released") {
                break;
            }
        }
        let expected =
            ["registered", "exec_added", "started", "exec_started", "exec_exited", "exited", "released"];
        let seen: BTreeSet<_> = seen.iter().map(String::as_str).collect();
        assert_eq!(seen, BTreeSet::from(expected));
        stage.finish(executor).await;
    });
}
