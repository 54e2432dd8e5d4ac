//! `cargo xtask dist`: what is released, from one commit and as the same bytes everywhere.
//!
//! [`program`] is built first, the rest is made around it: [`deb`], [`image`], [`manifests`], [`sbom`].
//! [`checks`] asks programs of others what they think of it, [`reproduce`] makes all of it again in another
//! folder, and [`crate::vm::packages`] installs, upgrades and purges the package where systemd runs.

mod checks;
mod deb;
mod image;
mod manifests;
mod program;
mod release;
mod reproduce;
mod sbom;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use self::{deb::Contents, image::digest, release::Release, tree::Tree};
use crate::{
    command, setup,
    steps::Steps,
    vm::{self, packages},
    workspace::Workspace,
};

#[derive(clap::Args)]
pub struct DistOptions {
    /// Build everything once more in another folder, and compare
    #[arg(long)]
    check_reproducible: bool,
    /// Ask lintian, buildah and the schemas what they think of it
    #[arg(long)]
    check: bool,
    /// Try the package and the image in a machine with systemd
    #[arg(long)]
    test: bool,
    /// With --test: the kernel of that machine, a series or `newest`
    #[arg(long, value_name = "KERNEL", default_value = "newest")]
    kernel: String,
}

/// Where it is built.
pub struct Site {
    /// The folder of the sources.
    pub root: PathBuf,
    /// The folder where cargo builds.
    pub target: PathBuf,
}

/// What was made.
pub struct Made {
    /// The folder of it all.
    pub folder: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// The Debian package.
    pub deb: PathBuf,
    /// The same as the next version.
    pub next_deb: PathBuf,
    /// The image.
    pub image: PathBuf,
    /// What is in the image.
    pub image_root: PathBuf,
    /// The manifests' folder.
    pub manifests: PathBuf,
    /// What is in the program.
    pub sbom: PathBuf,
}

/// Sets up and makes it.
pub fn dist(workspace: &Workspace, steps: &mut Steps, options: &DistOptions) -> Result<()> {
    setup::setup(workspace, steps)?;
    run(workspace, steps, options)
}

/// Makes it.
pub fn run(workspace: &Workspace, steps: &mut Steps, options: &DistOptions) -> Result<()> {
    let DistOptions {
        check_reproducible,
        check,
        test,
        kernel,
    } = options;
    let release = Release::of(&workspace.root)?;
    let changed = release::changed(&workspace.root)?;
    if !changed.is_empty() {
        eprintln!(
            "These differ from the commit that the packages will name:\n{}",
            changed.join("\n")
        );
    }
    let site = Site {
        root: workspace.root.clone(),
        target: workspace.build_dir.clone(),
    };
    let made = steps.run("build the packages", || {
        let out = workspace.build_dir.join("dist");
        let made = make(workspace, &site, &release, &out)?;
        eprint!("{}", fs::read_to_string(out.join(SUMS))?);
        eprintln!("{}", out.display());
        Ok(made)
    })?;
    if *check_reproducible {
        steps.run("build them again elsewhere", || {
            reproduce::check(workspace, &release, &made, &changed)
        })?;
    }
    if !check && !test {
        return Ok(());
    }
    let downloads = workspace.build_dir.join("vm");
    let archive = steps.run("the packages of Debian", || {
        vm::open_archive(&downloads.join("apt"))
    })?;
    if *check {
        steps.run("check the packages", || {
            checks::all(workspace, &archive, &downloads, &made)
        })?;
    }
    if *test {
        packages::test(&downloads, steps, &archive, kernel, &made)?;
    }
    Ok(())
}

/// Checksums of what is released.
const SUMS: &str = "SHA256SUMS";

fn make(workspace: &Workspace, site: &Site, release: &Release, out: &Path) -> Result<Made> {
    let built = program::build(workspace, site)?;
    let tree = Tree::new(out.to_owned())?;
    let work = out.with_extension("work");
    Tree::new(work.clone())?;
    let name = format!("splitlock-agent-{}-linux-amd64", release.version);
    tree.program(&name, tree::read(&built)?)?;
    let program = out.join(name);
    // Which compilers there were; rustc's own stripping leaves that.
    command::run(
        Command::new("strip")
            .args(["--strip-all", "--remove-section=.comment"])
            .arg(&program),
    )?;
    let sbom = sbom::build(workspace, site, release, &tree)?;
    let contents = Contents {
        program: &program,
        sbom: &sbom,
        compression: "xz",
    };
    let deb = deb::build(site, release, &contents, &work, out)?;
    let next = Release {
        version: format!("{}.1~next", release.version),
        ..release.clone()
    };
    let quickly = Contents {
        compression: "none",
        ..contents
    };
    let next_deb = deb::build(site, &next, &quickly, &work, &work)?;
    let image = image::build(site, release, &program, &sbom, &work, out)?;
    manifests::build(site, release, out)?;
    let image_root = work.join("image-root");
    let sums = sums(out)?;
    tree.text(SUMS, sums)?;
    Ok(Made {
        folder: out.to_owned(),
        program,
        deb,
        next_deb,
        image,
        image_root,
        manifests: out.join("kubernetes"),
        sbom: out.join("sbom.cdx.json"),
    })
}

/// As sha256sum writes them, of the files in a folder.
fn sums(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = digest(&tree::read(&entry.path())?);
            lines.push((name.clone(), format!("{digest}  {name}\n")));
        }
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}
