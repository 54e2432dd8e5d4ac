//! The container image: the program and nothing else, as an OCI archive.
//!
//! It is written here, as an image is three JSON documents and a tar archive: tools that build images
//! put their own times and history in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Site,
    release::Release,
    tree::{Tree, gzip, read},
};

/// The account that the agent becomes, which it looks up by name.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\n\
                      splitlock-agent:x:9839:9839:splitlock-agent:/nonexistent:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nsplitlock-agent:x:9839:\n";

/// Writes it as `splitlock-agent-VERSION-oci.tar` in a folder.
pub fn build(
    site: &Site,
    release: &Release,
    program: &Path,
    sbom: &str,
    work: &Path,
    out: &Path,
) -> Result<PathBuf> {
    let root = Tree::new(work.join("image-root"))?;
    root.program("usr/bin/splitlock-agent", read(program)?)?;
    root.text("etc/passwd", PASSWD)?;
    root.text("etc/group", GROUP)?;
    let doc = "usr/share/doc/splitlock-agent";
    root.text(&format!("{doc}/sbom.cdx.json"), sbom)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        root.text(&format!("{doc}/{licence}"), read(&site.root.join(licence))?)?;
    }
    let layer = work.join("layer.tar");
    root.tar(release, &layer)?;
    let unpacked = digest(&read(&layer)?);
    gzip(&layer)?;
    let layer = read(&work.join("layer.tar.gz"))?;

    let layout = Tree::new(work.join("image"))?;
    let store = |content: &[u8]| -> Result<Value> {
        let digest = digest(content);
        layout.text(&format!("blobs/sha256/{digest}"), content)?;
        Ok(json!({ "digest": format!("sha256:{digest}"), "size": content.len() }))
    };
    let layer = typed(
        store(&layer)?,
        "application/vnd.oci.image.layer.v1.tar+gzip",
    );
    let config = store(&serde_json::to_vec(&config(release, &unpacked)?)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": typed(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [layer],
    });
    let manifest = store(&serde_json::to_vec(&manifest)?)?;
    let mut manifest = typed(manifest, "application/vnd.oci.image.manifest.v1+json");
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": release.version,
        // Who loads it into containerd finds it by this name.
        "io.containerd.image.name": format!("docker.io/library/splitlock-agent:{}", release.version),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    layout.text("index.json", serde_json::to_vec(&index)?)?;
    layout.text("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let file = out.join(format!("splitlock-agent-{}-oci.tar", release.version));
    let _ = fs::remove_file(&file);
    layout.tar(release, &file)?;
    Ok(file)
}

fn config(release: &Release, layer: &str) -> Result<Value> {
    let Release {
        version, revision, ..
    } = release;
    let date = release.date().context("the release's time")?;
    Ok(json!({
        "created": date,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/splitlock-agent"],
            "Cmd": ["run"],
            "ExposedPorts": { "9839/tcp": {} },
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "splitlock-agent",
                "org.opencontainers.image.description":
                    "Split locks and bus locks per process and VM, as Prometheus metrics",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.revision": revision,
                "org.opencontainers.image.created": date,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": date, "created_by": "cargo xtask dist" }],
    }))
}

fn typed(mut descriptor: Value, media_type: &str) -> Value {
    descriptor["mediaType"] = media_type.into();
    descriptor
}

/// SHA-256 in hexadecimal digits.
pub fn digest(content: &[u8]) -> String {
    let sum = Sha256::digest(content);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_everyone_computes() {
        assert_eq!(
            digest(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
