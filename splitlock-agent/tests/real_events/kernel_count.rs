//! The kernel's own count of a tracepoint, apart from BPF: perf counters, each with a filter on
//! the record's fields.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _},
    path::{Path, PathBuf},
    process, ptr,
};

/// A tracepoint of KVM, by its name.
pub struct Tracepoint(pub &'static str);

impl Tracepoint {
    /// Whether the kernel counts it; if not, why.
    pub fn check(&self) -> Result<(), String> {
        self.open(process::id(), None).map(drop)
    }

    /// A counter of a thread and of all that it starts from here on, over `exec` too.
    fn open(&self, pid: u32, filter: Option<&str>) -> Result<File, String> {
        let file = self.folder().join("id");
        let id =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let id = id.trim().parse().map_err(|_| format!("no id: {id}"))?;
        let attributes = Attributes {
            kind: PERF_TYPE_TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: id,
            flags: INHERIT,
            ..Attributes::default()
        };
        // SAFETY: the structure is as long as it says, and lives during the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                ptr::from_ref(&attributes),
                pid,
                ANY_CPU,
                NO_GROUP,
                FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(format!("perf_event_open: {}", io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new, and nobody else has it.
        let counter = unsafe { File::from_raw_fd(fd as i32) };
        if let Some(filter) = filter {
            let text = CString::new(filter).expect("no NUL");
            // SAFETY: the request takes a string.
            let status = unsafe { libc::ioctl(counter.as_raw_fd(), SET_FILTER, text.as_ptr()) };
            if status != 0 {
                return Err(format!("{filter}: {}", io::Error::last_os_error()));
            }
        }
        Ok(counter)
    }

    fn folder(&self) -> PathBuf {
        Path::new("/sys/kernel/tracing/events/kvm").join(self.0)
    }
}

/// Counters of one process.
pub struct KernelCount {
    all: File,
    by_name: Vec<(&'static str, File)>,
}

impl KernelCount {
    /// Counts what happens from here on to a process that has one thread so far, by filters that
    /// have names and nothing in common.
    #[track_caller]
    pub fn start(
        tracepoint: &Tracepoint,
        pid: u32,
        filters: impl Iterator<Item = (String, &'static str)>,
    ) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
        assert_eq!(threads.count(), 1, "threads that are there are not counted");
        let open = |filter: Option<&str>| {
            tracepoint
                .open(pid, filter)
                .unwrap_or_else(|error| panic!("{}: {error}", tracepoint.0))
        };
        Self {
            all: open(None),
            by_name: filters
                .map(|(filter, name)| (name, open(Some(&filter))))
                .collect(),
        }
    }

    /// What was counted so far. What no filter lets pass is [`REST`].
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        let mut named = 0;
        for (name, counter) in &self.by_name {
            let count = read(counter);
            named += count;
            *counts.entry(*name).or_default() += count;
        }
        // Read last, so that it is not less than its parts where the process still runs.
        *counts.entry(REST).or_default() += read(&self.all) - named;
        counts.retain(|_, count| *count > 0);
        counts
    }
}

/// The name of all the rest.
pub const REST: &str = "other";

fn read(mut counter: &File) -> u64 {
    let mut value = [0; 8];
    counter
        .read_exact(&mut value)
        .expect("a counter is eight bytes");
    u64::from_ne_bytes(value)
}

/// `struct perf_event_attr` in its first size, 64 bytes (`PERF_ATTR_SIZE_VER0`,
/// include/uapi/linux/perf_event.h), which every kernel takes.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
/// Bit `inherit`: threads and processes that are started later are counted too.
const INHERIT: u64 = 1 << 1;
const ANY_CPU: i32 = -1;
const NO_GROUP: i32 = -1;
/// `PERF_FLAG_FD_CLOEXEC`
const FD_CLOEXEC: u64 = 1 << 3;
/// `PERF_EVENT_IOC_SET_FILTER`: `_IOW('$', 6, char *)`.
const SET_FILTER: libc::c_ulong = 0x4008_2406;
