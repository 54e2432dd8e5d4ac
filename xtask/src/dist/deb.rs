//! The Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Site,
    release::Release,
    tree::{Tree, read},
};
use crate::command;

const NAME: &str = "splitlock-agent";
/// Whom to write to about the package.
const MAINTAINER: &str = "The splitlock-agent authors <maintainers@splitlock-agent.example>";
/// What is to be installed with it: what its scripts call. The program is linked statically.
const DEPENDS: &str = "init-system-helpers (>= 1.54~), passwd, \
                       systemd | systemd-standalone-sysusers | systemd-sysusers";
const DESCRIPTION: &str = "split locks and bus locks per process and VM, for Prometheus
 An instruction with a LOCK prefix whose operand crosses a cache line locks the
 whole bus, for thousands of cycles and every core: one tenant's guest slows
 down all others. Linux can trap these split locks.
 .
 This agent counts each trap where it happens, in the kernel by eBPF, and tells
 which process or virtual machine it was, what the kernel did to it, at which
 instruction, and whether this host would have noticed at all. It also counts
 VM exits per VM and reason.";

/// What the package is made of.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// The program.
    pub program: &'a Path,
    /// What is in the program.
    pub sbom: &'a str,
    /// `xz`, or `none` where it is used once.
    pub compression: &'a str,
}

/// Builds it as `splitlock-agent_VERSION-1_amd64.deb` in a folder.
pub fn build(
    site: &Site,
    release: &Release,
    contents: &Contents,
    work: &Path,
    out: &Path,
) -> Result<PathBuf> {
    let tree = Tree::new(work.join("deb"))?;
    fill(&tree, site, release, contents)?;
    control(&tree, site, release)?;
    let file = out.join(format!("{NAME}_{}-1_amd64.deb", release.version));
    let mut dpkg_deb = Command::new("dpkg-deb");
    dpkg_deb
        .args(["--root-owner-group", "--threads-max=1"])
        .arg(format!("-Z{}", contents.compression))
        .arg("--build")
        .arg(tree.root())
        .arg(&file)
        // No file is younger.
        .env("SOURCE_DATE_EPOCH", release.time.to_string());
    command::output(&mut dpkg_deb)?;
    Ok(file)
}

fn fill(tree: &Tree, site: &Site, release: &Release, contents: &Contents) -> Result<()> {
    let Contents { program, sbom, .. } = contents;
    let packaging = |name: &str| read(&site.root.join("packaging").join(name));
    tree.program("usr/bin/splitlock-agent", read(program)?)?;
    for unit in ["splitlock-agent.service", "splitlock-agent.socket"] {
        let content = packaging(&format!("systemd/{unit}"))?;
        tree.text(&format!("usr/lib/systemd/system/{unit}"), content)?;
    }
    tree.text(
        "usr/lib/sysusers.d/splitlock-agent.conf",
        packaging("systemd/sysusers.conf")?,
    )?;
    tree.text("etc/default/splitlock-agent", packaging("debian/default")?)?;
    written_by(tree, program)?;

    let doc = "usr/share/doc/splitlock-agent";
    tree.text(&format!("{doc}/copyright"), copyright(site)?)?;
    tree.packed(&format!("{doc}/changelog.Debian"), changelog(release)?)?;
    tree.packed(&format!("{doc}/sbom.cdx.json"), sbom)?;
    tree.text(
        "usr/share/lintian/overrides/splitlock-agent",
        packaging("debian/lintian-overrides")?,
    )?;
    for (from, to) in [
        ("dashboards/rules", "splitlock-agent/rules"),
        ("dashboards/grafana", "splitlock-agent/grafana"),
        ("dashboards/runbooks", "doc/splitlock-agent/runbooks"),
    ] {
        for (name, file) in files(&site.root.join(from))? {
            let path = format!("usr/share/{to}/{name}");
            tree.text(&path, read(&file)?)?;
        }
    }
    Ok(())
}

/// Man pages and completions, which the program writes itself.
fn written_by(tree: &Tree, program: &Path) -> Result<()> {
    let pages = tree.root().with_extension("man");
    let _ = fs::remove_dir_all(&pages);
    let mut man = Command::new(program);
    command::output(man.args(["man", "--folder"]).arg(&pages))?;
    for (name, file) in files(&pages)? {
        tree.packed(&format!("usr/share/man/man8/{name}"), read(&file)?)?;
    }
    for (shell, path) in [
        ("bash", "bash-completion/completions/splitlock-agent"),
        ("zsh", "zsh/vendor-completions/_splitlock-agent"),
        ("fish", "fish/vendor_completions.d/splitlock-agent.fish"),
    ] {
        let text = command::output(Command::new(program).args(["completions", shell]))?;
        tree.text(&format!("usr/share/{path}"), text)?;
    }
    Ok(())
}

fn control(tree: &Tree, site: &Site, release: &Release) -> Result<()> {
    let kilobytes = size(tree.root())?.div_ceil(1024);
    let sums = sums(tree.root())?;
    let version = &release.version;
    tree.text(
        "DEBIAN/control",
        format!(
            "Package: {NAME}\nVersion: {version}-1\nArchitecture: amd64\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {kilobytes}\nDepends: {DEPENDS}\nSuggests: prometheus\n\
             Section: admin\nPriority: optional\nDescription: {DESCRIPTION}\n"
        ),
    )?;
    tree.text("DEBIAN/conffiles", "/etc/default/splitlock-agent\n")?;
    tree.text("DEBIAN/md5sums", sums)?;
    for script in ["postinst", "prerm", "postrm"] {
        let content = read(&site.root.join("packaging/debian").join(script))?;
        tree.program(&format!("DEBIAN/{script}"), content)?;
    }
    Ok(())
}

fn copyright(site: &Site) -> Result<String> {
    let text = String::from_utf8(read(&site.root.join("packaging/debian/copyright"))?)?;
    let licence = String::from_utf8(read(&site.root.join("LICENSE-MIT"))?)?;
    // The permission, without its headline and the copyright, which is above it.
    let permission = licence
        .split_once("Permission is hereby")
        .context("LICENSE-MIT permits nothing")?
        .1;
    let lines: Vec<String> = format!("Permission is hereby{permission}")
        .trim_end()
        .lines()
        .map(|line| match line {
            "" => " .".to_owned(),
            line => format!(" {line}"),
        })
        .collect();
    Ok(text.replace("@EXPAT@", &lines.join("\n")))
}

fn changelog(release: &Release) -> Result<String> {
    let Release {
        version, revision, ..
    } = release;
    Ok(format!(
        "{NAME} ({version}-1) unstable; urgency=medium\n\n  * Release {version}, commit {}.\n\n -- {MAINTAINER}  {}\n",
        &revision[..12],
        release.debian_date()?
    ))
}

/// The plain files in a folder, by name.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            ));
        }
    }
    files.sort();
    Ok(files)
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// What `dpkg --verify` compares with.
fn sums(root: &Path) -> Result<String> {
    let mut sums = Command::new("sh");
    sums.args([
        "-c",
        "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' md5sum",
    ])
    .current_dir(root);
    command::output(&mut sums)
}
