//! The agent of the machine that the fleet is shown on.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{interrupt::Interrupt, server::Server};
use crate::command;

/// What sudo starts cannot be sent a signal by who asked for it. So a shell of root's ends the agent
/// when its input ends: that is when xtask closes it, or dies. It ends with the agent, too.
const UNTIL_INPUT_ENDS: &str = r#"
exec 3<&0
"$@" 3<&- &
agent=$!
{ cat <&3 > /dev/null; kill "$agent"; } &
watcher=$!
wait "$agent"
status=$?
kill "$watcher"
exit "$status"
"#;

/// Starts it on a port of the loopback and waits until it serves.
pub fn start(agent: &Path, port: u16, folder: &Path, interrupt: &Interrupt) -> Result<Server> {
    let mut command = if command::is_root() {
        let mut command = Command::new(agent);
        // Ctrl-C is for xtask, which ends the agent when those that ask it have ended.
        command.process_group(0);
        command
    } else {
        let sudo = command::on_path("sudo")
            .context("it needs root's rights, and there is no sudo here")?;
        let mut command = Command::new(sudo);
        command
            .args(["--", "sh", "-c", UNTIL_INPUT_ENDS, "sh"])
            .arg(agent);
        command
    };
    command.args(["run", "--web.listen-address", &format!("127.0.0.1:{port}")]);
    let mut server = Server::start("agent", &mut command, folder)?;
    server.wait_for(&format!("http://127.0.0.1:{port}/readyz"), interrupt)?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use std::process::{ExitStatus, Stdio};

    use super::*;

    fn run(program: &[&str], input: Stdio) -> ExitStatus {
        let mut command = Command::new("sh");
        command.args(["-c", UNTIL_INPUT_ENDS, "sh"]).args(program);
        command.stdin(input).stderr(Stdio::null()).status().unwrap()
    }

    #[test]
    fn the_shell_ends_what_it_started_with_its_input() {
        let status = run(&["sleep", "1000"], Stdio::null());
        // SIGTERM, as a shell tells it.
        assert_eq!(status.code(), Some(128 + 15));
    }

    #[test]
    fn the_shell_ends_with_what_it_started() {
        let (input, _open) = std::io::pipe().unwrap();
        assert_eq!(run(&["sh", "-c", "exit 7"], input.into()).code(), Some(7));
    }
}
