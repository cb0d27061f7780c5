//! Whether the cgroup of a container can have a limit that nobody has asked for.

use std::fs;
use std::path::Path;

/// Where cgroups are mounted.
pub(super) const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Whether the number of processes can be limited in the cgroup at this path, which does not exist yet.
///
/// On v1 the controller has a hierarchy. On v2 the cgroups above must have it: a user's may be delegated without. Our own among
/// them have none before the runtime makes the container's, which gives them what there is above.
pub(super) fn has_pids(mount_point: &Path, cgroup: &str) -> bool {
    if mount_point.join("pids").is_dir() {
        return true;
    }
    // systemd makes the cgroup in a slice, with the controllers of the root.
    let below = cgroup.strip_prefix('/').unwrap_or_default();
    let controllers = mount_point.join(below);
    let ours = controllers.ancestors().nth(2).filter(|all| all.ends_with("longshore"));
    let controllers = ours.and_then(Path::parent).unwrap_or(&controllers);
    let mut above = controllers.ancestors().take_while(|dir| dir.starts_with(mount_point));
    let controllers = above.find_map(|dir| fs::read_to_string(dir.join("cgroup.controllers")).ok());
    controllers.is_some_and(|all| all.split_whitespace().any(|one| one == "pids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_has_a_hierarchy_or_is_in_the_cgroup_above() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(!has_pids(root, "/e/c"), "nothing is mounted");
        fs::create_dir_all(root.join("user/own")).unwrap();
        fs::write(root.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        assert!(has_pids(root, "/e/c") && has_pids(root, "ci.slice:longshore:e-c"));
        fs::write(root.join("user/own/cgroup.controllers"), "memory\n").unwrap();
        assert!(!has_pids(root, "/user/own/e/c"), "it was delegated without");
        fs::create_dir_all(root.join("longshore/e")).unwrap();
        fs::write(root.join("longshore/e/cgroup.controllers"), "\n").unwrap();
        assert!(has_pids(root, "/longshore/e/c"), "the runtime gives it to our own");
        assert!(!has_pids(root, "/user/own/longshore/e/c"), "it was delegated without");
        fs::create_dir(root.join("pids")).unwrap();
        assert!(has_pids(root, "/e/c"), "v1");
    }
}
