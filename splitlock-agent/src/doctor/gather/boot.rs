//! Where the next boot has its parameters from.

use std::{fs, path::Path};

use super::super::facts::BootLoader;

/// Files of boot loaders' parameters, and folders of such files.
const PLACES: [&str; 3] = [
    "etc/default/grub",
    "etc/default/grub.d",
    "etc/kernel/cmdline",
];

/// Tools, those that only one distribution has first.
const TOOLS: [(&str, BootLoader); 4] = [
    ("usr/sbin/grubby", BootLoader::Grubby),
    ("usr/sbin/proxmox-boot-tool", BootLoader::ProxmoxBootTool),
    ("usr/sbin/update-grub", BootLoader::UpdateGrub),
    ("usr/sbin/grub2-mkconfig", BootLoader::GrubMkconfig),
];

/// Files that have `split_lock_detect=`.
pub fn parameter_files() -> Vec<String> {
    files_below(Path::new("/"))
}

/// The tool that this host has.
pub fn loader() -> Option<BootLoader> {
    loader_below(Path::new("/"))
}

fn files_below(root: &Path) -> Vec<String> {
    let mut files = vec![];
    for place in PLACES.map(|place| root.join(place)) {
        match fs::read_dir(&place) {
            Ok(entries) => files.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
            Err(_) => files.push(place),
        }
    }
    files.sort();
    files
        .into_iter()
        .filter(|file| fs::read_to_string(file).is_ok_and(|text| has_parameter(&text)))
        .filter_map(|file| Some(file.to_str()?.to_owned()))
        .collect()
}

fn has_parameter(text: &str) -> bool {
    text.lines()
        .any(|line| !line.trim_start().starts_with('#') && line.contains("split_lock_detect="))
}

fn loader_below(root: &Path) -> Option<BootLoader> {
    TOOLS
        .iter()
        .filter(|(_, tool)| {
            // Proxmox has it also where GRUB is the loader, which does not read this file.
            *tool != BootLoader::ProxmoxBootTool || root.join("etc/kernel/cmdline").exists()
        })
        .find(|(path, _)| root.join(path).exists())
        .map(|(_, tool)| *tool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, process};

    #[test]
    fn the_parameter_is_found_where_it_is_set() {
        let root = env::temp_dir().join(format!("doctor-boot-{}", process::id()));
        fs::create_dir_all(root.join("etc/default/grub.d")).unwrap();
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        assert_eq!(loader_below(&root), None);
        let grub = root.join("etc/default/grub");
        fs::write(&grub, "# split_lock_detect=off\nGRUB_TIMEOUT=5\n").unwrap();
        assert_eq!(files_below(&root), Vec::<String>::new());
        let cloud = root.join("etc/default/grub.d/50-cloud.cfg");
        let line = "GRUB_CMDLINE_LINUX=\"quiet split_lock_detect=off\"\n";
        fs::write(&cloud, line).unwrap();
        fs::write(root.join("usr/sbin/proxmox-boot-tool"), "").unwrap();
        fs::write(root.join("usr/sbin/update-grub"), "").unwrap();
        assert_eq!(files_below(&root), [cloud.to_str().unwrap()]);
        assert_eq!(loader_below(&root), Some(BootLoader::UpdateGrub));
        fs::create_dir_all(root.join("etc/kernel")).unwrap();
        fs::write(root.join("etc/kernel/cmdline"), "quiet\n").unwrap();
        assert_eq!(loader_below(&root), Some(BootLoader::ProxmoxBootTool));
        fs::remove_dir_all(&root).unwrap();
    }
}
