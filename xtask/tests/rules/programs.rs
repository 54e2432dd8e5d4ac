//! Where the programs are that the tests run.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// One of them; `cargo xtask test` says where it is.
#[derive(Clone, Copy)]
pub enum Program {
    Promtool,
    Alertmanager,
    Amtool,
}

impl Program {
    /// The variable that names it.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Promtool => "SPLITLOCK_PROMTOOL",
            Self::Alertmanager => "SPLITLOCK_ALERTMANAGER",
            Self::Amtool => "SPLITLOCK_AMTOOL",
        }
    }

    /// Where it is.
    pub fn path(self) -> Option<PathBuf> {
        env::var_os(self.variable()).map(PathBuf::from)
    }

    /// Runs it, and fails with all that it said unless it succeeds.
    #[track_caller]
    pub fn succeeds(self, arguments: &[&str], files: &[&Path]) -> Output {
        let mut command = Command::new(self.path().expect("checked"));
        command.args(arguments).args(files);
        let output = command.output().expect("it starts");
        assert!(
            output.status.success(),
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}

/// Whether a test that cannot run is a failure.
pub fn must_run() -> bool {
    env::var_os("SPLITLOCK_TESTS_MUST_RUN").is_some()
}
