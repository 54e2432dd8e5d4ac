//! Whose a process is: its unit, its container, its pod, also when it is gone before anyone looks.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    ptr,
};

use super::{
    Test,
    agent::{Agent, Metrics},
    cgroup::Cgroup,
    events::{
        Child, Event,
        crowd::Each,
        trap_module::{Mode, set_mode},
    },
    requirements::Requirement::{AlignmentChecks, Cgroups, PidChoice, Root, TrapModule},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "owners::units_containers_and_pods",
        needs: &[Root, Cgroups, AlignmentChecks],
        run: units_containers_and_pods,
    },
    Test {
        name: "owners::those_that_die_at_once_keep_their_cgroup",
        needs: &[Root, Cgroups, AlignmentChecks],
        run: those_that_die_at_once_keep_their_cgroup,
    },
    Test {
        name: "owners::a_reused_pid_is_another_subject",
        needs: &[Root, AlignmentChecks, PidChoice],
        run: a_reused_pid_is_another_subject,
    },
    Test {
        name: "owners::other_mount_points_tell_the_same",
        needs: &[Root, Cgroups, AlignmentChecks],
        run: other_mount_points_tell_the_same,
    },
];

/// Those of locks, for the rig.
pub const LOCK_TESTS: &[Test] = &[Test {
    name: "owners::a_service_that_crashes_and_comes_back_is_one_workload",
    needs: &[Root, Cgroups, TrapModule],
    run: a_service_that_crashes_and_comes_back_is_one_workload,
}];

fn checks(count: u64) -> Event {
    Event::AlignmentCheck { count, threads: 1 }
}

/// The labels of a process's info, but comm and pid.
fn owner(metrics: &Metrics, pid: u32) -> Option<BTreeMap<String, String>> {
    let pid = format!(r#"pid="{pid}""#);
    let infos = metrics.family("splitlock_process_info");
    let labels = infos.keys().find(|series| series.contains(&pid))?;
    let labels = labels.split_once('{')?.1.strip_suffix("\"}")?;
    Some(
        labels
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .filter(|(name, _)| !["comm", "pid"].contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

fn units_containers_and_pods() {
    let id = "0123456789abcdef".repeat(4);
    let pod = "11112222-3333-4444-5555-666677778888";
    let slice = format!("kubepods-pod{}.slice", pod.replace('-', "_"));
    // cgroup, the `cgroup` label, unit, container, pod.
    let cases = [
        (
            "/system.slice/splitlock-web.service".to_owned(),
            None,
            "splitlock-web.service",
            String::new(),
            "",
        ),
        (
            format!("/system.slice/docker-{id}.scope/inner"),
            Some(format!("/system.slice/docker-{id}.scope")),
            "",
            format!("docker://{id}"),
            "",
        ),
        (
            format!("/kubepods.slice/{slice}/cri-containerd-{id}.scope"),
            None,
            "",
            format!("containerd://{id}"),
            pod,
        ),
        (
            format!("/machine.slice/libpod-{id}.scope"),
            None,
            "",
            format!("podman://{id}"),
            "",
        ),
    ];
    let agent = Agent::start(&[]);
    for (path, shown, unit, container, pod) in cases {
        let cgroup = Cgroup::make(&path);
        let mut child = Child::spawn(&checks(3), "owned");
        cgroup.add(child.pid());
        child.run();
        let labels = owner(&agent.metrics(), child.pid()).expect("it has an owner");
        assert_eq!(labels["cgroup"], shown.unwrap_or(path), "{labels:?}");
        assert_eq!(labels["container_id"], container, "{labels:?}");
        assert_eq!(labels["pod_uid"], pod, "{labels:?}");
        if !unit.is_empty() {
            assert_eq!(labels["unit"], unit, "{labels:?}");
        }
        let own = fs::read_link("/proc/self/exe").expect("this binary");
        assert_eq!(Path::new(&labels["exe"]), own, "{labels:?}");
        child.end();
    }
}

fn those_that_die_at_once_keep_their_cgroup() {
    let path = "/system.slice/splitlock-mortal.service";
    let cgroup = Cgroup::make(path);
    let agent = Agent::start(&[]);
    let event = Event::Crowd {
        first: 0,
        each: Each::AlignmentCheck,
        count: 200,
    };
    let mut child = Child::spawn(&event, "mortal");
    cgroup.add(child.pid());
    child.run();
    child.end();
    let metrics = agent.metrics();
    let infos = metrics.family("splitlock_process_info");
    let own = infos
        .keys()
        .filter(|series| series.contains(r#"{comm="mortal-"#))
        .filter(|series| {
            series.contains(&format!(
                r#"cgroup="{path}",unit="splitlock-mortal.service""#
            ))
        });
    assert_eq!(own.count(), 200, "{infos:#?}");
}

/// Starts a child under a pid that was another's, as soon as that can be had.
fn spawn_with_pid(event: &Event, comm: &str, pid: u32) -> Option<Child> {
    for _ in 0..50 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("checked");
        let child = Child::spawn(event, comm);
        if child.pid() == pid {
            return Some(child);
        }
    }
    None
}

fn a_reused_pid_is_another_subject() {
    let agent = Agent::start(&[]);
    let series = |comm: &str, pid: u32| {
        format!(r#"splitlock_process_alignment_checks_total{{comm="{comm}",pid="{pid}"}}"#)
    };
    // Somebody else may take the pid meanwhile.
    for _ in 0..5 {
        let mut first = Child::spawn(&checks(5), "reused");
        let pid = first.pid();
        first.run();
        assert_eq!(agent.metrics().count(&series("reused", pid)), 5);
        first.end();
        let Some(mut second) = spawn_with_pid(&checks(7), "reused", pid) else {
            continue;
        };
        second.run();
        // The labels are the same, so the counter goes on; the snapshot tells them apart.
        assert_eq!(agent.metrics().count(&series("reused", pid)), 12);
        let snapshot = agent.snapshot();
        let rows: Vec<(u64, u64)> = snapshot["processes"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|row| row["pid"] == pid)
            .filter_map(|row| {
                Some((
                    row["start_ticks"].as_u64()?,
                    row["alignment_checks"].as_u64()?,
                ))
            })
            .collect();
        let counts: Vec<u64> = rows.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [5, 7], "{rows:?}");
        assert_ne!(rows[0].0, rows[1].0);
        second.end();
        let Some(mut third) = spawn_with_pid(&checks(2), "another", pid) else {
            continue;
        };
        third.run();
        let metrics = agent.metrics();
        assert_eq!(metrics.count(&series("another", pid)), 2);
        assert_eq!(metrics.count(&series("reused", pid)), 12);
        return;
    }
    panic!("no pid could be had again in five attempts");
}

/// Binds `/proc` and `/sys` elsewhere, for the calling process alone, and takes a process out of
/// its `/proc`.
fn move_file_systems(folder: &Path, hidden: u32) -> io::Result<()> {
    let path = |path: PathBuf| {
        std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).map_err(io::Error::other)
    };
    let mount = |from: &std::ffi::CStr, to: PathBuf, kind: &std::ffi::CStr, flags| {
        let to = path(to)?;
        // SAFETY: strings that end with NUL; no data.
        match unsafe {
            libc::mount(
                from.as_ptr(),
                to.as_ptr(),
                kind.as_ptr(),
                flags,
                ptr::null(),
            )
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: only the mount namespace is left behind.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bind = libc::MS_BIND | libc::MS_REC;
    mount(c"none", "/".into(), c"", libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"/proc", folder.join("proc"), c"", bind)?;
    mount(c"/sys", folder.join("sys"), c"", bind)?;
    mount(c"none", format!("/proc/{hidden}").into(), c"tmpfs", 0)
}

fn other_mount_points_tell_the_same() {
    let path = "/system.slice/splitlock-elsewhere.service";
    let cgroup = Cgroup::make(path);
    let mut child = Child::spawn(&checks(4), "elsewhere");
    cgroup.add(child.pid());
    let folder = std::env::temp_dir().join(format!("splitlock-paths-{}", std::process::id()));
    for name in ["proc", "sys"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let flag = |name: &str, folder: &Path| format!("--path.{name}={}", folder.display());
    let flags = [
        flag("procfs", &folder.join("proc")),
        flag("sysfs", &folder.join("sys")),
    ];
    let usual = Agent::start(&[]);
    let moved = [&flags[..], &[]].map(|flags| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (folder, hidden) = (folder.clone(), child.pid());
        Agent::start_prepared(&flags, |command| {
            // SAFETY: the test's other threads hold no lock that an allocation here could wait
            // for: std's allocator is glibc's, which a fork leaves usable.
            unsafe { command.pre_exec(move || move_file_systems(&folder, hidden)) };
        })
    });
    child.run();
    let [told, not_told] = moved;
    let expected = owner(&usual.metrics(), child.pid()).expect("it has an owner");
    assert_eq!(expected["unit"], "splitlock-elsewhere.service");
    assert_eq!(
        owner(&told.metrics(), child.pid()).as_ref(),
        Some(&expected)
    );
    // Without the flags the process is out of reach, and what the kernel side knows is all.
    let left = owner(&not_told.metrics(), child.pid()).expect("it has a cgroup");
    assert_eq!(
        (left["exe"].as_str(), left["unit"].as_str()),
        ("", "splitlock-elsewhere.service")
    );
    drop((told, not_told, usual));
    fs::remove_dir_all(&folder).expect("the folders are empty");
}

fn a_service_that_crashes_and_comes_back_is_one_workload() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let cgroup = Cgroup::make("/system.slice/splitlock-crasher.service");
    let agent = Agent::start(&["--retention", "0s"]);
    let series = r#"splitlock_workload_traps_total{comm="crasher",unit="splitlock-crasher.service",trap="split_lock",outcome="sigbus"}"#;
    for lives in 1..=20 {
        let event = Event::TrapModuleFatal {
            trap: super::events::trap_module::Trap::UserSplitLock,
            ip: 0x40_1000,
        };
        let mut child = Child::spawn(&event, "crasher");
        cgroup.add(child.pid());
        child.go();
        child.end();
        agent.wait_for("the last life in the workload's count", |metrics| {
            metrics.count(series) == lives
        });
    }
    let metrics = agent.metrics();
    assert_eq!(metrics.family("splitlock_workload_traps_total").len(), 1);
    // The lives themselves are forgotten by now.
    assert!(metrics.family("splitlock_process_traps_total").len() <= 1);
}
