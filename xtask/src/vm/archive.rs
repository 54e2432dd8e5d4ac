//! Packages of all Debian's suites, through an apt of their own: its lists, state and
//! downloads are in the target folder, and what it fetches is unpacked and never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{sources::Mirror, system};
use crate::{command, workspace::write_if_changed};

/// Lists that are younger are not fetched again.
const LISTS_GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// An apt that knows many suites and no installed package.
pub struct Archive {
    folder: PathBuf,
}

/// What apt knows of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Names of the packages that it depends on; of alternatives the first.
    pub depends: Vec<String>,
}

impl Archive {
    /// Sets it up in a folder and fetches the package lists if they are old.
    pub fn open(folder: &Path, mirror: &Mirror) -> Result<Self> {
        if command::on_path("apt-get").is_none() || command::on_path("dpkg").is_none() {
            bail!("the kernels come from Debian's packages: this needs apt-get and dpkg");
        }
        let archive = Self {
            folder: folder.to_owned(),
        };
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part)
                .with_context(|| format!("cannot create {}", part.display()))?;
        }
        // No package is installed, so every one's dependencies are complete.
        write_if_changed(&folder.join("status"), "")?;
        write_if_changed(&archive.configuration_file(), &archive.configuration()?)?;
        let list = folder.join("sources.list");
        let sources = mirror.sources_list();
        let changed = fs::read_to_string(&list).ok().as_ref() != Some(&sources);
        write_if_changed(&list, &sources)?;
        if changed || !archive.lists_are_young() {
            archive.update()?;
        }
        Ok(archive)
    }

    /// Names of all packages that match a regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let mut search = self.command("apt-cache");
        search.args(["search", "--names-only", pattern]);
        let names = command::output(&mut search)?;
        Ok(names
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// What apt knows of a package, in its best version.
    pub fn package(&self, name: &str) -> Result<Package> {
        self.show(&[name])
    }

    /// What apt knows of a package in a suite.
    pub fn package_of(&self, name: &str, suite: &str) -> Result<Package> {
        self.show(&["--target-release", suite, name])
    }

    fn show(&self, args: &[&str]) -> Result<Package> {
        let mut show = self.command("apt-cache");
        show.args(["show", "--no-all-versions"]).args(args);
        let text = command::output(&mut show)?;
        parse_package(&text).with_context(|| format!("{show:?} says no name or version"))
    }

    /// Downloads packages of the best version and unpacks them into a folder, which appears
    /// only when it is complete.
    pub fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        self.unpack_downloads(
            folder,
            |downloads| {
                let mut download = self.command("apt-get");
                download
                    .arg("download")
                    .args(packages)
                    .current_dir(downloads);
                command::output(&mut download).map(|_| ())
            },
            |_debs, _root| Ok(()),
        )
    }

    /// The same for packages and all that they depend on, from one suite.
    pub fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        suite: &str,
        folder: &Path,
    ) -> Result<()> {
        self.unpack_downloads(
            folder,
            |downloads| self.download_with_dependencies(packages, suite, downloads),
            |_debs, _root| Ok(()),
        )
    }

    fn download_with_dependencies(
        &self,
        packages: &[&str],
        suite: &str,
        downloads: &Path,
    ) -> Result<()> {
        let mut install = self.command("apt-get");
        install
            .args(["install", "--download-only", "--no-install-recommends"])
            .args(["--assume-yes", "--target-release", suite])
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", downloads.display()))
            .args(packages);
        command::output(&mut install).map(|_| ())
    }

    /// The same, as a system whose dpkg knows them.
    pub fn unpack_registered(&self, packages: &[&str], suite: &str, folder: &Path) -> Result<()> {
        self.unpack_downloads(
            folder,
            |downloads| self.download_with_dependencies(packages, suite, downloads),
            system::register,
        )
    }

    /// Downloads into one folder beside the target and unpacks into another; neither stays.
    fn unpack_downloads(
        &self,
        folder: &Path,
        download: impl FnOnce(&Path) -> Result<()>,
        finish: impl FnOnce(&[PathBuf], &Path) -> Result<()>,
    ) -> Result<()> {
        let downloads = append(folder, ".downloads");
        let partial = append(folder, ".partial");
        // What an interrupted run left.
        remove(&downloads)?;
        remove(&partial)?;
        let result = fill(&partial, &downloads, download).and_then(|debs| {
            finish(&debs, &partial)?;
            fs::rename(&partial, folder).with_context(|| {
                format!("cannot move {} to {}", partial.display(), folder.display())
            })
        });
        remove(&downloads)?;
        remove(&partial)?;
        result
    }

    fn update(&self) -> Result<()> {
        eprintln!("Fetching the package lists of Debian's suites into the target folder.");
        let mut update = self.command("apt-get");
        // A suite that the mirror lacks or that is past its date must not hide the others.
        update.args(["-o", "Acquire::Check-Valid-Until=false", "update"]);
        match command::output(&mut update) {
            Ok(_) => write_stamp(&self.stamp()),
            Err(error) if self.has_lists() => {
                eprintln!("{error:#}\nGoing on with the lists that are there.");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn lists_are_young(&self) -> bool {
        let modified = fs::metadata(self.stamp()).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < LISTS_GOOD_FOR))
    }

    fn has_lists(&self) -> bool {
        fs::read_dir(self.folder.join("state/lists"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("updated")
    }

    fn configuration_file(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    /// apt reads this file before all others, and because of its first lines no other.
    fn configuration(&self) -> Result<String> {
        let folder = self.folder.display();
        let mut text = format!(
            "Dir::Etc::main \"-\";\nDir::Etc::parts \"-\";\n\
             Dir::Etc::preferences \"-\";\nDir::Etc::preferencesparts \"-\";\n\
             Dir::Etc::sourcelist \"{folder}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             Dir::State \"{folder}/state\";\nDir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\n"
        );
        let dump = command::output(Command::new("apt-config").arg("dump"))?;
        for line in proxies(&dump) {
            text += line;
            text.push('\n');
        }
        Ok(text)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.configuration_file())
            .env("DEBIAN_FRONTEND", "noninteractive")
            // The output is translated otherwise.
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

/// Gives the packages' files.
fn fill(
    folder: &Path,
    downloads: &Path,
    download: impl FnOnce(&Path) -> Result<()>,
) -> Result<Vec<PathBuf>> {
    // apt wants this one in a folder for downloads.
    let partial_downloads = downloads.join("partial");
    fs::create_dir_all(&partial_downloads)
        .with_context(|| format!("cannot create {}", partial_downloads.display()))?;
    merge_usr(folder)?;
    download(downloads)?;
    let mut files: Vec<PathBuf> = fs::read_dir(downloads)
        .with_context(|| format!("cannot list {}", downloads.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    files.sort();
    for file in &files {
        command::output(Command::new("dpkg").arg("-x").arg(file).arg(folder))?;
    }
    Ok(files)
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// The name of a folder beside this one.
fn append(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_stamp(file: &Path) -> Result<()> {
    fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))
}

/// Newer packages have their files in `/usr` and nothing makes the links that older paths need;
/// where a package has a folder of that name, dpkg puts it in the link's place.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let target = root.join("usr").join(name);
        fs::create_dir_all(&target)
            .with_context(|| format!("cannot create {}", target.display()))?;
        std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name))
            .with_context(|| format!("cannot link {name} in {}", root.display()))?;
    }
    Ok(())
}

/// How this machine's apt gets out, of all its configuration.
fn proxies(dump: &str) -> impl Iterator<Item = &str> {
    dump.lines()
        .filter(|line| line.starts_with("Acquire::http") && line.contains("::Proxy"))
}

fn parse_package(text: &str) -> Option<Package> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let depends = field("Depends").unwrap_or_default();
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        depends: depends
            .split(',')
            .filter_map(|dependency| dependency.split_whitespace().next())
            .map(str::to_owned)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_package() {
        let text = "Package: linux-image-7.3.4\nSource: linux\nVersion: 7.3.4-1~bpo13+1\n\
            Depends: dracut | initramfs-tools (>= 0.120), linux-binary-7.3.4 (= 7.3.4-1~bpo13+1), kmod\n";
        let package = parse_package(text).unwrap();
        assert_eq!(package.name, "linux-image-7.3.4");
        assert_eq!(package.version, "7.3.4-1~bpo13+1");
        assert_eq!(package.depends, ["dracut", "linux-binary-7.3.4", "kmod"]);
        assert_eq!(parse_package(""), None);
    }

    #[test]
    fn only_proxies_are_taken_over() {
        let dump = "Acquire::http::Proxy \"http://proxy.example:3128\";\n\
            Acquire::Languages \"\";\nDPkg::Post-Invoke:: \"rm -f x\";\n\
            Acquire::https::Proxy::other.example \"DIRECT\";\n";
        assert_eq!(proxies(dump).count(), 2);
    }

    #[test]
    fn folders_beside_keep_the_whole_name() {
        assert_eq!(
            append(Path::new("/t/6.1_6.1.2-1"), ".partial"),
            Path::new("/t/6.1_6.1.2-1.partial")
        );
    }
}
