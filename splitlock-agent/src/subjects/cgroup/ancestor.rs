//! The runtime of a container whose cgroup does not say, by the process that watches over it.

use super::Runtime;

/// The runtime that an ancestor of a container's process belongs to, by its comm and arguments;
/// `None` if it is no container's monitor.
///
/// Each container has a monitor of its own outside it: containerd's shim with `-namespace` (`moby`
/// for Docker, `k8s.io` for the kubelet; containerd, core/runtime/v2/shim), or conmon with the
/// engine's clean-up command (`--exit-command`; conmon's options) or its folders.
pub fn runtime_of_ancestor(comm: &[u8], argv: &[&[u8]]) -> Option<Runtime> {
    // comm holds 15 bytes: `containerd-shim-runc-v2` is `containerd-shim`, and Docker's own shim
    // before 18.09 was `docker-containerd-shim`.
    if comm.starts_with(b"docker-containe") {
        return Some(Runtime::Docker);
    }
    if comm.starts_with(b"containerd-shim") || comm.starts_with(b"containerd-sh") {
        return Some(match namespace(argv) {
            Some(b"moby") => Runtime::Docker,
            _ => Runtime::Containerd,
        });
    }
    if comm == b"conmon" || comm == b"conmonrs" {
        let mentions = |name: &[u8]| {
            argv.iter()
                .any(|argument| argument.windows(name.len()).any(|window| window == name))
        };
        if mentions(b"podman") || mentions(b"/libpod") {
            return Some(Runtime::Podman);
        }
        if mentions(b"crio") || mentions(b"cri-o") {
            return Some(Runtime::CriO);
        }
    }
    None
}

/// Go's flags: one dash or two, the value behind a `=` or as the next argument.
fn namespace<'a>(argv: &[&'a [u8]]) -> Option<&'a [u8]> {
    let mut arguments = argv.iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix(b"-") else {
            continue;
        };
        let flag = flag.strip_prefix(b"-").unwrap_or(flag);
        if flag == b"namespace" {
            return arguments.next().copied();
        }
        if let Some(value) = flag.strip_prefix(b"namespace=") {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(comm: &str, line: &str) -> Option<Runtime> {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        runtime_of_ancestor(comm.as_bytes(), &argv)
    }

    #[test]
    fn monitors() {
        let shim = "/usr/bin/containerd-shim-runc-v2";
        let of = |arguments: &str| runtime("containerd-shim", &format!("{shim} {arguments}"));
        assert_eq!(of("-namespace moby -id 12"), Some(Runtime::Docker));
        assert_eq!(of("-namespace k8s.io -id 12"), Some(Runtime::Containerd));
        assert_eq!(
            of("-id moby --namespace=default"),
            Some(Runtime::Containerd)
        );
        assert_eq!(
            runtime("docker-containe", "docker-containerd-shim 12"),
            Some(Runtime::Docker)
        );
        assert_eq!(
            runtime(
                "conmon",
                "/usr/bin/conmon -c 12 --exit-command /usr/bin/podman"
            ),
            Some(Runtime::Podman)
        );
        assert_eq!(
            runtime(
                "conmon",
                "/usr/libexec/crio/conmon -c 12 -P /run/x/conmon-pidfile"
            ),
            Some(Runtime::CriO)
        );
        assert_eq!(runtime("conmon", "conmon"), None);
        assert_eq!(runtime("bash", "bash -namespace moby"), None);
    }

    #[test]
    fn fuzz_ancestor() {
        bolero::check!(name = "ancestor").for_each(|line: &[u8]| {
            let argv: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            // What is no monitor by its comm never tells of a runtime.
            assert_eq!(runtime_of_ancestor(b"bash", &argv), None);
            assert!(runtime_of_ancestor(b"containerd-shim", &argv).is_some());
            let _ = runtime_of_ancestor(b"conmon", &argv);
        });
    }
}
