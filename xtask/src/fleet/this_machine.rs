//! The agent of the machine that the fleet is shown on.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{interrupt::Interrupt, server::Server};
use crate::command;

/// What sudo starts cannot be sent a signal by who asked for it. So a shell of root's ends the agent
/// when its input ends: that is when xtask closes it, or dies.
const UNTIL_INPUT_ENDS: &str = r#""$@" & cat > /dev/null; kill "$!"; wait "$!""#;

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
