//! What a keeper needs.

use std::fs::{self, File};

use crate::stage::{Stage, run};

/// Its private memory in KiB.
fn private(stage: &Stage) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", stage.keeper().pid())).unwrap();
    let of = |line: &str| line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    text.lines().filter(|line| line.starts_with("Private_")).filter_map(of).sum()
}

/// A container has a process, and its streams and a terminal are held.
fn containers(stage: &Stage, numbers: std::ops::Range<usize>) {
    let null = File::open("/dev/null").unwrap();
    for number in numbers {
        stage.sh("exec sleep 1000");
        for stream in ["stdin", "stdout", "stderr", "terminal"] {
            let name = format!("{number}.{}.{stream}", "c".repeat(120));
            stage.keeper().hold(&name, &null).unwrap();
        }
    }
}

#[test]
fn a_hundred_containers_in_half_a_mebibyte() {
    run(|stage| {
        let empty = private(stage);
        containers(stage, 0..100);
        let hundred = private(stage);
        containers(stage, 100..300);
        let more = private(stage);
        println!("private memory: {empty} KiB, {hundred} KiB with 100 containers, {more} KiB with 300");
        assert!(hundred <= 512, "{hundred} KiB");
        assert!((more - hundred) * 1024 / 200 <= 3 * 1024, "{hundred} and {more} KiB");
        let children = crate::stage::children_of(stage.keeper());
        assert_eq!(children.len(), 300);
        children.iter().for_each(|child| crate::stage::kill(*child));
        crate::stage::within(|| crate::stage::children_of(stage.keeper()).is_empty());
        let numbers: Vec<_> = stage.keeper().records(0).unwrap().iter().map(|record| record.number).collect();
        assert_eq!(stage.keeper().forget(&numbers).unwrap(), 300);
        assert_eq!(stage.keeper().release("").unwrap(), 1200);
        let after = private(stage);
        println!("{after} KiB when all is forgotten");
        assert!(after <= empty + 64, "{after} KiB");
    });
}
