//! How mounts fit together, on the real runtime: one below another, those of the host, those that are read-only, and what is
//! left of their mount points.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use longshore::Mount;
use longshore_tests::{Stage, on_stage, says, shell};

/// A directory of the stage with a file in it that holds the directory's name.
fn volume(stage: &Stage, name: &str) -> PathBuf {
    let dir = stage.path(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("name"), name).unwrap();
    dir
}

/// Whichever order they are given in, no mount hides another one.
#[test]
fn volume_order() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let [a, b, c] = ["a", "b", "c"].map(|name| volume(&stage, name));
        let mounts = [
            Mount::bind(&a, "/x"),
            Mount::bind(&b, "/x/y").read_only(),
            Mount::bind(&c, "/x/y/z/"),
            Mount::tmpfs("/x/t"),
        ];
        let script = "cat /x/name /x/y/name /x/y/z/name; touch /x/t/new; ls /x/t";
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let ordered = order.map(|number| mounts[number].clone());
            for mut spec in [shell(script), stage.directory_spec(["sh", "-c", script])] {
                spec.mounts.extend(ordered.clone());
                assert_eq!(says(&executor, spec).await, "abcnew\n", "{order:?}");
            }
        }
        // Over the volume at /etc there are the files of the container.
        let etc = volume(&stage, "etc");
        fs::write(etc.join("hosts"), "mine").unwrap();
        let spec = shell("cat /etc/name; grep -c localhost /etc/hosts; ls /etc");
        let spec = spec.mount(Mount::bind(&etc, "/etc").read_only());
        assert_eq!(says(&executor, spec).await, "etc2\nhosts\nname\nresolv.conf\n");
        // A link leads to where one is mounted.
        let mut spec = stage.directory_spec(["sh", "-c", "cat /x/name /x/y/name /link/name"]);
        symlink("/x", stage.path("rootfs/link")).unwrap();
        spec.mounts.extend([Mount::bind(&b, "/link/y"), Mount::bind(&a, "/x")]);
        assert_eq!(says(&executor, spec).await, "aba");
        let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
        longshore_tests::until("the stubs", || [&a, &b, &c].iter().all(|dir| names(dir) == 1)).await;
        longshore_tests::until("the stubs", || names(&etc) == 2).await;
        assert_eq!(fs::read(etc.join("hosts")).unwrap(), b"mine");
        stage.finish(executor).await;
    });
}
