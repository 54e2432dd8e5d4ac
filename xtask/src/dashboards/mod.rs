//! `cargo xtask dashboards`: the Grafana dashboards in `dashboards/grafana`, made from this source.
//!
//! One file per dashboard ([`fleet`], [`host`] with [`host_agent`], [`vm`]); what they are written in
//! is beside them: [`dashboard`], [`panel`], [`table`], [`query`], [`variables`], [`links`],
//! [`colour`], [`mod@unit`], and [`offenders`], which two of them share.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Workspace, write_if_changed};

mod colour;
#[cfg(test)]
mod contract;
mod dashboard;
mod fleet;
mod host;
mod host_agent;
mod links;
#[cfg(test)]
mod lint;
mod listing;
mod offenders;
mod panel;
#[cfg(test)]
mod picture;
mod query;
#[cfg(test)]
mod real_prometheus;
mod table;
mod unit;
mod variables;
mod vm;

pub use self::listing::{Choice, queries};

use self::dashboard::Dashboard;

/// The folder of the JSON.
const FOLDER: &str = "dashboards/grafana";

#[derive(clap::Args)]
pub struct DashboardsOptions {
    /// Write nothing; fail if a file differs from the source
    #[arg(long, conflicts_with = "queries")]
    check: bool,
    /// Print each query instead, as Prometheus is asked it, with its dashboard and panel: a JSON
    /// object a line
    #[arg(long)]
    queries: bool,
}

/// Writes the dashboards.
pub fn dashboards(workspace: &Workspace, options: &DashboardsOptions) -> Result<()> {
    let DashboardsOptions {
        check,
        queries: listed,
    } = options;
    if *listed {
        let mut out = io::stdout().lock();
        for asked in queries(&Choice::default()) {
            let line = serde_json::to_string(&asked)?;
            writeln!(out, "{line}").context("cannot write the queries")?;
        }
        return Ok(());
    }
    for (file, content) in files() {
        let path = workspace.root.join(&file);
        if *check {
            let there =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if there != content.as_bytes() {
                bail!("{OUT_OF_DATE}: {}", file.display());
            }
        } else {
            write_if_changed(&path, &content)?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

const OUT_OF_DATE: &str = "differs from xtask/src/dashboards; run `cargo xtask dashboards`";

/// All dashboards.
fn all() -> Vec<Dashboard> {
    vec![fleet::dashboard(), host::dashboard(), vm::dashboard()]
}

/// Files below the workspace's root, and what is in them.
fn files() -> Vec<(PathBuf, String)> {
    all()
        .iter()
        .map(|dashboard| {
            let name = dashboard
                .uid
                .strip_prefix("splitlock-")
                .expect("all uids begin so");
            let file = PathBuf::from(FOLDER).join(format!("{name}.json"));
            (file, format!("{:#}\n", dashboard.json()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_files_are_what_the_source_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, content) in files() {
            let there = fs::read_to_string(root.join(&file)).unwrap_or_default();
            assert!(there == content, "{OUT_OF_DATE}: {}", file.display());
        }
        let there = fs::read_dir(root.join(FOLDER)).unwrap();
        let json = there
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"));
        assert_eq!(json.count(), files().len(), "a file has no source");
    }
}
