//! A driver on a caller's own [`OciRuntime`], which wraps the command line.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, Signal, StartFailure};
use executor_core::{
    BoxFuture, ChildStdio, ContainerSpec, ExecSpec, NetworkAttachment, NetworkNamespace, NetworkTraits,
    Resources, Runtime,
};
use futures::{FutureExt, future};
use runc_driver::{
    Bundles, CommandLine, DriverResult, Launch, OciFeatures, OciRuntime, OciState, Place, Runc, RuntimeCall,
};

struct Empty;

impl Bundles for Empty {
    fn network(&self, _: &ContainerSpec) -> NetworkTraits {
        NetworkTraits::default()
    }

    fn attach(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
    ) -> std::result::Result<NetworkAttachment, StartFailure> {
        Ok(NetworkNamespace::Host.into())
    }

    fn write(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
        _: &NetworkAttachment,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        Ok(b"{}".into())
    }

    fn process(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
        _: HostPid,
        _: &ExecSpec,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        Ok(b"{}".into())
    }

    fn unmake(&self, _: &Place<'_>) -> Vec<Leftover> {
        Vec::new()
    }
}

/// Records the calls, and does not let `pause` reach the runtime.
struct Recording {
    inner: CommandLine,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Recording {
    fn record(&self, call: &str) -> &dyn OciRuntime {
        self.calls.lock().unwrap().push(call.to_owned());
        &self.inner
    }
}

impl OciRuntime for Recording {
    fn name(&self) -> String {
        "recording".to_owned()
    }

    fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, DriverResult<RuntimeCall>> {
        self.record("create").create(id, bundle, launch, stdio)
    }

    fn start(&self, id: &ContainerId) -> BoxFuture<'static, DriverResult<()>> {
        self.record("start").start(id)
    }

    fn run(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, DriverResult<RuntimeCall>> {
        self.record("run").run(id, bundle, launch, stdio)
    }

    fn exec(
        &self,
        id: &ContainerId,
        process: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, DriverResult<RuntimeCall>> {
        self.record("exec").exec(id, process, launch, stdio)
    }

    fn state(&self, id: &ContainerId) -> BoxFuture<'static, DriverResult<OciState>> {
        self.record("state").state(id)
    }

    fn kill(&self, id: &ContainerId, signal: Signal) -> BoxFuture<'static, DriverResult<()>> {
        self.record("kill").kill(id, signal)
    }

    fn delete(&self, id: &ContainerId) -> BoxFuture<'static, DriverResult<()>> {
        self.record("delete").delete(id)
    }

    fn pause(&self, _: &ContainerId) -> BoxFuture<'static, DriverResult<()>> {
        self.record("pause");
        future::ready(Ok(())).boxed()
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, DriverResult<()>> {
        self.record("resume").resume(id)
    }

    fn update(&self, id: &ContainerId, resources: &Resources) -> BoxFuture<'static, DriverResult<()>> {
        self.record(&format!("update pids={:?}", resources.pids)).update(id, resources)
    }

    fn features(&self) -> BoxFuture<'static, DriverResult<OciFeatures>> {
        self.record("features").features()
    }
}

/// A runtime that writes down how it is called. Its `run` fails.
const SCRIPT: &str =
    "echo $* | grep -o 'run --detach\\|update.*' >>calls; case \" $* \" in *' run '*) exit 7;; esac";

#[test]
fn every_call_goes_through_a_runtime_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("runtime");
    fs::write(&program, format!("#!/bin/sh\ncd {}\n{SCRIPT}\n", dir.path().display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&calls);
    let root = dir.path().canonicalize().unwrap().join("root");
    let state = root.join("runtime");
    let builder = Runc::builder(Arc::new(Empty)).runtime(program.to_str().unwrap());
    let builder = builder.oci_runtime(move |parts| {
        assert_eq!(parts.state, state);
        Arc::new(Recording { inner: parts.command_line, calls: Arc::clone(&recorded) })
    });
    let driver = builder.build().unwrap();
    driver.open(&root).unwrap();

    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let id = ContainerId::new("c").unwrap();
        driver.prepare(&id, ContainerSpec::host(["true"]).into()).await.unwrap();
        let failure = driver.run(&id, ChildStdio::default()).await.unwrap_err();
        let message = "recording run failed with exit code 7 and did not say why";
        assert_eq!(failure.message, message);
        driver.pause(&id).await.unwrap();
        let limits = Resources::default().pids(9);
        OciRuntime::update(&driver.command_line(), &id, &limits).await.unwrap();
        let _not_running = driver.update(&id, &limits).await;
        assert_eq!(driver.release(&id).await, []);
    });
    assert_eq!(driver.close(), []);
    assert_eq!(*calls.lock().unwrap(), ["run", "pause", "update pids=Some(9)"]);
    let called = fs::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(called, "run --detach\nupdate --pids-limit 9 -- c\nupdate --pids-limit 9 -- c\n");
}
