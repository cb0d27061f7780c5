//! A root: who owns what in it, and what a sweep removes.

use std::fs;
use std::process::{Command, Stdio};

use super::*;
use crate::bundles::Place;
use executor_core::lifecycle::{HostPid, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkNamespace, NetworkTraits};

struct NoBundles;

impl Bundles for NoBundles {
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
        Ok(Vec::new())
    }

    fn process(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
        _: HostPid,
        _: &ExecSpec,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        Ok(Vec::new())
    }

    fn unmake(&self, _: &Place<'_>) -> Vec<Leftover> {
        Vec::new()
    }
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    Dir::open_checked(dir).unwrap().names().unwrap()
}

#[test]
fn a_taken_id_is_not_given_twice_and_nothing_of_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let (other, swept) = Root::open(dir.path(), &NoBundles).unwrap();
    assert_eq!(swept, [], "a live executor was swept");
    let reservation = one.reserve(&id("a"), None, &NoBundles).unwrap().unwrap();
    fs::write(reservation.path().join("mine"), "").unwrap();
    assert!(other.reserve(&id("a"), None, &NoBundles).unwrap().is_none());
    assert!(reservation.path().join("mine").exists());
    assert_eq!(names(&dir.path().join("containers")), ["a"]);
    assert_eq!(reservation.dispose(&NoBundles), (0, vec![]));
    let reservation = other.reserve(&id("a"), None, &NoBundles).unwrap().unwrap();
    assert_eq!(reservation.dispose(&NoBundles), (0, vec![]));
    assert_eq!([one.close(&NoBundles), other.close(&NoBundles)], [[], []]);
}

#[test]
fn an_id_of_a_dead_executor_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (live, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let kept = live.reserve(&id("kept"), None, &NoBundles).unwrap().unwrap();
    for name in ["a", "b"] {
        dead.reserve(&id(name), None, &NoBundles).unwrap().unwrap();
    }
    drop(dead);
    let reserved = live.reserve(&id("a"), None, &NoBundles).unwrap().unwrap();
    assert_eq!(names(&dir.path().join("containers")), ["a", "kept"]);
    for reservation in [kept, reserved] {
        assert_eq!(reservation.dispose(&NoBundles), (0, vec![]));
    }
    assert_eq!(live.close(&NoBundles), []);
}

#[test]
fn what_dead_executors_left_is_swept_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let (live, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let kept = live.reserve(&id("kept"), None, &NoBundles).unwrap().unwrap();
    let gone = dead.reserve(&id("gone"), None, &NoBundles).unwrap().unwrap();
    fs::create_dir(dir.path().join("containers/strangers")).unwrap();
    fs::create_dir(dir.path().join(format!("containers/.{}.x", dead.executor()))).unwrap();
    let state = dir.path().join("runtime/gone");
    fs::create_dir_all(&state).unwrap();
    drop(dead);

    let swept = sweep(dir.path(), &NoBundles).unwrap();
    assert_eq!(swept, [Swept::new("gone", 0, vec![])]);
    assert!(kept.path().exists() && dir.path().join("containers/strangers").exists());
    assert!(!gone.path().exists() && !state.exists());
    assert_eq!(names(&dir.path().join("executors")), [live.executor()]);
    assert_eq!(sweep(dir.path(), &NoBundles).unwrap(), []);
    assert_eq!(kept.dispose(&NoBundles), (0, vec![]));
    assert_eq!(live.close(&NoBundles), []);
}

#[test]
fn what_cannot_be_written_down_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let (root, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let parent = format!("/{}", root.executor());
    let mute = Root {
        lock_file: File::open(dir.path().join("executors").join(root.executor())).unwrap(),
        dirs: Arc::clone(&root.dirs),
        executor: root.executor.clone(),
        mark: String::new(),
        parent: None,
        parents: Mutex::default(),
        kept: None,
    };
    assert!(mute.enter_parent(&parent).is_err());
    let missing = |parent: &str| place::missing(parent).iter().any(|missing| missing.topmost == parent);
    assert!(missing(&parent), "a sweep would know nothing of it");
    root.enter_parent(&parent).unwrap();
    assert_eq!(missing(&parent), !place::is_delegated(""), "{parent}");
    assert_eq!(root.close(&NoBundles), []);
    assert!(missing(&parent), "{parent}");
}

#[test]
fn a_root_that_does_not_exist_has_nothing_to_sweep() {
    assert_eq!(sweep(Path::new("/nowhere/longshore"), &NoBundles).unwrap(), []);
}

#[test]
fn runtimes_are_known_by_a_secret_mark() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let with = |value: &str| {
        let mut sleeper = Command::new("sleep");
        sleeper.arg("1000").env(EXECUTOR_VARIABLE, value).stdin(Stdio::null()).spawn().unwrap()
    };
    let mut strangers = [with(dead.executor()), with(&format!("{}.", dead.executor()))];
    let mut ours = with(dead.mark());
    let mut last = Command::new("sleep");
    // Its mark comes after more than any runtime's environment has: variables are sorted.
    last.arg("1000").env_clear();
    for number in 0..8 {
        last.env(format!("A{number}"), "x".repeat(100_000));
    }
    let mut huge = last.env(EXECUTOR_VARIABLE, dead.mark()).spawn().unwrap();
    drop(dead);
    assert_eq!(sweep(dir.path(), &NoBundles).unwrap(), []);
    assert!(!ours.wait().unwrap().success(), "a runtime was not killed");
    for stranger in strangers.iter_mut().chain([&mut huge]) {
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

#[test]
fn a_root_of_somebody_else_is_neither_swept_nor_used() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let (dead, _) = Root::open(&root, &NoBundles).unwrap();
    dead.reserve(&id("c"), None, &NoBundles).unwrap().unwrap();
    drop(dead);
    let refused = || {
        let error = sweep(&root, &NoBundles).unwrap_err();
        assert!(Root::open(&root, &NoBundles).is_err());
        error.io().unwrap().to_string()
    };
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused().contains("can be written by others"));
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(root.join("containers"), dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), root.join("containers")).unwrap();
    refused();
    assert!(dir.path().join("elsewhere/c").exists(), "what a link leads to was removed");
    fs::remove_file(root.join("containers")).unwrap();
    fs::rename(dir.path().join("elsewhere"), root.join("containers")).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&root, Some(1000), Some(1000)).unwrap();
        assert!(refused().contains("belongs to user 1000"));
        chown(&root, Some(0), Some(0)).unwrap();
        // A part that is somebody else's is not touched, and its executor is not forgotten.
        chown(root.join("containers/c"), Some(1000), Some(1000)).unwrap();
        assert_eq!(sweep(&root, &NoBundles).unwrap(), []);
        assert!(root.join("containers/c/owner").exists());
        chown(root.join("containers/c"), Some(0), Some(0)).unwrap();
    }
    assert_eq!(sweep(&root, &NoBundles).unwrap(), [Swept::new("c", 0, vec![])]);
    assert!(names(&root).is_empty());
}

/// What an executor does to a root, one step after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Reserve,
    Dispose,
    Close,
    /// Its process dies.
    Crash,
    /// Somebody sweeps.
    Sweep,
    /// Somebody begins a sweep: he has locked what is dead.
    Begin,
    /// He is killed before he has removed anything.
    Abort,
}

const LIFE: [Step; 4] = [Step::Open, Step::Reserve, Step::Dispose, Step::Close];
const DEATH: [Step; 3] = [Step::Open, Step::Reserve, Step::Crash];

/// An executor on a root, as far as it has come.
struct Walker {
    name: String,
    root: Option<Root>,
    reservation: Option<Reservation>,
    /// What it has begun to sweep.
    sweeping: Vec<sweep::DeadExecutor>,
}

impl Walker {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), root: None, reservation: None, sweeping: Vec::new() }
    }

    fn take(&mut self, step: Step, dir: &Path, order: &str) {
        let root = || self.root.as_ref().unwrap();
        match step {
            Step::Open => self.root = Some(Root::open(dir, &NoBundles).unwrap().0),
            Step::Reserve => {
                let reserved = root().reserve(&id(&self.name), None, &NoBundles);
                let reserved = reserved.unwrap_or_else(|error| panic!("{order}: {error}"));
                self.reservation = Some(reserved.unwrap_or_else(|| panic!("{order}: the id is taken")));
            }
            Step::Dispose => {
                let reservation = self.reservation.take().unwrap();
                assert!(reservation.path().join("owner").exists(), "{order}: a live container was removed");
                assert_eq!(reservation.dispose(&NoBundles), (0, vec![]), "{order}");
            }
            Step::Close => assert_eq!(self.root.take().unwrap().close(&NoBundles), [], "{order}"),
            Step::Crash => (self.root, self.reservation) = (None, None),
            Step::Sweep => drop(sweep(dir, &NoBundles).unwrap()),
            Step::Begin => {
                // Who has never been used has nothing to sweep.
                let root = Dir::open_checked(dir).map(Arc::new).unwrap();
                let found = sweep::dead_executors(&root).unwrap();
                self.sweeping = found.map_or(Vec::new(), |(_, found)| found.dead);
            }
            Step::Abort => self.sweeping.clear(),
        }
    }

    /// Nothing that it needs is gone.
    fn is_whole(&self, dir: &Path, order: &str) {
        let root = Dir::open_checked(dir).map(Arc::new).unwrap();
        if !self.sweeping.is_empty() {
            let (swept, underway) = sweep::sweep_once(&root, &NoBundles).unwrap();
            let name = |(name, _): &(String, File)| name.clone();
            let (underway, begun): (Vec<_>, Vec<_>) =
                (underway.iter().map(name).collect(), self.sweeping.iter().map(name).collect());
            assert_eq!((swept.len(), underway), (0, begun), "{order}: a sweep under way is known");
        }
        let Some(root) = &self.root else { return };
        for shared in ["containers", "runtime"] {
            assert!(dir.join(shared).is_dir(), "{order}: {shared} was removed under {}", self.name);
        }
        assert!(dir.join("executors").join(root.executor()).exists(), "{order}: {} was swept", self.name);
        if let Some(reservation) = &self.reservation {
            assert!(reservation.path().join("owner").exists(), "{order}: a live container was removed");
        }
    }
}

/// All orders of what several do, as lists of whose step is next.
fn orders(left: [usize; 3]) -> Vec<Vec<usize>> {
    if left == [0; 3] {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for who in (0..3).filter(|who| left[*who] > 0) {
        let mut rest = left;
        rest[who] -= 1;
        all.extend(orders(rest).into_iter().map(|order| [vec![who], order].concat()));
    }
    all
}

/// Two executors open, reserve, dispose, close and die, and somebody sweeps, in every order of these steps.
#[test]
fn shared_root_in_every_order() {
    let dir = tempfile::tempdir().unwrap();
    let pairs: [(&[Step], &[Step], &[Step]); 5] = [
        (&LIFE, &LIFE, &[]),
        (&LIFE, &DEATH, &[Step::Sweep]),
        (&DEATH, &LIFE, &[Step::Sweep]),
        (&DEATH, &DEATH, &[Step::Sweep]),
        (&[Step::Crash], &DEATH, &[Step::Begin, Step::Abort]),
    ];
    for (one, other, sweeper) in pairs {
        for order in orders([one.len(), other.len(), sweeper.len()]) {
            let text = format!("{one:?} {other:?} {order:?}");
            let mut steps = [one.iter(), other.iter(), sweeper.iter()];
            let mut walkers = ["one", "other", "sweeper"].map(Walker::new);
            for who in order {
                walkers[who].take(*steps[who].next().unwrap(), dir.path(), &text);
                walkers.iter().for_each(|walker| walker.is_whole(dir.path(), &text));
            }
            sweep(dir.path(), &NoBundles).unwrap();
            assert!(names(dir.path()).is_empty(), "{text}: {:?} is left", names(dir.path()));
        }
    }
}

/// The same by threads, so that the steps themselves overlap.
#[test]
fn shared_root_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let walk = |name: &str, seed: usize| {
        for round in 0..40 {
            // The id of the round before: if it died, another thread may still be sweeping it.
            let mut walker = Walker::new(name);
            let steps: &[Step] = if (round + seed).is_multiple_of(2) { &LIFE } else { &DEATH };
            for step in steps {
                let order = format!("{name} {round}");
                walker.take(*step, dir.path(), &order);
                walker.is_whole(dir.path(), &order);
            }
        }
    };
    std::thread::scope(|scope| {
        for (seed, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            scope.spawn(move || walk(name, seed));
        }
    });
    sweep(dir.path(), &NoBundles).unwrap();
    assert!(names(dir.path()).is_empty());
}

/// Bundles whose removal waits until the test sends a word.
struct Slow {
    entered: std::sync::mpsc::SyncSender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Bundles for Slow {
    fn network(&self, spec: &ContainerSpec) -> NetworkTraits {
        NoBundles.network(spec)
    }

    fn attach(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
    ) -> std::result::Result<NetworkAttachment, StartFailure> {
        NoBundles.attach(place, spec)
    }

    fn write(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        network: &NetworkAttachment,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        NoBundles.write(place, spec, network)
    }

    fn process(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        NoBundles.process(place, spec, init, exec)
    }

    fn unmake(&self, _: &Place<'_>) -> Vec<Leftover> {
        self.entered.send(()).unwrap();
        lock(&self.go_on).recv().unwrap();
        Vec::new()
    }
}

/// While one sweep is at work, another is told so, and an id waits for it.
#[test]
fn a_sweep_under_way_is_waited_for() {
    use std::sync::mpsc::{channel, sync_channel};
    let dir = tempfile::tempdir().unwrap();
    let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let executor = dir.path().join("executors").join(dead.executor());
    dead.reserve(&id("c"), None, &NoBundles).unwrap().unwrap();
    drop(dead);
    let (entered, has_entered) = sync_channel(1);
    let (go, go_on) = channel();
    let slow = Slow { entered, go_on: Mutex::new(go_on) };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| sweep(dir.path(), &slow).unwrap());
        has_entered.recv().unwrap();
        let (live, swept) = Root::open(dir.path(), &NoBundles).unwrap();
        assert_eq!(swept, [], "an executor is opened meanwhile");
        let root = Arc::new(Dir::open_checked(dir.path()).unwrap());
        let (_, underway) = sweep::sweep_once(&root, &NoBundles).unwrap();
        let late = underway::wait(underway, Instant::now());
        let own = HostPid::new(std::process::id());
        assert!(own.is_some() && underway::holder(&late[0].1) == own);
        let said = underway::report(&live.dirs, &late).unwrap();
        let who = format!("process {} is sweeping it", std::process::id());
        assert!(said.len() == 1 && said[0].container == "c" && said[0].left[0].error == who, "{said:?}");
        let second = scope.spawn(|| (sweep(dir.path(), &NoBundles).unwrap(), executor.exists()));
        let reserved = scope.spawn(move || (live.reserve(&id("c"), None, &NoBundles), live));
        go.send(()).unwrap();
        assert_eq!(first.join().unwrap(), [Swept::new("c", 0, vec![])]);
        assert_eq!(second.join().unwrap(), (vec![], false));
        let (reserved, live) = reserved.join().unwrap();
        let reserved = reserved.unwrap().expect("the id is free after the sweep");
        assert_eq!(reserved.dispose(&NoBundles), (0, vec![]));
        assert_eq!(live.close(&NoBundles), []);
    });
    assert!(names(dir.path()).is_empty());
}

#[test]
fn an_executor_that_is_kept_is_not_swept_and_is_entered_again() {
    use executor_core::Ledger;
    let dir = tempfile::tempdir().unwrap();
    let (root, _) = Root::open_kept(dir.path(), "ci", &NoBundles).unwrap();
    let (executor, mark) = (root.executor().to_owned(), root.mark().to_owned());
    let reservation = root.reserve(&id("a"), None, &NoBundles).unwrap().unwrap();
    root.ledger().unwrap().append("one\n").unwrap();
    let in_use = Root::open_kept(dir.path(), "ci", &NoBundles).map(drop).unwrap_err();
    assert_eq!(
        in_use.to_string(),
        format!("an executor that lives has the name ci: process {}", std::process::id())
    );
    // Its process ends, and others come and go.
    drop((root, reservation));
    let (other, swept) = Root::open(dir.path(), &NoBundles).unwrap();
    assert_eq!(swept, []);
    assert!(other.reserve(&id("a"), None, &NoBundles).unwrap().is_none(), "its id is taken");
    assert_eq!(other.close(&NoBundles), []);

    let (root, _) = Root::open_kept(dir.path(), "ci", &NoBundles).unwrap();
    assert_eq!((root.executor(), root.mark()), (&*executor, &*mark));
    let reservations = root.reservations().unwrap();
    assert_eq!(reservations.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a"]);
    let ledger = root.ledger().unwrap();
    ledger.append("two\n").unwrap();
    assert_eq!(ledger.read().unwrap(), b"one\ntwo\n");
    ledger.replace("three\n").unwrap();
    ledger.append("four\n").unwrap();
    assert_eq!(reservations[0].dispose(&NoBundles), (0, vec![]));
    assert_eq!(root.close(&NoBundles), []);
    drop(root);
    assert_eq!(names(dir.path()), ["kept"]);

    let (root, _) = Root::open_kept(dir.path(), "ci", &NoBundles).unwrap();
    assert_ne!(root.executor(), executor, "it had shut down");
    assert_eq!(root.ledger().unwrap().read().unwrap(), b"three\nfour\n");
    assert!(forget_name(dir.path(), "ci").is_err());
    assert_eq!(root.close(&NoBundles), []);
    assert_eq!(forget_name(dir.path(), "ci").unwrap(), []);
    for name in ["", "A", ".x", "a/b", &"a".repeat(65)] {
        assert!(matches!(Root::open_kept(dir.path(), name, &NoBundles), Err(Error::NoName { .. })), "{name}");
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_root_that_was_there_keeps_its_mode_and_a_lock_on_it_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let theirs = File::open(dir.path()).unwrap();
    flock(&theirs, FlockOperation::LockExclusive).unwrap();
    for before in [0o755, 0o750, 0o700, 0o2755] {
        set_mode(dir.path(), before);
        let (root, _) = Root::open(dir.path(), &NoBundles).unwrap();
        assert_eq!((mode(dir.path()), mode(&dir.path().join("executors"))), (before, 0o700));
        assert_eq!(root.close(&NoBundles), []);
        let (root, _) = Root::open_kept(dir.path(), "ci", &NoBundles).unwrap();
        assert_eq!(root.close(&NoBundles), []);
        forget_name(dir.path(), "ci").unwrap();
        assert_eq!(sweep(dir.path(), &NoBundles).unwrap(), []);
        assert_eq!((mode(dir.path()), names(dir.path())), (before, vec!["file".to_owned()]));
    }
}

#[test]
fn a_root_that_cannot_be_used_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    for part in ["executors", "containers", "runtime", "kept"] {
        fs::write(dir.path().join(part), "").unwrap();
        Root::open_kept(dir.path(), "ci", &NoBundles).unwrap_err();
        if part != "kept" {
            Root::open(dir.path(), &NoBundles).unwrap_err();
        }
        assert_eq!((mode(dir.path()), names(dir.path())), (0o755, vec![part.to_owned()]));
        fs::remove_file(dir.path().join(part)).unwrap();
    }
}

/// For the root of a user namespace. The mode of a directory with other things in it is its owner's to change.
#[test]
fn others_are_let_through_a_root_of_ours_only() {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o700);
    let (root, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let reservation = root.reserve(&id("c"), None, &NoBundles).unwrap().unwrap();
    let own = Dir::open_checked(&reservation.path()).unwrap();
    let (id, group) = (id("c"), rustix::process::getegid().as_raw());
    let place = Place { id: &id, root: &root.dirs.root, dir: &own, cgroup: None };
    let modes = || [dir.path(), &dir.path().join("containers"), own.path()].map(mode);
    fs::write(dir.path().join("file"), "").unwrap();
    let said = place.admit(group).unwrap_err().to_string();
    assert!(said.ends_with("; use chmod o+x") && said.contains(dir.path().to_str().unwrap()), "{said}");
    assert_eq!(modes(), [0o700, 0o700, 0o700]);
    set_mode(dir.path(), 0o701);
    place.admit(group).unwrap();
    assert_eq!(modes(), [0o701, 0o711, 0o710]);
    fs::remove_file(dir.path().join("file")).unwrap();
    set_mode(dir.path(), 0o700);
    place.admit(group).unwrap();
    assert_eq!(modes(), [0o711, 0o711, 0o710]);
    assert_eq!(reservation.dispose(&NoBundles), (0, vec![]));
    assert_eq!(root.close(&NoBundles), []);
}
