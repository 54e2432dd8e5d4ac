//! `/proc/PID/cgroup`: the cgroup of a process in each hierarchy.

/// The v1 hierarchies in which container runtimes and libvirt put a process, in the order in which
/// they are asked; the rest follow as they come.
const CONTROLLERS: [&[u8]; 4] = [b"memory", b"cpu", b"pids", b"name=systemd"];

/// Paths of a process's cgroups, the most telling hierarchy first: v2, then v1.
///
/// A line is `ID:CONTROLLERS:PATH`, v2's is `0::PATH` (`proc_cgroup_show`, kernel/cgroup/cgroup.c).
/// A path can hold colons, but no newline (`cgroup_mkdir` refuses it).
pub fn paths(text: &[u8]) -> Vec<&[u8]> {
    let mut ranked: Vec<(usize, &[u8])> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let path = within_view(path)?;
            Some((rank(id, controllers), path))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, path)| path).collect()
}

/// Whether the process's v2 cgroup is outside the reader's cgroup namespace, so that its path is
/// told only from where both meet.
pub fn is_outside_view(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"0::/.."))
}

fn rank(id: &[u8], controllers: &[u8]) -> usize {
    if id == b"0" && controllers.is_empty() {
        return 0;
    }
    let preferred = CONTROLLERS.iter().position(|wanted| {
        controllers
            .split(|byte| *byte == b',')
            .any(|controller| controller == *wanted)
    });
    1 + preferred.unwrap_or(CONTROLLERS.len())
}

/// A path without what the kernel adds: ` (deleted)` behind a removed cgroup's
/// (`proc_cgroup_show`), and `/..` for each level up to where the reader's cgroup namespace and the
/// process's cgroup meet (`cgroup_path_ns_locked`, `kernfs_path_from_node`).
fn within_view(path: &[u8]) -> Option<&[u8]> {
    let mut path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    while let Some(rest) = path.strip_prefix(b"/..") {
        match rest.first() {
            None => return Some(b"/"),
            Some(b'/') => path = rest,
            Some(_) => break,
        }
    }
    path.starts_with(b"/").then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        paths(text.as_bytes())
            .into_iter()
            .map(|path| String::from_utf8(path.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_most_telling_hierarchy_is_first() {
        let text =
            "12:freezer:/f\n9:pids:/p\n4:cpu,cpuacct:/c\n3:memory:/m\n1:name=systemd:/s\n0::/u\n";
        assert_eq!(of(text), ["/u", "/m", "/c", "/p", "/s", "/f"]);
    }

    #[test]
    fn what_the_kernel_adds_is_cut() {
        assert_eq!(of("0::/a/b (deleted)\n"), ["/a/b"]);
        assert_eq!(of("0::/../../a:b/c\n"), ["/a:b/c"]);
        assert_eq!(of("0::/..\n"), ["/"]);
        assert_eq!(of("0::/..a\n"), ["/..a"]);
        assert!(is_outside_view(b"1:cpu:/\n0::/../a\n"));
        assert!(!is_outside_view(b"0::/a/..\n"));
    }

    #[test]
    fn what_is_no_line_is_skipped() {
        assert!(of("").is_empty());
        assert!(of("0:\n0::\nnonsense\n1:cpu:relative\n").is_empty());
    }
}
