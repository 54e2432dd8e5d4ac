//! Every flag as an environment variable, whose name follows from the flag's.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use clap::{
    Arg, ArgAction, Command, Error,
    builder::BoolishValueParser,
    error::{ContextKind, ContextValue},
};

/// What the variables' names begin with.
const PREFIX: &str = "SPLITLOCK_";

/// The variable of a flag, by its long name: `limit.vms` has `SPLITLOCK_LIMIT_VMS`.
pub fn variable(long: &str) -> String {
    let name = long.to_ascii_uppercase().replace(['.', '-'], "_");
    format!("{PREFIX}{name}")
}

/// Gives all flags of a command, and of those below it, their variables.
pub fn attach(command: Command) -> Command {
    command.mut_args(attach_one).mut_subcommands(attach)
}

fn attach_one(arg: Arg) -> Arg {
    let Some(name) = arg.get_long().map(variable) else {
        return arg;
    };
    // Service managers and compose files leave empty what is not set.
    if env::var_os(&name).is_some_and(|value| value.is_empty()) {
        return arg;
    }
    let arg = match arg.get_action() {
        // `1`, `yes` and `on` as well as `true`.
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    // What `--help` and the man page say does not depend on where they are asked.
    arg.env(name).hide_env_values(true)
}

/// Has an error about a flag that was not among the `words` name the variable that it is from.
pub fn name_culprit(mut error: Error, words: &[OsString]) -> Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    // "--limit.vms <N>"
    let Some(long) = flag.strip_prefix("--").and_then(|flag| {
        flag.split([' ', '=', '['])
            .next()
            .filter(|long| !long.is_empty())
    }) else {
        return error;
    };
    let name = variable(long);
    if is_given(long, words) || env::var_os(&name).is_none() {
        return error;
    }
    let culprit = format!("{name}, the variable of --{long}");
    error.insert(ContextKind::InvalidArg, ContextValue::String(culprit));
    error
}

/// Whether a flag was typed, with its value in the same word or in the next.
fn is_given(long: &str, words: &[OsString]) -> bool {
    words.iter().filter_map(|word| word.to_str()).any(|word| {
        word.strip_prefix("--")
            .and_then(|word| word.strip_prefix(long))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// The variables of a command's own flags, each with its flag.
pub fn variables(command: &Command) -> Vec<(String, String)> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| {
            let variable = arg.get_env().and_then(OsStr::to_str)?;
            Some((variable.to_owned(), format!("--{}", arg.get_long()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::Path,
    };

    use super::*;

    #[test]
    fn names_follow_from_flags() {
        assert_eq!(
            variable("web.listen-address"),
            "SPLITLOCK_WEB_LISTEN_ADDRESS"
        );
        assert_eq!(variable("limit.vms"), "SPLITLOCK_LIMIT_VMS");
        assert_eq!(variable("probe"), "SPLITLOCK_PROBE");
    }

    /// Commands with their long names.
    fn all_flags(command: &Command, flags: &mut BTreeMap<String, BTreeSet<String>>) {
        for long in command.get_arguments().filter_map(Arg::get_long) {
            flags
                .entry(variable(long))
                .or_default()
                .insert(long.to_owned());
        }
        for below in command.get_subcommands() {
            all_flags(below, flags);
        }
    }

    #[test]
    fn every_flag_has_a_variable_and_no_two_share_one() {
        let command = super::super::command();
        let mut flags = BTreeMap::new();
        all_flags(&command, &mut flags);
        assert!(flags.len() > 15, "{flags:?}");
        for (variable, flags) in &flags {
            assert_eq!(flags.len(), 1, "{variable}: {flags:?}");
        }
        for below in command.get_subcommands() {
            for arg in below.get_arguments() {
                let expected = arg.get_long().map(variable);
                let found = arg.get_env().and_then(OsStr::to_str).map(str::to_owned);
                assert_eq!(found, expected, "{} {arg}", below.get_name());
            }
        }
    }

    /// The project's tests and tools have variables of their own, which their agents inherit. Each
    /// mention of a variable in their sources counts.
    #[test]
    fn no_variable_is_used_for_something_else() {
        let mut flags = BTreeMap::new();
        all_flags(&super::super::command(), &mut flags);
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut taken = BTreeSet::new();
        for folder in [
            "tests",
            "benches",
            "examples",
            "build.rs",
            "build_info.rs",
            "../xtask",
        ] {
            names_in(&package.join(folder), &mut taken);
        }
        for known in ["SPLITLOCK_AGENT", "SPLITLOCK_RIG", "SPLITLOCK_REVISION"] {
            assert!(taken.contains(known), "{known} is not in {taken:?}");
        }
        let clash: Vec<_> = flags.keys().filter(|name| taken.contains(*name)).collect();
        assert!(clash.is_empty(), "{clash:?}");
    }

    /// Tests of the variables themselves.
    const ABOUT_VARIABLES: &str = "command_line.rs";

    fn names_in(path: &Path, names: &mut BTreeSet<String>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                names_in(&entry.unwrap().path(), names);
            }
            return;
        }
        let is_source = path.extension().is_some_and(|ext| ext == "rs");
        if !is_source || path.ends_with(ABOUT_VARIABLES) {
            return;
        }
        let text = fs::read_to_string(path).unwrap();
        for (at, _) in text.match_indices(PREFIX) {
            let name = text[at..]
                .split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')
                .next();
            names.extend(name.map(str::to_owned));
        }
    }

    #[test]
    fn typed_flags_are_told_from_variables() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(Into::into).collect() };
        assert!(is_given("limit.vms", &words("run --limit.vms 5")));
        assert!(is_given("limit.vms", &words("run --limit.vms=5")));
        assert!(!is_given("limit.vms", &words("run --limit.vmsx 5")));
        assert!(!is_given("limit.vms", &words("run limit.vms")));
    }
}
