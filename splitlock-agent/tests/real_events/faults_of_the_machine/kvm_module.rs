//! KVM's modules come and go.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

use super::{
    super::{
        Test,
        agent::Agent,
        events::Child,
        guests::{assert_exits, vm},
        requirements::{
            self,
            Requirement::{Kvm, KvmModules, Root},
        },
    },
    work::io as guest,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults_of_the_machine::kvm_that_comes_later_has_the_agent_start_anew",
        needs: &[Root, Kvm, KvmModules],
        run: kvm_that_comes_later_has_the_agent_start_anew,
    },
    Test {
        name: "faults_of_the_machine::kvm_is_held_while_the_agent_counts_its_exits",
        needs: &[Root, Kvm, KvmModules],
        run: kvm_is_held_while_the_agent_counts_its_exits,
    },
    Test {
        name: "faults_of_the_machine::the_vendors_module_may_go_and_come_back",
        needs: &[Root, Kvm, KvmModules],
        run: the_vendors_module_may_go_and_come_back,
    },
];

/// As the rig's machines have them; the second needs the first.
const MODULES: [&str; 2] = ["kvm", "kvm_amd"];
/// On which a service manager starts the agent again: EX_TEMPFAIL of sysexits.h.
const START_ANEW: i32 = 75;

/// Whether KVM is made of modules here.
pub fn available() -> Result<(), String> {
    for module in MODULES {
        if !is_loaded(module) {
            return Err(format!("{module} is no loaded module"));
        }
    }
    Ok(())
}

fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module")
        .join(module)
        .join("initstate")
        .exists()
}

/// KVM is loaded again when this value is dropped.
struct Unloaded;

impl Drop for Unloaded {
    fn drop(&mut self) {
        for module in MODULES {
            if !is_loaded(module) {
                load(module);
            }
        }
    }
}

#[track_caller]
fn load(module: &str) {
    let folder = requirements::modules().expect("the machine may change");
    let path = folder.join(format!("{}.ko", module.replace('_', "-")));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // SAFETY: the kernel reads a file, and parameters up to a NUL.
    let status =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    assert_eq!(status, 0, "{module}: {}", io::Error::last_os_error());
}

fn unload(module: &str) -> io::Result<()> {
    let name = CString::new(module).expect("no NUL");
    // SAFETY: the kernel reads a name up to its NUL.
    match unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A VM counts, by its returns to the VMM and as a VM with a name.
#[track_caller]
fn assert_counts(agent: &Agent, comm: &str) {
    let mut child = Child::spawn(&guest(300), comm);
    let vm = vm(child.pid(), comm);
    let seen = child.run();
    assert_eq!(seen.get("io"), 300);
    let metrics = agent.metrics();
    assert_exits(&metrics, &vm, &seen);
    let info = format!("splitlock_vm_info{{{vm},");
    let infos = metrics.family("splitlock_vm_info");
    assert!(
        infos.keys().any(|series| series.starts_with(&info)),
        "{info}: {infos:?}"
    );
}

fn kvm_that_comes_later_has_the_agent_start_anew() {
    let guard = Unloaded;
    for module in ["kvm_amd", "kvm"] {
        unload(module).unwrap_or_else(|error| panic!("{module}: {error}"));
    }
    let mut agent = Agent::start(&[]);
    assert_eq!(agent.via("kvm_userspace_exit"), "none");
    drop(guard);
    let status = agent.wait_for_end(Duration::from_secs(10));
    assert_eq!(status.code(), Some(START_ANEW), "{:#?}", agent.log());
    let said = agent.log().into_iter().any(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("KVM") && line["level"] != "INFO"
    });
    assert!(said, "{:#?}", agent.log());
    // The service manager's part.
    assert_counts(&Agent::start(&[]), "guest-later");
}

fn kvm_is_held_while_the_agent_counts_its_exits() {
    let _guard = Unloaded;
    let agent = Agent::start(&[]);
    // Nothing of the agent's is in the vendor's module.
    unload("kvm_amd").expect("no VM runs");
    let refused = unload("kvm").expect_err("the agent's links hold it");
    assert!(
        [Some(libc::EBUSY), Some(libc::EWOULDBLOCK)].contains(&refused.raw_os_error()),
        "{refused}"
    );
    let users = fs::read_to_string("/sys/module/kvm/refcnt").expect("it is loaded");
    eprintln!("{refused}; {} links hold it", users.trim());
    assert_eq!(agent.get("/healthz"), "ok\n");
    let (status, _) = agent.end(libc::SIGTERM);
    assert!(status.success(), "{status:?}");
    unload("kvm").expect("nobody holds it");
    for module in MODULES {
        load(module);
    }
    // An agent that leaves KVM alone.
    let agent = Agent::start(&["--kvm-exits=off", "--probe=kvm_inj_exception=none"]);
    for module in ["kvm_amd", "kvm"] {
        unload(module).unwrap_or_else(|error| panic!("{module}: {error}"));
    }
    assert_eq!(agent.get("/healthz"), "ok\n");
}

fn the_vendors_module_may_go_and_come_back() {
    let agent = Agent::start(&[]);
    assert_counts(&agent, "guest-before");
    {
        let _guard = Unloaded;
        unload("kvm_amd").expect("no VM runs");
        assert!(!Path::new("/dev/kvm").exists());
    }
    assert_counts(&agent, "guest-after");
}
