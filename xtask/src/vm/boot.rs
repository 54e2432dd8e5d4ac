//! One boot of one kernel, under limits of time.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{
    kernels::Kernel, protocol::AGENT_PORT, qemu::Qemu, results::Boot, scenarios::Scenario,
};

/// From QEMU's start to `rig-init`: 3 to 7 s on an idle machine.
pub const TO_BOOT: Duration = Duration::from_secs(90);
/// Between two reports: the longest test takes less on an idle machine.
const BETWEEN_REPORTS: Duration = Duration::from_secs(180);
/// All of it.
const IN_ALL: Duration = Duration::from_secs(1200);

/// `-cpu EPYC,+svm` has nested SVM, and unlike `max` it never hung. Emulation lacks some of its
/// features, which QEMU says at every start.
const MACHINE: [&str; 10] = [
    "-machine",
    "pc",
    "-cpu",
    "EPYC,+svm",
    "-m",
    "1G",
    "-display",
    "none",
    "-nodefaults",
    "-no-user-config",
];
/// A panic and the restart at the end end QEMU.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 reboot=t";

/// Where QEMU's own network has its first host.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// What a boot needs.
pub struct Machine<'a> {
    /// The emulator.
    pub qemu: &'a Qemu,
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The file of the initramfs.
    pub initramfs: &'a Path,
    /// Where the console goes; with `.qemu` appended, what QEMU says.
    pub log: PathBuf,
    /// The number of CPUs.
    pub cpus: usize,
    /// Whether the machine's clock counts instructions, one a nanosecond. It has one CPU then.
    pub counts_instructions: bool,
    /// Times the usual limits, but for the start.
    pub patience: u32,
    /// A port of this machine's loopback that leads to the agent's in there.
    pub agent_port: Option<u16>,
}

impl Machine<'_> {
    /// Boots, and once more if that hangs. Every report is told as a line.
    pub fn boot(&self, say: &dyn Fn(&str)) -> Result<Boot> {
        let first = self.attempt(&self.log, say)?;
        if !first.is_hang() {
            return Ok(first);
        }
        let why = first.failures().join("; ");
        // The log of the first attempt stays.
        let kept = self.log.with_extension("first.log");
        fs::rename(&self.log, &kept)
            .with_context(|| format!("cannot rename {}", self.log.display()))?;
        say(&format!("{why} (see {}); once more", kept.display()));
        let mut second = self.attempt(&self.log, say)?;
        second.hangs.push(format!("{why}, see {}", kept.display()));
        Ok(second)
    }

    /// Starts it, and leaves everything else to the caller.
    pub fn start(&self) -> Result<Running> {
        Running::start(&mut self.command(&self.log)?)
    }

    fn attempt(&self, log: &Path, say: &dyn Fn(&str)) -> Result<Boot> {
        let mut result = Boot::new(self.kernel, self.scenario, log.to_owned());
        let start = Instant::now();
        let mut command = self.command(log)?;
        let mut running = Running::start(&mut command)?;
        let mut limit = TO_BOOT;
        let mut last = "its start".to_owned();
        let killed = loop {
            let left = (IN_ALL * self.patience).saturating_sub(start.elapsed());
            match running.reports.recv_timeout(limit.min(left)) {
                Ok(line) => {
                    limit = BETWEEN_REPORTS * self.patience;
                    match serde_json::from_str(&line) {
                        Ok(report) => {
                            if let Some(line) = result.take(report, self.scenario) {
                                say(&line);
                                last = line;
                            }
                        }
                        Err(error) => result.problems.push(format!("{error} in report {line:?}")),
                    }
                }
                // The machine has ended.
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = start.elapsed().as_secs();
                    break Some(format!("it hung after {last:?}; killed after {seconds} s"));
                }
            }
        };
        running.end()?;
        result.end(start.elapsed(), killed);
        // It is not there if QEMU did not start.
        let console = fs::read(log).unwrap_or_default();
        let complaints = complaints(&String::from_utf8_lossy(&console));
        result.problems.extend(complaints);
        Ok(result)
    }

    fn command(&self, log: &Path) -> Result<Command> {
        let said = log.with_extension("qemu.log");
        let said =
            File::create(&said).with_context(|| format!("cannot create {}", said.display()))?;
        let mut qemu = self.qemu.command();
        qemu.args(MACHINE)
            .args(if self.counts_instructions {
                // `sleep=off`: nobody waits for time to pass while nothing runs.
                &[
                    "-accel",
                    "tcg,thread=single",
                    "-icount",
                    "shift=0,sleep=off",
                ][..]
            } else {
                &["-accel", "tcg,thread=multi"]
            })
            .arg("-smp")
            .arg(self.cpus.to_string())
            .arg("-serial")
            .arg(format!("file:{}", log.display()))
            // Reports.
            .args(["-serial", "stdio", "-no-reboot", "-kernel"])
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .arg("-append")
            .arg(format!("{KERNEL} {}", self.scenario.parameters))
            .args(self.agent_port.map_or_else(Vec::new, network))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said);
        Ok(qemu)
    }
}

/// A card in a network of QEMU's own, which leads nowhere but to the agent.
fn network(agent_port: u16) -> Vec<String> {
    let forward = format!("hostfwd=tcp:127.0.0.1:{agent_port}-{ADDRESS}:{AGENT_PORT}");
    [
        "-netdev",
        &format!("user,id=n0,restrict=on,{forward}"),
        // Nobody boots from it.
        "-device",
        "virtio-net-pci,netdev=n0,romfile=",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What the kernel itself says is wrong, on the console. A lockup is the emulation's slowness.
fn complaints(console: &str) -> Vec<String> {
    console
        .lines()
        .filter(|line| {
            ["] BUG: ", "] WARNING: ", "] Oops: "]
                .iter()
                .any(|start| line.contains(start))
                && !line.contains("soft lockup")
        })
        .map(|line| line.trim().to_owned())
        .collect()
}

/// A QEMU that runs. It is killed when this value is dropped, and when xtask dies.
pub struct Running {
    process: Child,
    /// Lines of the second serial port, to the machine's end.
    pub reports: Receiver<String>,
    command: String,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        // Ctrl-C is for xtask, which ends the machine or takes it with it.
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut process = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = process.stdout.take().context("stdout is a pipe")?;
        Ok(Self {
            process,
            reports: lines(stdout),
            command: format!("{command:?}"),
        })
    }

    /// Kills it if it still runs.
    fn end(&mut self) -> Result<()> {
        // Its output has ended, or its time; in the first case it is about to exit by itself.
        thread::sleep(Duration::from_millis(50));
        let _ = self.process.kill();
        self.process
            .wait()
            .with_context(|| format!("cannot wait for {}", self.command))?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            // Terminals end lines with CR LF.
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_complaints_are_found() {
        let console = "test traps::a ... ok\r\n\
            [    4.1] WARNING: CPU: 0 PID: 1 at kernel/bpf/syscall.c:1 f+0x1/0x2\r\n\
            [    5.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\r\n\
            [    5.1] BUG: unable to handle page fault for address: 0\r\n\
            WARN splitlock_agent: something\r\n";
        let found = complaints(console);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("f+0x1/0x2"));
    }
}
