//! What goes on on a hypervisor that `cargo xtask fleet` shows: VMs and services, some of which lock
//! the bus, in warn mode.
//!
//! `real_events hypervisor (vm NAME UUID SPLIT_LOCKS_PER_SECOND | service NAME SPLIT_LOCKS_PER_SECOND)…`
//! writes `ready` when all of them run, and goes on until it is killed or its input ends, with all of
//! them.

use std::{
    io::{self, Read as _},
    process::ExitCode,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    cgroup::Cgroup,
    events::{
        Child, Event,
        guise::Guise,
        steady::Steady,
        trap_module::{Mode, set_mode},
    },
};

/// Writes to a port of a guest that offends nobody.
const QUIET_PER_SECOND: u32 = 5;

/// One of those that run there.
enum Tenant {
    /// A VM of libvirt's; with a rate of 0 it is a good neighbour.
    Vm {
        name: String,
        uuid: String,
        per_second: u32,
    },
    /// A service of systemd's.
    Service { name: String, per_second: u32 },
}

/// Runs them.
pub fn main(words: &[String]) -> ExitCode {
    match host(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("real_events hypervisor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn host(words: &[String]) -> Result<()> {
    let tenants = parse(words)?;
    let mut mode = set_mode(Mode::Warn)?;
    // As on the CPUs that have one: bus locks came later.
    mode.set_cpu_flags(true, false)?;
    let mut running: Vec<(Child, Cgroup)> = tenants
        .iter()
        .enumerate()
        .map(|(index, tenant)| tenant.start(index + 1))
        .collect();
    println!("ready");
    let (sender, input) = channel::<()>();
    thread::spawn(move || {
        // Its end is all that is wanted.
        let _ = io::stdin().read_to_end(&mut vec![]);
        drop(sender);
    });
    while input.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        for (child, _cgroup) in &mut running {
            if let Some(how) = child.ended() {
                bail!("{how}");
            }
        }
    }
    Ok(())
}

fn parse(mut words: &[String]) -> Result<Vec<Tenant>> {
    let rate = |word: &String| -> Result<u32> {
        let rate = word.parse();
        rate.with_context(|| format!("{word:?} is no rate"))
    };
    let mut tenants = vec![];
    while let [kind, rest @ ..] = words {
        let (tenant, rest) = match (kind.as_str(), rest) {
            ("vm", [name, uuid, per_second, rest @ ..]) => {
                let (name, uuid) = (name.clone(), uuid.clone());
                let per_second = rate(per_second)?;
                let vm = Tenant::Vm {
                    name,
                    uuid,
                    per_second,
                };
                (vm, rest)
            }
            ("service", [name, per_second, rest @ ..]) => {
                let (name, per_second) = (name.clone(), rate(per_second)?);
                (Tenant::Service { name, per_second }, rest)
            }
            _ => bail!("{words:?}: wanted vm NAME UUID RATE or service NAME RATE"),
        };
        tenants.push(tenant);
        words = rest;
    }
    ensure!(!tenants.is_empty(), "nobody is to run");
    Ok(tenants)
}

impl Tenant {
    /// Starts it as its own kind is started: program, arguments and cgroup are those that libvirt and
    /// systemd give.
    fn start(&self, number: usize) -> (Child, Cgroup) {
        let (mut child, cgroup) = match self {
            Self::Vm {
                name,
                uuid,
                per_second,
            } => {
                let (steady, per_second) = match *per_second {
                    0 => (Steady::Guest, QUIET_PER_SECOND),
                    per_second => (Steady::OffendingGuest, per_second),
                };
                let guise = Guise::new(
                    "qemu-system-x86_64",
                    &format!("-name guest={name},debug-threads=on -S -uuid {uuid}"),
                );
                let event = Event::Steady { steady, per_second };
                let child = Child::spawn_as(&event, "qemu-system-x86", &guise);
                let scope = format!(r"/machine.slice/machine-qemu\x2d{number}\x2d{name}.scope");
                (child, Cgroup::make(&scope))
            }
            Self::Service { name, per_second } => {
                let event = Event::Steady {
                    steady: Steady::OffendingProcess,
                    per_second: *per_second,
                };
                let child = Child::spawn(&event, name);
                let unit = format!("/system.slice/{name}.service");
                (child, Cgroup::make(&unit))
            }
        };
        cgroup.add(child.pid());
        child.go();
        (child, cgroup)
    }
}
