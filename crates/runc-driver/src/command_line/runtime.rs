//! The command line as an [`OciRuntime`].

use std::path::Path;

use executor_core::lifecycle::{ContainerId, Signal};
use executor_core::{BoxFuture, ChildStdio, Resources};
use futures::FutureExt;

use super::CommandLine;
use super::arguments::Step;
use crate::Result;
use crate::oci::{Launch, OciFeatures, OciRuntime, OciState, RuntimeCall};

impl OciRuntime for CommandLine {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        self.launch(id, &Step::Create { bundle }, &launch, &stdio)
    }

    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::start(&own, &id).await }.boxed()
    }

    fn run(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        self.launch(id, &Step::Run { bundle }, &launch, &stdio)
    }

    fn exec(
        &self,
        id: &ContainerId,
        process: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        self.launch(id, &Step::Exec { process }, &launch, &stdio)
    }

    fn state(&self, id: &ContainerId) -> BoxFuture<'static, Result<OciState>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::state(&own, &id).await }.boxed()
    }

    fn kill(&self, id: &ContainerId, signal: Signal) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::kill(&own, &id, signal).await }.boxed()
    }

    fn delete(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::delete(&own, &id).await }.boxed()
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::pause(&own, &id).await }.boxed()
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::resume(&own, &id).await }.boxed()
    }

    fn update(&self, id: &ContainerId, resources: &Resources) -> BoxFuture<'static, Result<()>> {
        let (own, id, resources) = (self.clone(), id.clone(), resources.clone());
        async move { Self::update(&own, &id, &resources).await }.boxed()
    }

    fn features(&self) -> BoxFuture<'static, Result<OciFeatures>> {
        let own = self.clone();
        async move { Self::features(&own).await }.boxed()
    }
}
