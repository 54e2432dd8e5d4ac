//! VMs under the names that their owners use: the project's own VMM in the guise of each other one.

use std::collections::BTreeMap;

use super::{
    Test,
    agent::{Agent, Metrics},
    cgroup::Cgroup,
    events::{Child, Event, guise::Guise, kvm_guest::Guest},
    guests::vm_id,
    requirements::Requirement::{AlignmentChecks, Cgroups, Kvm, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "names::every_vmm_by_its_conventions",
        needs: &[Root, Kvm, Cgroups, AlignmentChecks],
        run: every_vmm_by_its_conventions,
    },
    Test {
        name: "names::they_stay_after_a_restart_and_a_new_comm",
        needs: &[Root, Kvm],
        run: they_stay_after_a_restart_and_a_new_comm,
    },
    Test {
        name: "names::a_vm_that_comes_back_goes_on_in_its_series",
        needs: &[Root, Kvm],
        run: a_vm_that_comes_back_goes_on_in_its_series,
    },
    Test {
        name: "names::a_vm_that_was_killed_leaves_its_uuid_at_once",
        needs: &[Root, Kvm],
        run: a_vm_that_was_killed_leaves_its_uuid_at_once,
    },
    Test {
        name: "names::hostile_names_stay_names",
        needs: &[Root, Kvm],
        run: hostile_names_stay_names,
    },
    Test {
        name: "names::a_vm_is_there_before_it_runs",
        needs: &[Root, Kvm],
        run: a_vm_is_there_before_it_runs,
    },
];

const COUNT: u64 = 5;

/// A VMM, as its users start it, and what is to be shown for it.
struct Case {
    program: &'static str,
    arguments: String,
    cgroup: String,
    name: &'static str,
    /// `None`: pid and start time.
    uuid: Option<String>,
    vmm: &'static str,
    /// The `cgroup` label, if it is not the process's own.
    shown_cgroup: Option<String>,
    container_id: String,
    pod_uid: &'static str,
}

/// A UUID that differs from case to case, in upper case as some tools write it.
fn uuid(number: u32) -> String {
    format!("6D1F0B4A-0000-4000-8000-{number:012X}")
}

fn case(program: &'static str, arguments: String, cgroup: &str, name: &'static str) -> Case {
    Case {
        program,
        arguments,
        cgroup: cgroup.to_owned(),
        name,
        uuid: None,
        vmm: "qemu",
        shown_cgroup: None,
        container_id: String::new(),
        pod_uid: "",
    }
}

const POD: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

/// Each row of the table in docs/operations.md that can be played here.
fn cases() -> Vec<Case> {
    let qemu = "qemu-system-x86_64";
    let container = "c0ffee".repeat(10) + "c0ff";
    let pod = format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{container}.scope",
        POD.replace('-', "_")
    );
    let machine = r"/machine.slice/machine-qemu\x2d7\x2dsplitlock\x2ddb.scope";
    vec![
        Case {
            uuid: Some(uuid(1)),
            shown_cgroup: Some(machine.to_owned()),
            ..case(
                qemu,
                format!(
                    "-name guest=splitlock-db,debug-threads=on -S -uuid {}",
                    uuid(1)
                ),
                &format!("{machine}/libvirt/emulator"),
                "splitlock-db",
            )
        },
        Case {
            uuid: Some(uuid(2)),
            ..case(
                qemu,
                format!(
                    "-uuid {} -name guest=instance-0000002a,debug-threads=on",
                    uuid(2)
                ),
                "/machine.slice/machine-qemu\\x2d8\\x2dinstance\\x2d0000002a.scope",
                "instance-0000002a",
            )
        },
        case(
            qemu,
            "-m 64 -name first -name a,,b".to_owned(),
            "/splitlock-test/plain",
            "a,b",
        ),
        Case {
            uuid: Some(uuid(3)),
            ..case(
                "qemu-kvm",
                format!("-nodefaults -uuid {}", uuid(3)),
                "/splitlock-test/nameless",
                "vmm-case",
            )
        },
        Case {
            uuid: Some(uuid(4)),
            ..case(
                "kvm",
                format!(
                    "-id 4711 -name web4711,debug-threads=on -smbios type=1,uuid={}",
                    uuid(4)
                ),
                "/qemu.slice/4711.scope",
                "web4711",
            )
        },
        Case {
            uuid: Some(uuid(5)),
            container_id: format!("containerd://{container}"),
            pod_uid: POD,
            ..case(
                qemu,
                format!("-name guest=shop_cart,debug-threads=on -uuid {}", uuid(5)),
                &pod,
                "shop_cart",
            )
        },
        Case {
            vmm: "firecracker",
            ..case(
                "firecracker",
                "--id=fc-4711 --start-time-us=1 --api-sock /run/fc.sock".to_owned(),
                "/firecracker/fc-4711",
                "fc-4711",
            )
        },
        Case {
            vmm: "cloud-hypervisor",
            ..case(
                "cloud-hypervisor",
                "--api-socket /run/ch/mail.sock --cpus boot=1".to_owned(),
                "/splitlock-test/ch",
                "mail",
            )
        },
        Case {
            vmm: "crosvm",
            ..case(
                "crosvm",
                "run --name linux --cpus 1".to_owned(),
                "/splitlock-test/cros",
                "linux",
            )
        },
        Case {
            vmm: "kvmtool",
            ..case(
                "lkvm",
                "run --name toy -c 1".to_owned(),
                "/splitlock-test/lkvm",
                "toy",
            )
        },
        Case {
            vmm: "qemu",
            ..case(
                qemu,
                "-name sandbox-0123456789abcdef,debug-threads=on".to_owned(),
                "/splitlock-test/kata",
                "sandbox-0123456789abcdef",
            )
        },
        Case {
            vmm: "other",
            ..case(
                "my-vmm",
                "--name ignored".to_owned(),
                "/splitlock-test/other",
                "vmm-case",
            )
        },
    ]
}

fn every_vmm_by_its_conventions() {
    let agent = Agent::start(&[]);
    let cases = cases();
    let cgroups: Vec<Cgroup> = cases
        .iter()
        .map(|case| Cgroup::make(&case.cgroup))
        .collect();
    let event = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: COUNT,
        vcpus: 1,
    };
    let mut children: Vec<Child> = cases
        .iter()
        .zip(&cgroups)
        .map(|(case, cgroup)| {
            let guise = Guise::new(case.program, &case.arguments);
            let child = Child::spawn_as(&event, "vmm-case", &guise);
            cgroup.add(child.pid());
            child
        })
        .collect();
    for child in &mut children {
        child.run();
    }
    let metrics = agent.metrics();
    for (case, child) in cases.iter().zip(&children) {
        let pid = child.pid();
        let id = case
            .uuid
            .as_deref()
            .map_or_else(|| vm_id(pid), str::to_lowercase);
        let vm = format!(r#"vm="{}",id="{id}""#, case.name);
        let cgroup = case.shown_cgroup.as_ref().unwrap_or(&case.cgroup);
        // As the exposition escapes a label's value.
        let cgroup = cgroup.replace('\\', r"\\");
        let info = format!(
            r#"splitlock_vm_info{{{vm},vmm="{}",pid="{pid}",cgroup="{cgroup}",container_id="{}",pod_uid="{}"}}"#,
            case.vmm, case.container_id, case.pod_uid
        );
        assert_eq!(
            metrics.get(&info),
            Some(1.0),
            "{info}\n{:#?}",
            infos(&metrics)
        );
        let injected = format!("splitlock_vm_ac_injected_total{{{vm}}}");
        assert_eq!(metrics.count(&injected), COUNT, "{injected}");
        let returns = format!(r#"splitlock_vm_userspace_exits_total{{{vm},reason="shutdown"}}"#);
        assert_eq!(metrics.count(&returns), COUNT, "{returns}");
    }
    drop(children);
}

fn infos(metrics: &Metrics) -> Vec<&str> {
    metrics.family("splitlock_vm_info").into_keys().collect()
}

fn port_io(count: u64) -> Event {
    Event::KvmGuest {
        guest: Guest::PortIo,
        count,
        vcpus: 1,
    }
}

/// The series of a VM's port exits.
fn port_exits(name: &str, id: &str) -> String {
    format!(r#"splitlock_vm_userspace_exits_total{{vm="{name}",id="{id}",reason="io"}}"#)
}

fn they_stay_after_a_restart_and_a_new_comm() {
    let number = std::process::id();
    let named = Guise::new(
        "qemu-system-x86_64",
        &format!("-name guest=stay -uuid {}", uuid(number)),
    );
    let unnamed = Guise::new("other-vmm", "");
    let mut children = [
        Child::spawn_as(&port_io(3), "vmm-stay", &named),
        Child::spawn_as(&port_io(3), "vmm-stay", &unnamed),
    ];
    let agent = Agent::start(&[]);
    for child in &mut children {
        child.run();
    }
    let pids = children.each_ref().map(|child| child.pid().to_string());
    let own = |metrics: &Metrics| -> Vec<String> {
        let mut own: Vec<String> = pids
            .iter()
            .flat_map(|pid| metrics.with_label("pid", pid))
            .map(|(series, _)| series.to_owned())
            .collect();
        own.sort();
        own
    };
    let first = agent.metrics();
    assert_eq!(
        first.count(&port_exits("stay", &uuid(number).to_lowercase())),
        3
    );
    let before = own(&first);
    assert_eq!(before.len(), 2, "{before:?}");
    for child in &mut children {
        child.rename("renamed");
    }
    assert_eq!(own(&agent.metrics()), before, "after a new comm");
    drop(agent);
    // The next agent finds them without their running.
    let agent = Agent::start(&[]);
    let metrics = agent.wait_for("the VMs found by their open files", |metrics| {
        own(metrics).len() == 2
    });
    let after = own(&metrics);
    let of = |series: &[String], name: &str| -> Option<String> {
        let start = format!(r#"splitlock_vm_info{{vm="{name}","#);
        series
            .iter()
            .find(|series| series.starts_with(&start))
            .cloned()
    };
    assert!(of(&before, "stay").is_some(), "{before:?}");
    assert_eq!(of(&after, "stay"), of(&before, "stay"), "after a restart");
    // One that nothing but its comm names has that of the time when the agent first saw it; its id
    // is the same.
    let id = format!(r#"id="{}""#, vm_id(children[1].pid()));
    assert!(
        of(&before, "vmm-stay").is_some_and(|series| series.contains(&id)),
        "{before:?}"
    );
    assert!(
        of(&after, "renamed").is_some_and(|series| series.contains(&id)),
        "{after:?}"
    );
}

fn a_vm_that_comes_back_goes_on_in_its_series() {
    let agent = Agent::start(&["--retention", "5s"]);
    let uuid = uuid(std::process::id() + 1);
    let id = uuid.to_lowercase();
    let guise = Guise::new(
        "qemu-system-x86_64",
        &format!("-name guest=back -uuid {uuid}"),
    );
    let start = |count| {
        let mut child = Child::spawn_as(&port_io(count), "vmm-back", &guise);
        child.run();
        child
    };
    let first = start(10);
    assert_eq!(agent.metrics().count(&port_exits("back", &id)), 10);
    // A second one that claims the UUID meanwhile is another VM.
    let twin = start(4);
    let metrics = agent.metrics();
    assert_eq!(metrics.count(&port_exits("back", &id)), 10);
    assert_eq!(metrics.count(&port_exits("back", &vm_id(twin.pid()))), 4);
    first.end();
    agent.wait_for("the first one's end", |_| {
        let snapshot = agent.snapshot();
        let rows = snapshot["vms"].as_array().expect("a list");
        rows.iter()
            .any(|row| row["id"] == id.as_str() && row["alive"] == false)
    });
    let second = start(7);
    let metrics = agent.metrics();
    assert_eq!(metrics.count(&port_exits("back", &id)), 17);
    let pids: Vec<String> = infos(&metrics)
        .into_iter()
        .filter(|info| info.contains(&format!(r#"id="{id}""#)))
        .map(str::to_owned)
        .collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
    assert!(
        pids[0].contains(&format!(r#"pid="{}""#, second.pid())),
        "{pids:?}"
    );
    // Also when the first one's time is over.
    agent.wait_for("the first one to be forgotten", |_| {
        let snapshot = agent.snapshot();
        let rows = snapshot["vms"].as_array().expect("a list");
        rows.iter().filter(|row| row["id"] == id.as_str()).count() == 1
    });
    assert_eq!(agent.metrics().count(&port_exits("back", &id)), 17);
}

/// Its next life is named right, whether or not the agent has heard of the end by then.
fn a_vm_that_was_killed_leaves_its_uuid_at_once() {
    let agent = Agent::start(&[]);
    let uuid = uuid(std::process::id() + 2);
    let id = uuid.to_lowercase();
    let guise = Guise::new(
        "qemu-system-x86_64",
        &format!("-name guest=killed -uuid {uuid}"),
    );
    let mut lives = vec![];
    for life in 1..=5 {
        let mut child = Child::spawn_as(&port_io(10), "vmm-killed", &guise);
        child.run();
        // A crowd of another test may be named first; until then this life is not shown.
        let series = port_exits("killed", &id);
        let metrics = agent.wait_for("this life's exits", |metrics| {
            metrics.count(&series) >= 10 * life
        });
        assert_eq!(metrics.count(&series), 10 * life, "life {life}");
        let pid = i32::try_from(child.pid()).expect("a pid");
        // SAFETY: the pid is that of a child that nobody has waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        // It stays a zombie.
        lives.push(child);
    }
}

/// Names that want to be markup, other labels, other lines, or other VMs.
fn hostile_names_stay_names() {
    let agent = Agent::start(&[]);
    let long = "n".repeat(4096);
    let cut = "n".repeat(255);
    let cases: BTreeMap<&str, (&str, &str)> = BTreeMap::from([
        (
            "guest=a\"} 1\nsplitlock_forged{x=\"",
            ("qemu-system-x86_64", r#"a\"} 1\\x0asplitlock_forged{x=\""#),
        ),
        ("guest=back\\slash", ("qemu-system-x86_64", r"back\\slash")),
        (
            "guest=\u{202e}turned",
            ("qemu-system-x86_64", r"\\xe2\\x80\\xaeturned"),
        ),
        (long.as_str(), ("qemu-system-x86_64", cut.as_str())),
        ("--id=../../etc", ("firecracker", "../../etc")),
    ]);
    let mut children: Vec<(Child, &str)> = cases
        .iter()
        .map(|(name, (program, shown))| {
            let arguments = if *program == "firecracker" {
                vec![(*name).to_owned()]
            } else {
                vec!["-name".to_owned(), (*name).to_owned()]
            };
            let guise = Guise {
                program: (*program).to_owned(),
                arguments,
            };
            (Child::spawn_as(&port_io(2), "vmm-hostile", &guise), *shown)
        })
        .collect();
    for (child, _) in &mut children {
        child.run();
    }
    let metrics = agent.metrics();
    for (child, shown) in &children {
        let series = port_exits(shown, &vm_id(child.pid()));
        assert_eq!(
            metrics.get(&series),
            Some(2.0),
            "{series}\n{:#?}",
            infos(&metrics)
        );
    }
    assert!(metrics.family("splitlock_forged").is_empty());
}

fn a_vm_is_there_before_it_runs() {
    let agent = Agent::start(&[]);
    let guise = Guise::new("qemu-system-x86_64", "-name guest=idle");
    let mut child = Child::spawn_as(&port_io(0), "vmm-idle", &guise);
    let id = vm_id(child.pid());
    child.run();
    let info = format!(r#"splitlock_vm_info{{vm="idle",id="{id}","#);
    let is_there = |metrics: &Metrics| {
        infos(metrics)
            .iter()
            .any(|series| series.starts_with(&info))
    };
    agent.wait_for("an idle VM, by KVM's uevent", is_there);
    child.end();
    // It has nothing to be remembered for.
    agent.wait_for("its series to go", |metrics| !is_there(metrics));
}
