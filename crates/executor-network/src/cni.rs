//! The provider of networks that CNI plugins make. Their configurations are files in a directory.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind, NetworkUsage};
use executor_core::{NetworkAttachment, NetworkNamespace, NetworkTraits};

use crate::attachment::{self, Attachment};
use crate::error::NetworkError;
use crate::pool::Pool;
use crate::provider::Provider;
use crate::{config, namespace};

/// The directory where configurations are by convention.
const CONFIGS: &str = "/etc/cni/net.d";

/// The directories where plugins are: by convention, and in Debian.
const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// The directory of all networks, below an executor's root.
const NETWORKS: &str = "networks";

/// The file in a container's bundle that names its network's directory.
const NAME: &str = "network";

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

    /// Takes a network from the pool, and writes the path of its directory to the bundle in `dir`.
    fn take(&self, dir: &Path, name: Option<&str>) -> Result<NetworkAttachment, NetworkError> {
        let pool = self.lock().as_ref().map(|opened| Arc::clone(&opened.pool));
        let attachment = pool.ok_or(NetworkError::NotOpened)?.take(name)?;
        let file = dir.join(NAME);
        let written = fs::write(&file, attachment.dir.to_string_lossy().as_bytes());
        match written.map_err(NetworkError::io("write", &file)) {
            Ok(()) => Ok(attachment.for_container()),
            // `detach` would not find the network.
            Err(error) => match attachment.remove() {
                left if left.is_empty() => Err(error),
                left => Err(NetworkError::HalfMade { left, source: Box::new(error) }),
            },
        }
    }

    fn pool(&self, root: PathBuf, executor: String) -> io::Result<Pool> {
        let (configs, plugins) = (self.configs.clone(), self.plugins.clone());
        let number = AtomicU64::new(1);
        let make = move |name: Option<&str>| {
            let config = config::find(&configs, name)?;
            let networks = root.join(NETWORKS);
            let made = DirBuilder::new().recursive(true).mode(0o711).create(&networks);
            made.map_err(NetworkError::io("make", &networks))?;
            let dir = networks.join(format!("{executor}.{}", number.fetch_add(1, Ordering::Relaxed)));
            Attachment::make(dir, config, plugins.clone())
        };
        Pool::new(self.ready, self.idle, Box::new(make))
    }
}

impl Provider for Cni {
    fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        let pool = Arc::new(self.pool(root.to_owned(), executor.to_owned())?);
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
        dir: &Path,
        _: &ContainerId,
        name: Option<&str>,
    ) -> Result<NetworkAttachment, NetworkError> {
        self.take(dir, name).map_err(|error| NetworkError::Attach {
            network: name.unwrap_or("cni").to_owned(),
            source: Box::new(error),
        })
    }

    fn usage(&self, dir: &Path) -> Option<NetworkUsage> {
        namespace::usage(&Attachment::read(&of_bundle(dir)?).ok()??.namespace())
    }

    fn detach(&self, dir: &Path) -> Vec<Leftover> {
        of_bundle(dir).map(|network| attachment::remove(&network)).unwrap_or_default()
    }

    fn close(&self, root: &Path, executor: &str) -> Vec<Leftover> {
        let mut opened = self.lock();
        let own = opened.take_if(|opened| opened.executor == executor);
        drop(opened);
        let mut left = own.map(|own| own.pool.close()).unwrap_or_default();
        let networks = root.join(NETWORKS);
        let entries = match fs::read_dir(&networks) {
            Err(error) if error.kind() == ErrorKind::NotFound => return left,
            Err(error) => {
                left.push(Leftover::new(LeftoverKind::File, networks, &error));
                return left;
            }
            Ok(entries) => entries,
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.split_once('.').is_some_and(|(owner, _)| owner == executor) {
                left.extend(attachment::remove(&entry.path()));
            }
        }
        let _others_use_it = fs::remove_dir(networks);
        left
    }
}

/// The directory of the network that the bundle in `dir` names. `None` if it is not one of the networks of the same root.
fn of_bundle(dir: &Path) -> Option<PathBuf> {
    let network = PathBuf::from(fs::read_to_string(dir.join(NAME)).ok()?);
    let root = dir.parent()?.parent()?;
    (network.parent()? == root.join(NETWORKS) && network.file_name().is_some()).then_some(network)
}
