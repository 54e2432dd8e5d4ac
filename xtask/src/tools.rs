//! Programs that tests and the fleet talk to: a real Prometheus with its promtool, a real Alertmanager with its
//! amtool, a real browser.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt::Apt,
    command,
    test::Skipping,
    workspace::{Workspace, write_if_changed},
};

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Prometheus, the server.
    Prometheus,
    /// The checker of expositions, rules and configurations.
    Promtool,
    /// Alertmanager, the server.
    Alertmanager,
    /// The checker of Alertmanager's configurations.
    Amtool,
    /// The browser that shows the agent's page.
    Chromium,
}

impl Program {
    /// What tells tests where it is.
    const fn variable(self) -> &'static str {
        match self {
            Self::Prometheus => "SPLITLOCK_PROMETHEUS",
            Self::Promtool => "SPLITLOCK_PROMTOOL",
            Self::Alertmanager => "SPLITLOCK_ALERTMANAGER",
            Self::Amtool => "SPLITLOCK_AMTOOL",
            Self::Chromium => "SPLITLOCK_CHROMIUM",
        }
    }

    /// Its names: Debian calls one of them otherwise than its makers do. The last is the one in
    /// Debian's package.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Prometheus => &["prometheus"],
            Self::Promtool => &["promtool"],
            Self::Alertmanager => &["alertmanager", "prometheus-alertmanager"],
            Self::Amtool => &["amtool"],
            Self::Chromium => &["chromium"],
        }
    }

    fn on_path(self) -> Option<PathBuf> {
        self.names().iter().find_map(|name| command::on_path(name))
    }

    fn in_package(self, unpacked: &Path) -> Result<PathBuf> {
        let name = self.names().last().expect("it has a name");
        let program = unpacked.join("usr/bin").join(name);
        ensure!(program.is_file(), "no {} in the package", program.display());
        match self {
            Self::Alertmanager => with_its_templates(unpacked),
            Self::Prometheus | Self::Promtool | Self::Amtool | Self::Chromium => Ok(program),
        }
    }
}

/// Debian's packages, each with its programs. Both programs are of one version.
const PACKAGES: [(&str, [Program; 2]); 2] = [
    ("prometheus", [Program::Prometheus, Program::Promtool]),
    (
        "prometheus-alertmanager",
        [Program::Alertmanager, Program::Amtool],
    ),
];

/// Those that were found.
pub struct Tools {
    programs: BTreeMap<Program, PathBuf>,
}

impl Tools {
    /// From PATH, else from an earlier download, else from Debian's packages. Those are
    /// unpacked and not installed: no service starts, and nobody needs root's rights.
    pub fn find(workspace: &Workspace, skipping: Skipping) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for (package, members) in PACKAGES {
            let found = find_package(package, members, &workspace.tools_dir());
            programs.extend(unless_skipped(found, skipping)?.into_iter().flatten());
        }
        for path in programs.values() {
            eprintln!("{}", path.display());
        }
        Ok(Self { programs })
    }

    /// The browser too. It needs a hundred other packages, so that it is not unpacked but installed.
    pub fn with_browser(mut self, skipping: Skipping) -> Result<Self> {
        if let Some(path) = unless_skipped(find_browser(), skipping)? {
            eprintln!("{}", path.display());
            self.programs.insert(Program::Chromium, path);
        }
        Ok(self)
    }

    /// Where one of them is.
    pub fn path(&self, program: Program) -> Result<&Path> {
        let path = self.programs.get(&program).map(PathBuf::as_path);
        path.with_context(|| format!("{program:?} was not found"))
    }

    /// Tells a command where they are.
    pub fn announce_to(&self, command: &mut Command) {
        for (program, path) in &self.programs {
            command.env(program.variable(), path);
        }
    }
}

fn find_package(
    package: &str,
    members: [Program; 2],
    tools: &Path,
) -> Result<Vec<(Program, PathBuf)>> {
    let on_path: Vec<_> = members
        .into_iter()
        .filter_map(|program| Some((program, program.on_path()?)))
        .collect();
    if on_path.len() == members.len() {
        return Ok(on_path);
    }
    let unpacked = tools.join(package);
    if !unpacked.exists() {
        unpack(package, tools, &unpacked).with_context(|| {
            format!("{members:?} are needed: not on PATH, and not to be downloaded")
        })?;
    }
    members
        .into_iter()
        .map(|program| Ok((program, program.in_package(&unpacked)?)))
        .collect()
}

/// What was found; where tests may skip, nothing with the reason printed.
fn unless_skipped<T>(found: Result<T>, skipping: Skipping) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if skipping == Skipping::Refused => Err(error),
        Err(error) => {
            eprintln!("{error:#}\nTests that need them will skip, and say so.");
            Ok(None)
        }
    }
}

fn find_browser() -> Result<PathBuf> {
    let program = Program::Chromium;
    if let Some(path) = program.on_path() {
        return Ok(path);
    }
    let apt = Apt::find().context("chromium is needed, and there is no apt-get here")?;
    apt.install(&["chromium"])
        .context("chromium is needed: not on PATH, and not to be installed")?;
    let path = program.on_path();
    path.context("chromium's package has no program of that name")
}

/// Debian's Alertmanager reads its templates from /usr/share and nowhere else. This script shows it
/// those of its package there, in a mount namespace of its own, and becomes it.
const START_ALERTMANAGER: &str = r#"#!/bin/sh
unpacked=$(dirname "$(readlink -f "$0")")
program=$unpacked/usr/bin/prometheus-alertmanager
if [ -e /usr/share/prometheus/alertmanager/default.tmpl ]; then
    exec "$program" "$@"
fi
[ "$(id -u)" = 0 ] && namespaces=--mount || namespaces='--mount --map-root-user'
exec unshare $namespaces sh -c \
    'mount --bind "$0/usr/share" /usr/share && exec "$0/usr/bin/prometheus-alertmanager" "$@"' \
    "$unpacked" "$@"
"#;

fn with_its_templates(unpacked: &Path) -> Result<PathBuf> {
    let script = unpacked.join("start-alertmanager");
    write_if_changed(&script, START_ALERTMANAGER)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", script.display()))?;
    Ok(script)
}

/// Downloads a Debian package and unpacks it into a folder, which appears only when it is complete.
fn unpack(package: &str, tools: &Path, folder: &Path) -> Result<()> {
    let apt = Apt::find().context("there is no apt-get here")?;
    eprintln!(
        "Downloading {package}'s package; it is unpacked in the target folder, not installed."
    );
    let download = tools.join("download");
    let file = apt.download(package, &download)?;
    let partial = tools.join(format!("{package}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    command::run(Command::new("dpkg").arg("-x").arg(&file).arg(&partial))?;
    fs::rename(&partial, folder)
        .with_context(|| format!("cannot move {} to {}", partial.display(), folder.display()))?;
    // The packed form is of no further use; if it stays, nothing breaks.
    let _ = fs::remove_dir_all(&download);
    Ok(())
}
