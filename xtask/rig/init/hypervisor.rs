//! A hypervisor with tenants and an agent, until the machine is ended.

use std::{
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    agent, machine, network,
    port::Port,
    protocol::{Hypervisor, Report, TESTS},
};

/// The only network card.
const INTERFACE: &str = "eth0";

/// Runs it. Returns only if something fails.
pub fn run(port: &Port, hypervisor: &Hypervisor, agent_args: &[String]) -> Result<()> {
    let Hypervisor {
        name,
        address,
        tenants,
    } = hypervisor;
    machine::set_name(name)?;
    network::up_with(INTERFACE, *address)?;
    let mut command = Command::new(TESTS);
    command
        .arg("hypervisor")
        .args(tenants)
        // It ends with its input.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut tenants = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = tenants.stdout.take().context("stdout is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .context("waiting for the tenants")?;
    ensure!(
        line.trim_end() == "ready",
        "the tenants do not run; the console says why"
    );
    let (mut agent, snapshot) = agent::start(Ipv4Addr::UNSPECIFIED, "info", agent_args)?;
    port.send(&Report::Agent { snapshot });
    loop {
        for (who, process) in [("the tenants", &mut tenants), ("the agent", &mut agent)] {
            if let Some(status) = process.try_wait().context("cannot wait")? {
                bail!("{who} ended: {status}");
            }
        }
        thread::sleep(Duration::from_millis(500));
    }
}
