//! The command in a terminal of tmux, with programs that fill the screen, and a shell whose terminal has to be as it was.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use longshore_tests::{HUNG, on_bare_stage};

/// A tmux server of its own, with one window and a shell in it.
struct Window {
    socket: String,
}

impl Window {
    fn open(root: &Path) -> Self {
        let window = Self { socket: root.parent().unwrap().join("tmux").display().to_string() };
        let longshore = longshore_tests::command::longshore(root);
        let words = std::iter::once(longshore.get_program()).chain(longshore.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        let command = format!("L={} run -it -e TERM", words.join(" "));
        let shell = ["env", "PS1=ready> ", "HISTFILE=", &command, "bash", "--norc", "--noprofile", "-i"];
        window
            .tmux(&[&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"][..], &shell].concat());
        window.shows("ready>");
        window
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.socket]).args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn shows(&self, text: &str) {
        self.comes_to(text, |screen| screen.contains(text));
    }

    /// Waits until this holds for the screen.
    fn comes_to(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + HUNG;
        while !holds(&self.screen()) {
            assert!(Instant::now() < deadline, "it does not come to {what:?}:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes the window this large, and waits until its terminal is.
    fn resize(&self, rows: &str, columns: &str) {
        self.tmux(&["resize-window", "-x", columns, "-y", rows]);
        let terminal = self.tmux(&["display-message", "-p", "#{pane_tty}"]);
        let size = || Command::new("stty").args(["-F", terminal.trim(), "size"]).output().unwrap().stdout;
        let deadline = Instant::now() + HUNG;
        while String::from_utf8_lossy(&size()).trim() != format!("{rows} {columns}") {
            assert!(Instant::now() < deadline, "the terminal is not resized");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    fn presses(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn enters(&self, line: &str) {
        self.types(line);
        self.presses("Enter");
    }

    /// The settings of the shell's terminal, while no program of it runs. The shell's line editor has its own meanwhile, so
    /// they are asked for by a command.
    fn settings(&self, name: &str) -> String {
        self.enters(&format!("clear; stty -a | md5sum; echo {name}$((40 + 2))"));
        self.shows(&format!("{name}42"));
        self.screen().lines().find(|line| line.ends_with(" -")).unwrap_or_default().to_owned()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _closed_before = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
    }
}

/// What a person does in a program: keys, and what has to be shown before they are pressed. After a `!` it must not be shown any
/// more. Each is something that is not shown before the keys above it have had their effect.
type Deeds = &'static [(&'static str, &'static str)];

#[test]
fn in_tmux() {
    on_bare_stage(|stage| {
        let window = Window::open(&stage.root());
        let before = window.settings("before");
        assert!(!before.is_empty(), "{}", window.screen());
        let programs: [(&str, Deeds, i32); 9] = [
            (
                "vim -u NONE -N",
                &[
                    ("~", "ihello"),
                    ("hello", ""),
                    ("-- INSERT --", "Escape"),
                    ("!-- INSERT --", ":q!"),
                    (":q!", "Enter"),
                ],
                0,
            ),
            ("less /etc/services", &[("Internet style", "G"), ("(END)", "q")], 0),
            ("top -d 1", &[("PID", "q")], 0),
            (
                "sh -c 'trap \"exit 5\" INT; echo up$((1)); while :; do sleep 0.01; done'",
                &[("up1", "C-c")],
                5,
            ),
            (
                "sh -c 'trap \"exit 6\" QUIT; echo up$((2)); while :; do sleep 0.01; done'",
                &[("up2", "C-\\")],
                6,
            ),
            (
                "bash --norc -i",
                &[
                    (
                        "bash-",
                        "sh -c 'trap \"echo on\\$((8))\" CONT; echo run$((7)); while :; do sleep 0.01; done'",
                    ),
                    ("; done'", "Enter"),
                    ("run7", "C-z"),
                    ("Stopped", "fg"),
                    ("# fg", "Enter"),
                    ("on8", "C-c"),
                    ("^C", "exit 8"),
                    ("exit 8", "Enter"),
                ],
                8,
            ),
            ("sh -c 'echo up$((6)); cat'", &[("up6", "C-d")], 0),
            ("sh -c 'stty raw -echo; echo up$((3)); kill -TERM $$; sleep 0.1; exit 9'", &[("up3", "")], 143),
            ("no-such-program", &[], 127),
        ];
        for (number, (program, deeds, code)) in programs.into_iter().enumerate() {
            window.enters(&format!("clear; $L -- {program}; echo code{number}=$?"));
            for (shown, keys) in deeds {
                match shown.strip_prefix('!') {
                    Some(gone) => window.comes_to(shown, |screen| !screen.contains(gone)),
                    None => window.shows(shown),
                }
                match *keys {
                    "" => {}
                    "Escape" | "Enter" | "C-c" | "C-z" | "C-d" | "C-\\" => window.presses(keys),
                    text => window.types(text),
                }
            }
            window.shows(&format!("code{number}={code}"));
            assert_eq!(
                window.settings(&format!("after{number}")),
                before,
                "{program}: the terminal is not as it was"
            );
        }

        // Killed, and resized before.
        let script = "stty raw; trap 'stty size' WINCH; echo up$((4)); while :; do sleep 0.01; done";
        window.enters(&format!("clear; $L --timeout 4s --grace 0s -- sh -c \"{script}\"; echo killed=$?"));
        window.shows("up4");
        window.resize("27", "91");
        window.shows("27 91");
        window.shows("killed=124");
        window.resize("24", "80");
        assert_eq!(window.settings("last"), before, "it was killed: the terminal is not as it was");

        // The window is closed. The program gets SIGHUP, as on a terminal that is hung up, and nothing is left.
        std::fs::create_dir(stage.path("shared")).unwrap();
        let volume = format!("{}:/shared", stage.path("shared").display());
        let script = "trap 'echo > /shared/up; exit' HUP; echo up$((5)); while :; do sleep 0.01; done";
        window.enters(&format!("clear; $L -v {volume} -- sh -c \"{script}\""));
        window.shows("up5");
        window.tmux(&["kill-session"]);
        let deadline = Instant::now() + HUNG;
        while !stage.path("shared").join("up").exists() {
            assert!(Instant::now() < deadline, "the program is not hung up");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(window);
        stage.check();
    });
}
