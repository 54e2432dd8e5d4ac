//! The command line as a process sees it: variables, exit statuses, and what it says of itself.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command, Output, Stdio},
};

/// Runs the agent with these words and variables.
fn agent(words: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_splitlock-agent"))
        .args(words)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the agent's binary starts")
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A folder that is gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("command-line-{}-{name}", process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).expect("the folder is there").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is the system's to tidy up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_bad_value_names_its_variable_or_its_flag() {
    for (variable, value) in [
        ("SPLITLOCK_LIMIT_VMS", "many"),
        ("SPLITLOCK_PROBE", "kvm_exit=none,nonesuch=none"),
        ("SPLITLOCK_PROBE_STATISTICS", "perhaps"),
        ("SPLITLOCK_LOG_LEVEL", "loud"),
        ("SPLITLOCK_WEB_LISTEN_ADDRESS", "nowhere"),
    ] {
        let output = agent(&["run"], &[(variable, value)]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}: {said}");
        assert!(said.contains(variable), "{variable}: {said}");
    }
    let output = agent(
        &["run", "--limit.vms", "many"],
        &[("SPLITLOCK_LIMIT_VMS", "5")],
    );
    let said = text(&output.stderr);
    assert!(said.contains("--limit.vms"), "{said}");
    assert!(!said.contains("SPLITLOCK_LIMIT_VMS"), "{said}");
}

#[test]
fn a_flag_beats_its_variable_and_an_empty_one_is_none() {
    let (flags, variables) = (Folder::new("flag"), Folder::new("variable"));
    let variable = [("SPLITLOCK_FOLDER", variables.path())];
    let output = agent(&["man", "--folder", flags.path()], &variable);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(flags.files() > 1);
    assert_eq!(variables.files(), 0);

    let output = agent(&["man"], &variable);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(variables.files(), flags.files());

    let output = agent(&["man"], &[("SPLITLOCK_FOLDER", "")]);
    assert!(text(&output.stdout).contains(".SH NAME"));
}

#[test]
fn help_shows_variables_and_not_their_values() {
    let set = [("SPLITLOCK_LIMIT_VMS", "4711")];
    let help = |variables| agent(&["run", "--help"], variables).stdout;
    let shown = help(&set);
    assert!(text(&shown).contains("[env: SPLITLOCK_LIMIT_VMS]"));
    assert!(text(&shown).contains("[env: SPLITLOCK_PROBE]"));
    assert_eq!(shown, help(&[]));
    for heading in ["Web:", "Hooks:", "Limits:", "Host:", "Log:", "Exit status:"] {
        assert!(
            text(&shown).contains(&format!("\n{heading}\n")),
            "{heading}"
        );
    }
}

#[test]
fn the_version_says_what_it_was_built_from() {
    let long = agent(&["--version"], &[]).stdout;
    for part in [env!("CARGO_PKG_VERSION"), "revision: ", "kernel side: "] {
        assert!(text(&long).contains(part), "{}", text(&long));
    }
    let short = agent(&["-V"], &[]).stdout;
    assert_eq!(text(&short).lines().count(), 1);
}

#[test]
fn completions_know_commands_and_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = agent(&["completions", shell], &[]);
        assert!(output.status.success(), "{shell}");
        for word in ["limit.vms", "web.listen-address", "completions"] {
            assert!(text(&output.stdout).contains(word), "{shell}: {word}");
        }
        // The agent's own helpers are nobody's to call.
        for word in ["selftest-event", "symbolize"] {
            assert!(!text(&output.stdout).contains(word), "{shell}: {word}");
        }
    }
    if let Ok(bash) = Command::new("bash").arg("--version").output()
        && bash.status.success()
    {
        let script = agent(&["completions", "bash"], &[]).stdout;
        // What bash offers for the last of these words, after the one before.
        for (words, offered) in [
            ("ru", "run"),
            ("s", "selftest"),
            ("run --limit.w", "--limit.workloads"),
            ("top --sort stat", "state"),
        ] {
            let ask = format!(
                "COMP_WORDS=(splitlock-agent {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
                _splitlock__agent splitlock-agent \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
                echo \"${{COMPREPLY[@]}}\""
            );
            let output = Command::new("bash")
                .args(["-c", &format!("{}\n{ask}", text(&script))])
                .output()
                .expect("bash starts");
            assert_eq!(text(&output.stdout).trim(), offered, "{words}: {output:?}");
        }
    } else {
        eprintln!("bash is not installed: its completions were not tried");
    }
}

#[test]
fn errors_begin_with_the_programs_name() {
    let output = agent(&["man", "nonesuch"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("splitlock-agent: no page nonesuch"));
}
