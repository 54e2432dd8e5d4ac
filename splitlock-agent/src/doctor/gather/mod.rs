//! The rim: reads the host, attaches for a moment, asks the agent that runs.

mod abilities;
mod agent;
mod boot;
mod cpu;
mod hooks;
mod kvm;

use std::fs;

use rustix::{
    process::{Resource, geteuid, getrlimit},
    thread::{CapabilitySet, capabilities},
};

use super::facts::{Check, Facts, Kernel, Limits, Rights, TracefsState};
use crate::{
    cli::doctor::DoctorOptions,
    detection::Monitor,
    host::{Host, privileges, tracefs::Tracefs},
    intake::kernel_log::{Batch, KernelLog},
    probes::Probe,
    start::{self, Attached, Ground},
};

/// Finds out everything. To be called before there are other threads, as [`Ground::look`].
///
/// # Errors
/// A runtime cannot be started.
pub fn gather(options: &DoctorOptions) -> std::io::Result<Facts> {
    let rights = Rights {
        missing: privileges::missing(),
        lacking: privileges::lacking(),
        pid_namespace: options.counting.paths.paths().check().into(),
    };
    let ground = Ground::look();
    let agent = agent::ask(options.url.as_deref(), &options.remote);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (kernel_log, history) = open_log(options);
    let tried = if let Some(missing) = &rights.missing {
        Err(missing.clone())
    } else if let Err(reason) = &ground.host.layout {
        Err(reason.clone())
    } else {
        runtime
            .block_on(attach(options, &ground))
            .map_err(|error| format!("{error:#}"))
    };
    let cpu = cpu::read(ground.host.cpu);
    let tracefs = tracefs_state(&ground.tracefs);
    let (hooks, detection) = hooks::weigh(
        options,
        &ground.host,
        &tracefs,
        tried,
        &kernel_log,
        history.as_ref(),
        &agent,
    );
    Ok(Facts {
        kvm: kvm::look(),
        kernel: kernel(&ground.host),
        tracefs,
        btf: Check::from(ground.host.layout.as_ref().map_err(Clone::clone)),
        limits: limits(options, &ground),
        cpu,
        detection,
        hooks,
        rights,
        kernel_log,
        agent,
    })
}

/// The log is opened once more by the attaching; here it is for those that may not attach.
fn open_log(options: &DoctorOptions) -> (Check, Option<Batch>) {
    match KernelLog::open(&options.counting.paths.paths().rootfs) {
        Ok((_log, history)) => (Check::default(), Some(history)),
        Err(error) => (Err::<(), _>(format!("/dev/kmsg: {error}")).into(), None),
    }
}

async fn attach(options: &DoctorOptions, ground: &Ground) -> anyhow::Result<(Vec<Probe>, Monitor)> {
    let mut counting = options.counting.clone();
    // They would be turned on for all programs of the host.
    counting.hooks.probe_statistics = false;
    counting.hooks.max_overhead = None;
    Ok(Attached::attach(&counting, ground, false)?.examine().await)
}

fn kernel(host: &Host) -> Kernel {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").ok();
    Kernel {
        release: host.kernel_release.clone(),
        version: host.kernel_version(),
        preemptible: host.preemptible,
        lockdown: lockdown.as_deref().and_then(chosen).map(str::to_owned),
        abilities: abilities::read(),
        unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        parameter: host.parameter.clone(),
        parameter_files: boot::parameter_files(),
        boot_loader: boot::loader(),
    }
}

/// The word in brackets, as in `none [integrity] confidentiality`.
fn chosen(state: &str) -> Option<&str> {
    state.split('[').nth(1)?.split(']').next()
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn tracefs_state(tracefs: &Tracefs) -> TracefsState {
    match tracefs {
        Tracefs::Found(path) => TracefsState::Mounted(path.display().to_string()),
        Tracefs::Private(_) => TracefsState::Private,
        Tracefs::Missing(reason) => {
            // It is root's alone, and then looks as if it were not there.
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let is_mounted = mounts
                .lines()
                .any(|line| line.split(' ').nth(2) == Some("tracefs"));
            if is_mounted && !geteuid().is_root() {
                TracefsState::Closed
            } else {
                TracefsState::Missing(reason.clone())
            }
        }
    }
}

fn limits(options: &DoctorOptions, ground: &Ground) -> Limits {
    let counting = &options.counting.limits;
    Limits {
        descriptors: ground.descriptors,
        watched: start::watched(ground.descriptors) as u64,
        subjects: u64::from(counting.processes) + u64::from(counting.vms),
        memlock: getrlimit(Resource::Memlock).maximum,
        can_raise: capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_lockdown_is_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality\n"),
            Some("integrity")
        );
        assert_eq!(chosen("[none] integrity confidentiality"), Some("none"));
        assert_eq!(chosen(""), None);
    }
}
