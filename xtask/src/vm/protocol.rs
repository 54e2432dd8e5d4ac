//! What the host orders from a kernel under test and what that kernel's `rig-init`
//! reports: one definition for both sides.
//!
//! The order is a file of the initramfs, [`ORDER`]. Reports are JSON, one a line, on the
//! second serial port: what kernel and programs print goes to the first
//! and cannot end up in the middle of a report.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The order's path in the initramfs.
pub const ORDER: &str = "/rig/order.json";
/// The agent's path in the initramfs.
pub const AGENT: &str = "/rig/splitlock-agent";
/// The test program's path in the initramfs.
pub const TESTS: &str = "/rig/real_events";
/// The benchmark's path in the initramfs.
pub const BENCHMARK: &str = "/rig/hot_path";
/// The agent's port, on the loopback or, of a [`Hypervisor`], on its network.
pub const AGENT_PORT: u16 = 9839;
/// The folder of kernel modules in the initramfs.
pub const MODULES: &str = "/rig/modules";

/// What is to be done in one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Files in [`MODULES`], in the order of loading.
    pub modules: Vec<Module>,
    /// Whether tracefs is mounted before the agent starts; it can do that itself.
    pub tracefs: bool,
    /// Folders over which an empty file system is mounted.
    pub hidden: Vec<String>,
    /// Arguments of `splitlock-agent run` for the report on its hooks.
    pub agent_args: Vec<String>,
    /// Whether the tests run.
    pub tests: bool,
    /// Arguments of the test program.
    pub test_args: Vec<String>,
    /// Arguments of the benchmark; without them it does not run. With them nothing else does.
    pub benchmark: Vec<String>,
    /// What to be, for ever. Nothing else is done then.
    pub hypervisor: Option<Hypervisor>,
    /// Environment of the test program, beside that of `rig-init`.
    pub environment: BTreeMap<String, String>,
}

/// One kernel module of an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// File name, as `kvm-amd.ko`.
    pub file: String,
    /// Whether the boot makes no sense without it.
    pub required: bool,
}

/// A host with tenants and an agent that serves its network. It says [`Report::Agent`] when all of
/// them run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hypervisor {
    /// The host's name.
    pub name: String,
    /// Its address in a network of 24 bits, whose other hosts are all that it reaches.
    pub address: Ipv4Addr,
    /// Arguments of the test program's verb `hypervisor`: the tenants.
    pub tenants: Vec<String>,
}

/// One line from the kernel under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// `rig-init` runs.
    Booted {
        /// As `uname -r` says it.
        release: String,
    },
    /// A module was loaded, or why it was not.
    Module {
        /// As [`Module::file`].
        file: String,
        /// `None`: loaded.
        error: Option<String>,
    },
    /// What the agent says of itself, `/api/v1/snapshot`, with all hooks attached as it chose.
    Agent {
        /// The body of the answer.
        snapshot: Value,
    },
    /// The agent ended or did not serve; its log is on the console.
    AgentFailed {
        /// What happened.
        error: String,
    },
    /// A test has ended.
    Test {
        /// Its name.
        test: String,
        /// `ok`, `FAILED` or `ignored`.
        result: String,
    },
    /// What the test program says of a test that failed, when all have ended.
    Failure {
        /// The test's name.
        test: String,
        /// The beginning of what it said.
        message: String,
    },
    /// The test program has ended.
    TestsEnded {
        /// Its exit status in words.
        status: String,
        /// Its last line with the numbers, if it came so far.
        summary: Option<String>,
    },
    /// A test skips.
    Skipped {
        /// Its name.
        test: String,
        /// What is missing.
        reason: String,
    },
    /// A line of the benchmark's results.
    Measured {
        /// What it measured.
        line: Value,
    },
    /// `rig-init` itself could not go on.
    Failed {
        /// Why.
        error: String,
    },
    /// The order is done, and the machine goes down.
    Done,
}
