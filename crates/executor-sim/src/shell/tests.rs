#![expect(clippy::wildcard_enum_match_arm, reason = "a test shows the other steps as they are")]

use super::*;

fn find(args: &[&str]) -> Option<Result<Program, StartFailure>> {
    let env = BTreeMap::from([("NAME".to_owned(), "a b".to_owned()), ("EMPTY".to_owned(), String::new())]);
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    program(&args, &env, &|name| name == "job")
}

fn shell(script: &str) -> Result<String, String> {
    let show = |step: &Step| match step {
        Step::Stdout(text) => format!("out {}", String::from_utf8_lossy(text).trim_end()),
        Step::Stderr(text) => format!("err {}", String::from_utf8_lossy(text).trim_end()),
        other => format!("{other:?}"),
    };
    let program = find(&["sh", "-c", script, "sh", "one", "two three"]).expect("a shell");
    let program = program.map_err(|failure| failure.message)?;
    Ok(program.steps.iter().map(show).collect::<Vec<_>>().join(", "))
}

#[test]
fn scripts_become_steps() {
    for (script, expected) in [
        ("", "Exit(0)"),
        ("exit 3", "Exit(3), Exit(0)"),
        ("echo 'a; b'  $NAME \"$NAME\" '$NAME' $1", "out a; b a b a b $NAME one, Exit(0)"),
        ("echo out; echo err >&2", "out out, err err, Exit(0)"),
        ("echo err 1>&2 # and a comment; echo no", "err err, Exit(0)"),
        ("sleep 0.5 & echo on", "Fork(500ms), out on, Exit(0)"),
        ("true && echo yes", "out yes, Exit(0)"),
        ("false && echo no && echo no; echo on", "out on, Exit(0)"),
        ("false || echo yes && echo too", "out yes, out too, Exit(0)"),
        ("true || echo no; false", "Exit(1)"),
        ("nonsense -x", "err sh: nonsense: not found, Exit(127)"),
        ("exec sleep 1; echo never", "Sleep(1s), Exit(0), out never, Exit(0)"),
        ("while :; do sleep 1; done; echo never", "Repeat([Sleep(1s)]), out never, Exit(0)"),
        ("false; echo $?; false; exit $?", "out 1, Exit(1), Exit(0)"),
        ("A=x; B=\"$A $NAME\"; echo ${B}y $C; export A=z; echo $A", "out x a by, out z, Exit(0)"),
        ("echo \"a \\\"b\\\" $\" \\; c$EMPTY $EMPTY \"$EMPTY\"", "out a \"b\" $ ; c, Exit(0)"),
    ] {
        assert_eq!(shell(script).as_deref(), Ok(expected), "{script}");
    }
    assert!(shell("trap '' TERM; trap 'echo x; exit 4' HUP INT").unwrap().contains("Ignore"));
    assert!(shell("kill -TERM $$").unwrap().contains("Die"));
}

#[test]
fn a_for_loop_takes_one_word_after_the_other() {
    for (script, expected) in [
        ("for i in 1 2 3; do echo $i; done", "out 1, out 2, out 3, Exit(0)"),
        (
            "for i in 1 2; do sleep $i; echo \"n$i\"; done; echo $i",
            "Sleep(1s), out n1, Sleep(2s), out n2, out 2, Exit(0)",
        ),
        (
            "for a in x y\ndo\nfor b in 1 2; do echo $a$b; done\ndone",
            "out x1, out x2, out y1, out y2, Exit(0)",
        ),
        ("for i in $NAME \"$NAME\" $EMPTY; do echo [$i]; done", "out [a], out [b], out [a b], Exit(0)"),
        ("for i in \"$@\"; do echo [$i]; done", "out [one], out [two three], Exit(0)"),
        ("for i; do echo [$i]; done", "out [one], out [two three], Exit(0)"),
        ("for i in; do echo never; done && echo on", "out on, Exit(0)"),
        (
            "for i in 1 2; do while true; do echo $i; sleep 1; done; done",
            "Repeat([Stdout([49, 10]), Sleep(1s)]), Repeat([Stdout([50, 10]), Sleep(1s)]), Exit(0)",
        ),
        ("for i in done 'do'; do echo $i; done", "out done, out do, Exit(0)"),
    ] {
        assert_eq!(shell(script).as_deref(), Ok(expected), "{script}");
    }
}

#[test]
fn what_is_not_supported_is_refused_with_a_sentence() {
    for (script, what) in [
        ("echo a | cat", "pipes (`|`)"),
        ("echo a > file", "output redirections other than `>&2`"),
        ("echo a 2>&1", "output redirections other than `>&2`"),
        ("cat < file", "input redirections (`<`)"),
        ("echo $(date)", "command substitution"),
        ("echo `date`", "command substitution"),
        ("echo ${A:-b}", "`${A:-b}`"),
        ("echo $#", "`$#`"),
        ("echo $*", "`$*`"),
        ("echo \"all: $@\"", "`$@` within a longer word"),
        ("echo $$", "`$$` outside of `kill -SIGNAL $$`"),
        ("if true; then echo a; fi", "`if`"),
        ("case a in a) ;; esac", "`case`"),
        ("until false; do echo a; done", "`until`"),
        ("(echo a)", "subshells, functions"),
        ("f() { echo a; }", "subshells, functions"),
        ("{ echo a; }", "`{`"),
        ("! true", "`!`"),
        ("while sleep 1; do echo a; done", "`while` with a condition other than `:` or `true`"),
        ("for i in 1 2; do echo a", "a loop without `done`"),
        ("for i in 1 2; echo a; done", "a loop without `do`"),
        ("for 1 in 2; do echo a; done", "`for` without a variable"),
        ("done", "`done` at the beginning of a command"),
        ("for i in 1; do echo a; done &", "loops in the background"),
        ("for i in 1; do echo a; done >&2", "after `done`"),
        ("for i in 1 2; do break; done", "`break`"),
        ("sleep 5 & wait", "`wait`"),
        ("[ a = b ] && echo a", "`[`"),
        ("echo a &", "`&` after another command than `sleep`"),
        ("A=b env", "a command after `NAME=value`"),
        ("sleep 1m", "`sleep 1m`"),
        ("sleep", "`sleep` without a number of seconds"),
        ("cat /etc/passwd", "`cat` with arguments"),
        ("trap - TERM", "`trap -`"),
        ("trap 'echo a' EXIT", "the signal `EXIT`"),
        ("trap 'if a' TERM", "`if`"),
        ("kill 1", "this form of `kill`"),
        ("echo 'a", "a quote that is not closed (`'`)"),
        ("&& echo a", "an operator without a command"),
        ("job 7", "scripted programs in a script (`job`)"),
    ] {
        let refused = shell(script).expect_err(script);
        assert!(refused.starts_with("the simulator's shell does not support "), "{refused}");
        assert!(refused.contains(what), "{script}: {refused}");
        assert!(refused.ends_with("; script the program with SimRuntime::program instead"), "{refused}");
    }
}

#[test]
fn only_known_programs_are_known() {
    for known in [&["/bin/sleep", "1"][..], &["true"], &["cat"], &["echo", "a", ">&2"]] {
        assert!(matches!(find(known), Some(Ok(_))), "{known:?}");
    }
    for refused in [&["sh"][..], &["sh", "-e", "-c", "true"], &["sleep", "x"]] {
        assert!(matches!(find(refused), Some(Err(_))), "{refused:?}");
    }
    assert!(find(&["make"]).is_none() && find(&[]).is_none());
}
