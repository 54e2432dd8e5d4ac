//! `cargo xtask ci`: everything that must be green.

use anyhow::{Result, bail};

use crate::{
    bpf_toolchain::{lints, record::Record},
    command::{self, run},
    fleet::{self, FleetOptions},
    setup,
    steps::{self, Steps},
    test::{self, Skipping},
    tools::Tools,
    vm::{self, VmOptions},
    workspace::Workspace,
};

/// Runs every check, also after one has failed, and ends with a table.
pub fn ci(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    match prepare(workspace, steps) {
        Ok((record, tools)) => checks(workspace, steps, &record, &tools),
        Err(error) => steps::report(&error),
    }
    steps.finish()
}

fn prepare(workspace: &Workspace, steps: &mut Steps) -> Result<(Record, Tools)> {
    let record = setup::setup(workspace, steps)?;
    let tools = steps.run("programs for tests", || {
        Tools::find(workspace, Skipping::Refused)?.with_browser(Skipping::Refused)
    })?;
    Ok((record, tools))
}

fn checks(workspace: &Workspace, steps: &mut Steps, record: &Record, tools: &Tools) {
    steps.check("format", || {
        run(workspace.cargo().args(["fmt", "--all", "--check"]))
    });
    steps.check("lints", || {
        run(workspace
            .cargo()
            .args(["clippy", "--all-targets", "--", "-D", "warnings"]))
    });
    bpf_lints(workspace, steps, record);
    steps.check("tests", || {
        let sudo = !command::is_root();
        if sudo && command::on_path("sudo").is_none() {
            bail!("none may skip here, and some need root's rights: be root, or have sudo");
        }
        run(&mut test::cargo_test(
            workspace,
            tools,
            Skipping::Refused,
            sudo,
        ))
    });
    steps.check("documentation", || {
        run(workspace
            .cargo()
            .args(["doc", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"))
    });
    // Its steps are in the table, also one that failed.
    if let Err(error) = vm::run(workspace, steps, VmOptions::ends()) {
        steps::report(&error);
    }
    if let Err(error) = fleet::fleet(workspace, steps, &FleetOptions::check_with("newest")) {
        steps::report(&error);
    }
}

fn bpf_lints(workspace: &Workspace, steps: &mut Steps, record: &Record) {
    steps.check_if_possible(
        "lints of the BPF programs",
        || lints::ensure_clippy(record),
        || lints::clippy(workspace, record),
    );
}
