//! Exits that no CPU at hand makes, VMX's above all: records laid out as this kernel's own `format`
//! file says, run through the code that counts real ones.
//!
//! `BPF_PROG_TEST_RUN` gives the program the record for a context (raw tracepoints, 5.10+). Globals,
//! ledgers and authorities are set by the agent's own code, with `kvm_exit` attached.

use std::{collections::BTreeMap, fs, process, thread, time::Duration};

use aya::{
    Ebpf,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use rustix::thread::gettid;
use splitlock_agent::{
    host::{
        Host,
        tracefs::{self, Tracefs},
    },
    intake::{
        exit_rows::ExitTally,
        ledgers::Ledgers,
        records::{Records, Told},
    },
    probes::{
        attach::{self, Sizes},
        catalogue::TRACEPOINTS,
        choice::Choice,
        plan,
    },
};
use splitlock_common::{
    Event, Hook,
    exit_reason::{Isa, exits_by_name},
    ledger::EVENT_SLOTS,
    record::{KIND_EVENT, Record},
};

use super::{
    Test,
    requirements::Requirement::{ExitRecords, Kvm, Root},
};

pub const TESTS: &[Test] = &[Test {
    name: "exit_records::each_is_counted_by_its_reason_and_bus_locks_as_traps",
    needs: &[Root, Kvm, ExitRecords],
    run: each_is_counted_by_its_reason_and_bus_locks_as_traps,
}];

/// The program that counts a given record.
const PROGRAM: &str = "enter_kvm_exit_given";

const SIZES: Sizes = Sizes {
    trap_entries: 64,
    exit_rows: 64,
    record_bytes: 1 << 20,
    // All of them are to be told.
    records_per_second: u32::MAX,
};

/// A number in the field `exit_reason`, and what it means.
struct Given {
    exit_reason: u32,
    name: &'static str,
    is_bus_lock: bool,
}

const fn exit(exit_reason: u32, name: &'static str) -> Given {
    Given {
        exit_reason,
        name,
        is_bus_lock: false,
    }
}

const fn bus_lock(exit_reason: u32, name: &'static str) -> Given {
    Given {
        exit_reason,
        name,
        is_bus_lock: true,
    }
}

/// `bus_lock_detected` of `union vmx_exit_reason` (arch/x86/kvm/vmx/common.h, 7.3).
const DETECTED: u32 = 1 << 26;
/// `enclave_mode`.
const ENCLAVE: u32 = 1 << 27;
/// `failed_vmentry`.
const FAILED_ENTRY: u32 = 1 << 31;

/// Numbers and names are written out, so that nothing of the decoder is on both sides.
const VMX: &[Given] = &[
    exit(0, "exception_nmi"),
    exit(1, "external_interrupt"),
    exit(10, "cpuid"),
    exit(12, "hlt"),
    exit(30, "io_instruction"),
    exit(31, "msr_read"),
    exit(32, "msr_write"),
    exit(48, "ept_violation"),
    exit(49, "ept_misconfig"),
    exit(52, "preemption_timer"),
    bus_lock(74, "bus_lock"),
    bus_lock(DETECTED | 74, "bus_lock"),
    bus_lock(DETECTED | 1, "external_interrupt"),
    bus_lock(DETECTED | 48, "ept_violation"),
    bus_lock(ENCLAVE | DETECTED | 52, "preemption_timer"),
    exit(ENCLAVE | 1, "external_interrupt"),
    exit(FAILED_ENTRY | 33, "invalid_state"),
    exit(FAILED_ENTRY | DETECTED | 33, "invalid_state"),
    // TDX: the module did not run the vCPU (`tdx_vcpu_run`, 6.16).
    exit(u32::MAX, "other"),
    exit(0x1234, "other"),
    // The number of SVM's bus lock.
    exit(0xa5, "other"),
];

const SVM: &[Given] = &[
    exit(0x51, "excp_ac"),
    exit(0x60, "intr"),
    exit(0x72, "cpuid"),
    exit(0x78, "hlt"),
    exit(0x7b, "ioio"),
    exit(0x7c, "msr"),
    exit(0x400, "npf"),
    bus_lock(0xa5, "bus_lock"),
    exit(u32::MAX, "invalid_guest_state"),
    exit(0x1234, "other"),
    // VMX's numbers.
    exit(74, "excp_ts"),
    exit(DETECTED | 1, "other"),
];

/// Guests' instruction pointers lie anywhere; the low byte tells the exits apart.
const RIP: u64 = 0xffff_ffff_8123_4500;

fn rip(position: usize) -> u64 {
    RIP + position as u64
}

fn vcpu_id(isa: Isa) -> u32 {
    40 + isa.number()
}

/// How often the exit at a position is run: each another number, so that no two can be mistaken
/// for one another.
fn times(position: usize) -> u64 {
    11 + 7 * position as u64
}

fn each_is_counted_by_its_reason_and_bus_locks_as_traps() {
    // A mount namespace that the search for tracefs may make ends with this thread.
    let body = thread::spawn(compare_all);
    if let Err(panic) = body.join() {
        std::panic::resume_unwind(panic);
    }
}

fn compare_all() {
    let tracefs = tracefs::provide();
    let layout = Layout::read(&tracefs);
    let mut plan = plan::plan(&Host::read(&tracefs, &TRACEPOINTS));
    let others: Vec<Choice> = Hook::ALL
        .into_iter()
        .filter(|hook| !matches!(hook, Hook::SignalGenerate | Hook::KvmExit))
        .map(|hook| Choice { hook, via: None })
        .collect();
    plan.restrict(&others);

    // The reader of the records wants one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let mut ebpf = attach::load(&plan, SIZES, false).expect("the object is loaded");
    let ledgers = Ledgers::take(&mut ebpf, SIZES.exit_rows).expect("the ledgers");
    let mut records = Records::take(&mut ebpf).expect("the records");
    let no_log = Err("not wanted here".to_owned());
    let probes = attach::attach(&mut ebpf, plan, &no_log).expect("the hooks are attached");
    let authority = probes[Hook::KvmExit as usize].authority;
    assert!(authority.contains(Event::GuestBusLockReported));

    // A row of the exit ledger belongs to a thread and has one instruction set.
    for (isa, exits) in [(Isa::Vmx, VMX), (Isa::Svm, SVM)] {
        let tid = thread::scope(|scope| {
            let running = scope.spawn(|| run(&mut ebpf, &layout, isa, exits));
            running.join().expect("the records are run")
        });
        assert_eq!(counted(&ledgers, tid), expected(exits), "{isa:?}");
    }

    let bus_locks: Vec<(u64, u32)> = [(Isa::Vmx, VMX), (Isa::Svm, SVM)]
        .into_iter()
        .flat_map(|(isa, exits)| told(isa, exits))
        .collect();
    let mut traps = [0; EVENT_SLOTS];
    traps[Event::GuestBusLockReported.index()] = bus_locks.len() as u64;
    let mut entries: Vec<[u64; EVENT_SLOTS]> = vec![];
    ledgers
        .for_each_trap(|subject, entry| {
            if subject.tgid == process::id() {
                entries.push(entry.counts);
            }
        })
        .expect("the trap ledger is read");
    assert_eq!(entries, [traps]);
    let host = ledgers.host();
    let of_host = host.events[Event::GuestBusLockReported.index()];
    assert_eq!(of_host, bus_locks.len() as u64);
    assert_eq!(host.lost.iter().sum::<u64>(), 0, "{:?}", host.lost);

    let mut read = vec![];
    let reading = async {
        while own(&read).count() < bus_locks.len() {
            records.next(&mut read).await.expect("the ring is read");
        }
    };
    let limit = Duration::from_secs(10);
    let in_time = runtime.block_on(async { tokio::time::timeout(limit, reading).await });
    assert!(in_time.is_ok(), "{} of {bus_locks:?}", own(&read).count());
    let read: Vec<(u64, u32)> = own(&read)
        .map(|record| (record.ip, record.vcpu_id))
        .collect();
    assert_eq!(read, bus_locks);
}

/// Runs each exit its number of times in the calling thread, and gives that thread's id.
fn run(ebpf: &mut Ebpf, layout: &Layout, isa: Isa, exits: &[Given]) -> u32 {
    let program: &mut RawTracePoint = ebpf
        .program_mut(PROGRAM)
        .expect("the object has the program")
        .try_into()
        .expect("it is a raw tracepoint's");
    if program.fd().is_err() {
        program.load().expect("the kernel takes the program");
    }
    for (position, given) in exits.iter().enumerate() {
        let record = layout.record(&[
            ("exit_reason", given.exit_reason.into()),
            ("guest_rip", rip(position)),
            ("isa", isa.number().into()),
            ("vcpu_id", vcpu_id(isa).into()),
        ]);
        for _ in 0..times(position) {
            let mut options = RawTracePointRunOptions::new();
            options.args = record;
            program.test_run(options).expect("the program runs");
        }
    }
    gettid().as_raw_nonzero().get().cast_unsigned()
}

/// What the exit ledger has for a thread, by name.
fn counted(ledgers: &Ledgers, tid: u32) -> BTreeMap<&'static str, u64> {
    let vcpu = ledgers
        .vcpus()
        .map(|vcpu| vcpu.expect("the exit ledger is read"))
        .find(|vcpu| vcpu.tid() == tid)
        .expect("the thread has a row");
    let row = ledgers.row_of(vcpu).expect("the thread has a row");
    let mut tally = ExitTally::default();
    ledgers.rows.add_to(row, &mut tally);
    assert_eq!(tally.userspace.iter().sum::<u64>(), 0);
    exits_by_name(tally.isa, &tally.exits)
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn expected(exits: &[Given]) -> BTreeMap<&'static str, u64> {
    let mut expected = BTreeMap::new();
    for (position, given) in exits.iter().enumerate() {
        *expected.entry(given.name).or_default() += times(position);
    }
    expected
}

/// Instruction pointer and vCPU of each bus lock, in order.
fn told(isa: Isa, exits: &[Given]) -> impl Iterator<Item = (u64, u32)> {
    exits
        .iter()
        .enumerate()
        .filter(|(_, given)| given.is_bus_lock)
        .flat_map(move |(position, _)| {
            (0..times(position)).map(move |_| (rip(position), vcpu_id(isa)))
        })
}

/// The bus locks of this process.
fn own(records: &[Told]) -> impl Iterator<Item = &Record> {
    records.iter().map(|told| &told.record).filter(|record| {
        record.kind == KIND_EVENT
            && record.subject.tgid == process::id()
            && record.event == Event::GuestBusLockReported as u32
            && record.hook == Hook::KvmExit as u32
    })
}

/// The record of `kvm_exit` on this kernel: offset and size of each field, in bytes.
struct Layout(BTreeMap<String, (usize, usize)>);

impl Layout {
    /// Read apart from the agent, which has a parser of its own.
    fn read(tracefs: &Tracefs) -> Self {
        let (Tracefs::Found(root) | Tracefs::Private(root)) = tracefs else {
            panic!("{tracefs:?}");
        };
        let file = root.join("events/kvm/kvm_exit/format");
        let text =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let fields = text.lines().filter_map(|line| {
            // `field:unsigned int exit_reason;	offset:8;	size:4;	signed:0;`
            let (declaration, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
            let name = declaration.rsplit(' ').next()?;
            let number = |key: &str| rest.split(key).nth(1)?.split(';').next()?.parse().ok();
            Some((name.to_owned(), (number("offset:")?, number("size:")?)))
        });
        Self(fields.collect())
    }

    /// The record with these fields, as a program gets it. All other bytes are set too, so that a
    /// value from a wrong place is a wrong value.
    fn record(&self, fields: &[(&str, u64)]) -> [u64; 12] {
        let mut bytes = [0x5c; 12 * 8];
        for (name, value) in fields {
            let (offset, size) = self.0[*name];
            bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        let mut words = [0; 12];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}
