//! The provider of networks that CNI plugins make. Their configurations are files in a directory.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind, NetworkUsage};
use executor_core::{NetworkAttachment, NetworkNamespace, NetworkTraits};
use executor_disk::Dir;

use crate::attachment::{self, Attachment, NETWORKS, NetworkDir};
use crate::error::NetworkError;
use crate::pool::Pool;
use crate::provider::Provider;
use crate::{config, namespace};

/// The directory where configurations are by convention.
const CONFIGS: &str = "/etc/cni/net.d";

/// The directories where plugins are: by convention, and in Debian.
const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// The file in a container's bundle that has the name of its network's directory.
const NAME: &str = "network";

/// The most bytes of it that are read.
const LIMIT: u64 = 4096;

/// How long after the last request networks are kept ready by default.
const IDLE: Duration = Duration::from_secs(60);

/// The provider of CNI networks.
#[derive(Debug)]
pub struct Cni {
    configs: PathBuf,
    plugins: Vec<PathBuf>,
    ready: usize,
    idle: Duration,
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    executor: String,
    pool: Arc<Pool>,
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            configs: CONFIGS.into(),
            plugins: PLUGINS.map(PathBuf::from).into(),
            ready: 0,
            idle: IDLE,
            opened: Mutex::default(),
        }
    }
}

impl Cni {
    /// Reads the networks' configurations from this directory instead of `/etc/cni/net.d`.
    #[must_use]
    pub fn configs(self, configs: impl Into<PathBuf>) -> Self {
        Self { configs: configs.into(), ..self }
    }

    /// Searches these directories for plugins instead of `/opt/cni/bin` and `/usr/lib/cni`.
    #[must_use]
    pub fn plugins(self, plugins: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { plugins: plugins.into_iter().collect(), ..self }
    }

    /// Keeps `ready` more of a network ready after a container has asked for it, until no container has asked for it for
    /// `idle`. The default is to keep none ready.
    #[must_use]
    pub fn keep_ready(self, ready: usize, idle: Duration) -> Self {
        Self { ready, idle, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a network from the pool, and writes the name of its directory to the bundle in `dir`.
    fn take(&self, dir: &Dir, name: Option<&str>) -> Result<NetworkAttachment, NetworkError> {
        let pool = self.lock().as_ref().map(|opened| Arc::clone(&opened.pool));
        let attachment = pool.ok_or(NetworkError::NotOpened)?.take(name)?;
        let written = dir.write_new(NAME, attachment.dir.name.as_bytes(), 0o600);
        match written.map_err(NetworkError::io("write", &dir.path_of(NAME))) {
            Ok(_) => Ok(attachment.for_container()),
            // `detach` would not find the network.
            Err(error) => match attachment.remove() {
                left if left.is_empty() => Err(error),
                left => Err(NetworkError::HalfMade { left, source: Box::new(error) }),
            },
        }
    }

    fn pool(&self, root: Arc<Dir>, executor: String) -> io::Result<Pool> {
        let (configs, plugins) = (self.configs.clone(), self.plugins.clone());
        let number = AtomicU64::new(1);
        let make = move |name: Option<&str>| {
            let config = config::find(&configs, name)?;
            let name = format!("{executor}.{}", number.fetch_add(1, Ordering::Relaxed));
            Attachment::make(NetworkDir { root: Arc::clone(&root), name }, config, plugins.clone())
        };
        Pool::new(self.ready, self.idle, Box::new(make))
    }
}

impl Provider for Cni {
    fn open(&self, root: &Arc<Dir>, executor: &str) -> io::Result<()> {
        let pool = Arc::new(self.pool(Arc::clone(root), executor.to_owned())?);
        *self.lock() = Some(Opened { executor: executor.to_owned(), pool });
        Ok(())
    }

    fn traits(&self) -> NetworkTraits {
        NetworkTraits { is_slow: true, outlives_processes: true }
    }

    fn preview(&self) -> NetworkNamespace {
        NetworkNamespace::At(attachment::NAMESPACE.into())
    }

    fn attach(
        &self,
        _: &Arc<Dir>,
        dir: &Dir,
        _: &ContainerId,
        name: Option<&str>,
    ) -> Result<NetworkAttachment, NetworkError> {
        self.take(dir, name).map_err(|error| NetworkError::Attach {
            network: name.unwrap_or("cni").to_owned(),
            source: Box::new(error),
        })
    }

    fn usage(&self, root: &Arc<Dir>, dir: &Dir) -> Option<NetworkUsage> {
        namespace::usage(Attachment::read(&of_bundle(root, dir)?).ok()??.open_namespace().ok()?)
    }

    fn detach(&self, root: &Arc<Dir>, dir: &Dir) -> Vec<Leftover> {
        of_bundle(root, dir).map(|network| attachment::remove(&network)).unwrap_or_default()
    }

    fn close(&self, root: &Arc<Dir>, executor: &str) -> Vec<Leftover> {
        let mut opened = self.lock();
        let own = opened.take_if(|opened| opened.executor == executor);
        drop(opened);
        let mut left = own.map(|own| own.pool.close()).unwrap_or_default();
        let names = match root.open_dir(NETWORKS).and_then(|networks| networks.names()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return left,
            Err(error) => {
                left.push(Leftover::new(LeftoverKind::File, root.path_of(NETWORKS), &error));
                return left;
            }
            Ok(names) => names,
        };
        for name in names {
            if name.split_once('.').is_some_and(|(owner, _)| owner == executor) {
                left.extend(attachment::remove(&NetworkDir { root: Arc::clone(root), name }));
            }
        }
        let _others_use_it = root.remove_dir(NETWORKS);
        left
    }
}

/// The network that the bundle in `dir` names.
fn of_bundle(root: &Arc<Dir>, dir: &Dir) -> Option<NetworkDir> {
    Some(NetworkDir { root: Arc::clone(root), name: dir.read_text(NAME, LIMIT).ok()? })
}
