//! What the manual says beyond the flags, by command.

/// What to know of a command.
pub struct Facts {
    /// Status and meaning.
    pub exit_status: &'static [(&'static str, &'static str)],
    /// Files that it reads or writes, and what for.
    pub files: &'static [(&'static str, &'static str)],
    /// Command lines, and what they do.
    pub examples: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub see_also: &'static str,
}

/// What all commands have in common about variables.
pub const ENVIRONMENT: &str = "Every flag can also be set by a variable: SPLITLOCK_ and the flag's \
    name in upper case, with _ for each dot and hyphen. A flag on the command line beats its \
    variable, an empty variable counts as not set, and where a flag may be given several times, its \
    variable has the values with commas between them. Those of flags without a value take true or \
    false.";

const DONE: (&str, &str) = ("0", "Done.");
const USAGE: (&str, &str) = ("2", "The command line or a variable was not understood.");

/// Those of the main page.
pub const MAIN: Facts = Facts {
    exit_status: &[
        ("0", "Done, or ended by SIGINT or SIGTERM."),
        (
            "1",
            "It could not begin or go on; selftest: it found a fault; doctor: a lock would be noticed \
             in part, or less well than it could.",
        ),
        (
            "2",
            "The command line or a variable was not understood; selftest: it could not run; doctor: a \
             lock would not be noticed.",
        ),
    ],
    files: &[],
    examples: &[
        (
            "splitlock-agent run",
            "Runs the agent; metrics are at http://127.0.0.1:9839/metrics.",
        ),
        ("splitlock-agent top", "Shows live who traps, and where."),
        (
            "splitlock-agent selftest",
            "Makes real events and checks that the agent counts them.",
        ),
    ],
    see_also: "",
};

/// Those of each command.
pub const COMMANDS: &[(&str, Facts)] = &[
    ("run", RUN),
    ("doctor", DOCTOR),
    ("top", TOP),
    ("selftest", SELFTEST),
    ("completions", COMPLETIONS),
    ("man", MAN),
];

/// Those of one command.
pub fn of_command(name: &str) -> Option<&'static Facts> {
    COMMANDS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, facts)| facts)
}

const RUN: Facts = Facts {
    exit_status: &[
        ("0", "Ended by SIGINT or SIGTERM."),
        (
            "1",
            "It could not begin or go on; the last line of the log says why.",
        ),
        USAGE,
    ],
    files: &[
        (
            "/sys/kernel/btf/vmlinux",
            "The layout of the kernel's structures; without it the agent does not start.",
        ),
        (
            "/sys/kernel/tracing",
            "Formats of tracepoints. Where it is not mounted, the agent mounts it for itself alone.",
        ),
        (
            "/dev/kmsg",
            "The kernel log, which counts where no better hook does.",
        ),
        (
            "/proc/kallsyms",
            "Where the kernel keeps the mode of its detection.",
        ),
        (
            "/proc/sys/kernel/split_lock_mitigate",
            "Whether the kernel delays those that lock.",
        ),
    ],
    examples: &[
        (
            "splitlock-agent run --web.listen-address :9839",
            "Serves on all addresses.",
        ),
        (
            "SPLITLOCK_LIMIT_VMS=500 splitlock-agent run --log.format json",
            "Has series for 500 VMs at most, and logs lines of JSON.",
        ),
        (
            "splitlock-agent run --probe kvm_exit=none --probe kvm_userspace_exit=none",
            "Leaves two hooks out.",
        ),
    ],
    see_also: "splitlock-agent(8), splitlock-agent-selftest(8)",
};

const DOCTOR: Facts = Facts {
    exit_status: &[
        (
            "0",
            "A lock of a process would be noticed, and of a guest where there is KVM; nothing is degraded.",
        ),
        (
            "1",
            "It would be noticed in part, or less well than it could, or that cannot be told.",
        ),
        (
            "2",
            "It would not be noticed, or the agent cannot work here; or the command line or a variable was \
             not understood.",
        ),
    ],
    files: &[],
    examples: &[
        (
            "splitlock-agent doctor",
            "Says whether this host would notice a split lock, what is short, and what mends it.",
        ),
        (
            "splitlock-agent doctor --json | jq -r '.findings[].id'",
            "Lists what is short, for a script.",
        ),
        (
            "splitlock-agent doctor --url http://127.0.0.1:9900",
            "Looks also whether the agent that serves there sees all that it could.",
        ),
    ],
    see_also: "splitlock-agent(8), splitlock-agent-run(8), splitlock-agent-selftest(8)",
};

const TOP: Facts = Facts {
    exit_status: &[
        ("0", "Done, or ended by a key or a signal."),
        (
            "1",
            "There is no agent to watch and no right to attach probes, or no terminal.",
        ),
        USAGE,
    ],
    files: &[],
    examples: &[
        (
            "splitlock-agent top --url http://hv1:9839",
            "Watches the agent of another host.",
        ),
        (
            "splitlock-agent top --once --sort delay --limit 5",
            "Prints a table of the five VMs and processes that the kernel holds up most.",
        ),
        (
            "splitlock-agent top --json --filter web1 --interval 10s",
            "Prints counts, and rates over ten seconds, of what has web1 in its names.",
        ),
    ],
    see_also: "splitlock-agent(8), splitlock-agent-run(8)",
};

const SELFTEST: Facts = Facts {
    exit_status: &[
        (
            "0",
            "All that this host traps was counted; what was left out is named.",
        ),
        (
            "1",
            "Something that should have been counted was not, or a hook was taken away by --probe.",
        ),
        (
            "2",
            "It could not run, or the command line or a variable was not understood.",
        ),
    ],
    files: &[(
        "/dev/kvm",
        "Makes the guest. Without it that step is left out.",
    )],
    examples: &[
        (
            "splitlock-agent selftest --dry-run",
            "Says what would be made on this host.",
        ),
        (
            "splitlock-agent selftest --split-lock",
            "Makes split locks also where the kernel delays or signals whoever does.",
        ),
        (
            "splitlock-agent selftest --own --json",
            "Starts an agent for the test, whatever runs, and prints JSON.",
        ),
    ],
    see_also: "splitlock-agent(8), splitlock-agent-run(8)",
};

const COMPLETIONS: Facts = Facts {
    exit_status: &[DONE, ("1", "Standard output refused it."), USAGE],
    files: &[],
    examples: &[(
        "splitlock-agent completions bash > /usr/share/bash-completion/completions/splitlock-agent",
        "Has bash complete the agent's command line.",
    )],
    see_also: "splitlock-agent(8)",
};

const MAN: Facts = Facts {
    exit_status: &[
        DONE,
        (
            "1",
            "There is no such page, or a file could not be written.",
        ),
        USAGE,
    ],
    files: &[],
    examples: &[
        (
            "splitlock-agent man --folder /usr/local/share/man/man8",
            "Installs all pages.",
        ),
        ("splitlock-agent man run | man -l -", "Shows one."),
    ],
    see_also: "splitlock-agent(8)",
};
