//! The catalogue of hooks: for each, the ways to attach it, best first, and what each way needs.

use splitlock_common::Hook;

use crate::host::Tracepoint;

/// A way to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// A raw tracepoint: the arguments as the kernel passes them, no record is built.
    RawTracepoint,
    /// A classic tracepoint: fields of a record, with stable names.
    Tracepoint,
    /// fentry and fexit: a trampoline at the function's entry and return.
    Fentry,
    /// kprobe and kretprobe.
    Kprobe,
    /// Messages of `/dev/kmsg`.
    Kmsg,
}

impl Via {
    /// The label value of `via`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw_tracepoint",
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Kmsg => "kmsg",
        }
    }
}

/// One BPF program and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A program on a raw tracepoint.
    Raw(&'static str, Tracepoint),
    /// A program on a classic tracepoint.
    Classic(&'static str, Tracepoint),
    /// A program at a function's entry.
    Fentry(&'static str, &'static str),
    /// A program at a function's return.
    Fexit(&'static str, &'static str),
    /// A program at a function's entry, by kprobe.
    Kprobe(&'static str, &'static str),
    /// A program at a function's return, by kretprobe.
    Kretprobe(&'static str, &'static str),
    /// The reader of the kernel log; no program.
    KernelLog,
}

impl Attachment {
    /// The program, if there is one.
    pub const fn program(&self) -> Option<&'static str> {
        match self {
            Self::Raw(name, _)
            | Self::Classic(name, _)
            | Self::Fentry(name, _)
            | Self::Fexit(name, _)
            | Self::Kprobe(name, _)
            | Self::Kretprobe(name, _) => Some(name),
            Self::KernelLog => None,
        }
    }
}

/// What a rung needs of the kernel beyond accepting the program.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// The structure layouts from BTF.
    Layout,
    /// The layouts of KVM's structures from BTF.
    VcpuLayout,
    /// The tracepoint has one of these prototypes.
    Prototype(Tracepoint, &'static [&'static str]),
    /// The tracepoint's record has these fields.
    Fields(Tracepoint, &'static [RecordField]),
}

/// A field of a record and the program global that takes its offset.
#[derive(Clone, Copy, Debug)]
pub struct RecordField {
    /// Name in the `format` file.
    pub name: &'static str,
    /// Size in bytes that the program reads.
    pub size: u32,
    /// Name of the global.
    pub global: &'static str,
    /// Whether the program can do without it.
    pub optional: bool,
}

/// One way to attach a hook.
#[derive(Debug)]
pub struct Rung {
    /// Which way.
    pub via: Via,
    /// Its programs: all of them or none. Those at a function's return come first, so that no
    /// call is opened that nobody closes.
    pub attachments: &'static [Attachment],
    /// Its needs.
    pub needs: &'static [Need],
}

/// One hook with its ladder.
#[derive(Debug)]
pub struct Ladder {
    /// The hook.
    pub hook: Hook,
    /// The ways, best first.
    pub rungs: &'static [Rung],
}

const SIGNAL_GENERATE: Tracepoint = Tracepoint {
    category: "signal",
    name: "signal_generate",
};
const KVM_INJ_EXCEPTION: Tracepoint = Tracepoint {
    category: "kvm",
    name: "kvm_inj_exception",
};
const KVM_USERSPACE_EXIT: Tracepoint = Tracepoint {
    category: "kvm",
    name: "kvm_userspace_exit",
};
const KVM_EXIT: Tracepoint = Tracepoint {
    category: "kvm",
    name: "kvm_exit",
};

/// All tracepoints that the catalogue names.
pub const TRACEPOINTS: [Tracepoint; 4] = [
    SIGNAL_GENERATE,
    KVM_INJ_EXCEPTION,
    KVM_USERSPACE_EXIT,
    KVM_EXIT,
];

/// The prototype of `kvm_inj_exception` that tells a repeated delivery (5.15+).
pub const INJ_PROTOTYPE_WITH_REINJECTED: &str = "unsigned int, bool, unsigned int, bool";

/// The prototype of `kvm_exit` that begins with the reason (up to 5.15). The later one leaves it
/// to be read from the vCPU (0a62a0319abb, "KVM: x86: Get exit_reason as part of
/// kvm_x86_ops.get_exit_info").
pub const EXIT_PROTOTYPE_WITH_REASON: &str = "unsigned int, struct kvm_vcpu *, u32";

const fn field(name: &'static str, size: u32, global: &'static str) -> RecordField {
    RecordField {
        name,
        size,
        global,
        optional: false,
    }
}

/// The ladder of one of the kernel's split-lock functions.
macro_rules! function_ladder {
    ($hook:ident, $function:literal) => {
        Ladder {
            hook: Hook::$hook,
            rungs: &[
                Rung {
                    via: Via::Fentry,
                    attachments: &[
                        Attachment::Fexit(concat!("fexit_", $function), $function),
                        Attachment::Fentry(concat!("fentry_", $function), $function),
                    ],
                    needs: &[Need::Layout],
                },
                Rung {
                    via: Via::Kprobe,
                    attachments: &[
                        Attachment::Kretprobe(concat!("kretprobe_", $function), $function),
                        Attachment::Kprobe(concat!("kprobe_", $function), $function),
                    ],
                    needs: &[Need::Layout],
                },
            ],
        }
    };
}

/// The catalogue.
pub const LADDERS: [Ladder; Hook::COUNT] = [
    Ladder {
        hook: Hook::SignalGenerate,
        rungs: &[
            Rung {
                via: Via::RawTracepoint,
                attachments: &[Attachment::Raw(
                    "enter_signal_generate_raw",
                    SIGNAL_GENERATE,
                )],
                needs: &[
                    Need::Layout,
                    Need::Prototype(
                        SIGNAL_GENERATE,
                        &["int, struct kernel_siginfo *, struct task_struct *, int, int"],
                    ),
                ],
            },
            Rung {
                via: Via::Tracepoint,
                attachments: &[Attachment::Classic(
                    "enter_signal_generate",
                    SIGNAL_GENERATE,
                )],
                needs: &[
                    Need::Layout,
                    Need::Fields(
                        SIGNAL_GENERATE,
                        &[
                            field("sig", 4, "SIGNAL_SIG"),
                            field("code", 4, "SIGNAL_CODE"),
                        ],
                    ),
                ],
            },
        ],
    },
    Ladder {
        hook: Hook::KvmInjException,
        rungs: &[
            Rung {
                via: Via::RawTracepoint,
                attachments: &[Attachment::Raw(
                    "enter_kvm_inj_exception_raw",
                    KVM_INJ_EXCEPTION,
                )],
                needs: &[
                    Need::Layout,
                    Need::Prototype(
                        KVM_INJ_EXCEPTION,
                        &[
                            "unsigned int, bool, unsigned int",
                            INJ_PROTOTYPE_WITH_REINJECTED,
                        ],
                    ),
                ],
            },
            Rung {
                via: Via::Tracepoint,
                attachments: &[Attachment::Classic(
                    "enter_kvm_inj_exception",
                    KVM_INJ_EXCEPTION,
                )],
                needs: &[
                    Need::Layout,
                    Need::Fields(
                        KVM_INJ_EXCEPTION,
                        &[
                            field("exception", 1, "INJ_EXCEPTION"),
                            RecordField {
                                name: "reinjected",
                                size: 1,
                                global: "INJ_REINJECTED",
                                optional: true,
                            },
                        ],
                    ),
                ],
            },
        ],
    },
    Ladder {
        hook: Hook::KvmUserspaceExit,
        rungs: &[
            Rung {
                via: Via::RawTracepoint,
                attachments: &[Attachment::Raw(
                    "enter_kvm_userspace_exit_raw",
                    KVM_USERSPACE_EXIT,
                )],
                needs: &[
                    Need::Layout,
                    Need::Prototype(KVM_USERSPACE_EXIT, &["__u32, int"]),
                ],
            },
            Rung {
                via: Via::Tracepoint,
                attachments: &[Attachment::Classic(
                    "enter_kvm_userspace_exit",
                    KVM_USERSPACE_EXIT,
                )],
                needs: &[
                    Need::Layout,
                    Need::Fields(
                        KVM_USERSPACE_EXIT,
                        &[
                            field("reason", 4, "USERSPACE_EXIT_REASON"),
                            field("errno", 4, "USERSPACE_EXIT_ERRNO"),
                        ],
                    ),
                ],
            },
        ],
    },
    Ladder {
        hook: Hook::KvmExit,
        rungs: &[
            Rung {
                via: Via::RawTracepoint,
                attachments: &[Attachment::Raw("enter_kvm_exit_raw", KVM_EXIT)],
                needs: &[
                    Need::Layout,
                    Need::VcpuLayout,
                    Need::Prototype(
                        KVM_EXIT,
                        &["struct kvm_vcpu *, u32", EXIT_PROTOTYPE_WITH_REASON],
                    ),
                ],
            },
            Rung {
                via: Via::Tracepoint,
                attachments: &[Attachment::Classic("enter_kvm_exit", KVM_EXIT)],
                needs: &[
                    Need::Layout,
                    Need::Fields(
                        KVM_EXIT,
                        &[
                            field("exit_reason", 4, "EXIT_REASON"),
                            field("isa", 4, "EXIT_ISA"),
                            field("guest_rip", 8, "EXIT_GUEST_RIP"),
                            field("vcpu_id", 4, "EXIT_VCPU_ID"),
                        ],
                    ),
                ],
            },
        ],
    },
    function_ladder!(HandleUserSplitLock, "handle_user_split_lock"),
    function_ladder!(HandleGuestSplitLock, "handle_guest_split_lock"),
    function_ladder!(HandleBusLock, "handle_bus_lock"),
    function_ladder!(SplitLockWarn, "split_lock_warn"),
    Ladder {
        hook: Hook::KernelLog,
        rungs: &[Rung {
            via: Via::Kmsg,
            attachments: &[Attachment::KernelLog],
            needs: &[],
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_has_one_ladder_in_its_place() {
        for (position, ladder) in LADDERS.iter().enumerate() {
            assert_eq!(ladder.hook as usize, position);
            assert!(!ladder.rungs.is_empty());
            assert!(ladder.rungs.iter().all(|rung| !rung.attachments.is_empty()));
        }
    }

    #[test]
    fn tracepoint_hooks_are_called_like_their_tracepoint() {
        for ladder in &LADDERS {
            for rung in ladder.rungs {
                for attachment in rung.attachments {
                    if let Attachment::Raw(_, tracepoint) | Attachment::Classic(_, tracepoint) =
                        attachment
                    {
                        assert_eq!(ladder.hook.name(), tracepoint.name);
                        assert!(TRACEPOINTS.contains(tracepoint));
                    }
                }
            }
        }
    }
}
