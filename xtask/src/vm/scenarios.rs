//! The ways in which a kernel is booted.

/// A way to boot, and what is expected then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Its name in tables and file names.
    pub name: &'static str,
    /// Added to the kernel's command line.
    pub parameters: &'static str,
    /// Whether tracefs is mounted, as on current distributions; the agent can mount it itself.
    pub tracefs: bool,
    /// Folders over which an empty file system is mounted.
    pub hidden: &'static [&'static str],
    /// Which tests run; without them a boot takes seconds.
    pub tests: Tests,
    /// Whether the agent may refuse to run here, with a message.
    pub may_refuse: bool,
    /// Whether the tests are those that change the machine: its clock, its modules, its CPUs, of
    /// which it has two so that one can go.
    pub changes: bool,
}

/// Tests of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    /// None.
    None,
    /// Those whose names contain this.
    Only(&'static str),
    /// All, or those that the user chose.
    All,
}

/// As on any host: every kernel boots this way, with the tests.
pub const USUAL: Scenario = Scenario {
    name: "usual",
    parameters: "",
    tracefs: true,
    hidden: &[],
    tests: Tests::All,
    may_refuse: false,
    changes: false,
};

/// A machine that changes under the agent, on the oldest and the newest kernel. It is a boot of its own, as no other test is to
/// meet a clock that jumps or a module that is gone.
pub const CHANGING: Scenario = Scenario {
    name: "changing machine",
    tests: Tests::Only("faults_of_the_machine::"),
    changes: true,
    ..USUAL
};

/// For the benchmark, which runs alone.
pub const MEASURING: Scenario = Scenario {
    name: "measuring",
    tests: Tests::None,
    ..USUAL
};

/// For a hypervisor that goes on for ever.
pub const HYPERVISOR: Scenario = Scenario {
    name: "hypervisor",
    tests: Tests::None,
    ..USUAL
};

/// For the packages: process 1 is systemd.
pub const PACKAGES: Scenario = Scenario {
    name: "packages",
    parameters: "systemd.unit=multi-user.target systemd.show_status=false systemd.log_target=kmsg",
    tests: Tests::None,
    ..USUAL
};

const DOCTOR: Tests = Tests::Only("doctor::finds_what_the_host_lacks");

/// What some hosts lack, on the oldest and the newest kernel: only the agent's report on its hooks, and whether `doctor`
/// finds out.
pub const LACKING: [Scenario; 4] = [
    Scenario {
        name: "tracefs not mounted",
        tracefs: false,
        tests: DOCTOR,
        ..USUAL
    },
    Scenario {
        name: "no BTF",
        hidden: &["/sys/kernel/btf"],
        tests: DOCTOR,
        may_refuse: true,
        ..USUAL
    },
    Scenario {
        name: "lockdown integrity",
        parameters: "lockdown=integrity",
        tests: DOCTOR,
        ..USUAL
    },
    Scenario {
        name: "lockdown confidentiality",
        parameters: "lockdown=confidentiality",
        tests: DOCTOR,
        may_refuse: true,
        ..USUAL
    },
];

/// The scenario with tests that has this name; `-` may stand for a space.
pub fn named(name: &str) -> Option<Scenario> {
    [USUAL, CHANGING]
        .into_iter()
        .chain(LACKING)
        .find(|scenario| scenario.name == name.replace('-', " "))
}
