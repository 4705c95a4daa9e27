//! Container images as docker archives of one layer: what `ctr images import` reads.
//!
//! Every image is the same for the same programs. In: programs of the cache and the machine's static busybox. Out: tar archives.
//! It must not talk to a registry or a runtime.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::archive::Archive;
use crate::version::{self, hex};

/// Where Debian's busybox-static lies.
const BUSYBOX: &str = "/bin/busybox";
/// Upstream's tests run it in agnhost's container.
const CURL: &str = "/usr/bin/curl";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Builds the image that lies under this name (one of [`version::IMAGES`]) from the programs in `bin`.
///
/// # Errors
/// When a program is missing; the text says which and where it comes from.
pub fn assemble(name: &str, bin: &Path) -> Result<Vec<u8>> {
    let program = |name: &str| fs::read(bin.join(name)).with_context(|| format!("reading {name}"));
    let mut layer = Archive::default();
    let (tag, config) = match name {
        "pause.tar" => {
            layer.file("pause", 0o755, &program("pause")?)?;
            (version::PAUSE, json!({"Entrypoint": ["/pause"], "User": "65535:65535"}))
        }
        "busybox.tar" => {
            base(&mut layer)?;
            (version::BUSYBOX, json!({"Cmd": ["sh"]}))
        }
        "agnhost-2.tar" => {
            base(&mut layer)?;
            with_libraries(&mut layer, CURL)?;
            layer.file("agnhost", 0o755, &program("agnhost")?)?;
            (version::AGNHOST, json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}))
        }
        "coredns.tar" => {
            layer.file("coredns", 0o755, &program("coredns")?)?;
            (version::COREDNS, json!({"Entrypoint": ["/coredns"]}))
        }
        other => bail!("no image {other}"),
    };
    docker_archive(&layer.finish()?, tag, config)
}

/// A root tree with busybox under all its names.
fn base(layer: &mut Archive) -> Result<()> {
    for folder in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var"] {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("tmp", 0o1777)?;
    layer.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
    layer.file("etc/group", 0o644, GROUP.as_bytes())?;
    let advice = "install Debian's package busybox-static (`make deps` does), then run this again";
    let content = fs::read(BUSYBOX).with_context(|| format!("no {BUSYBOX}: {advice}"))?;
    layer.file("bin/busybox", 0o755, &content)?;
    let listed = Command::new(BUSYBOX).arg("--list").output().context("asking busybox for its names")?;
    let names = String::from_utf8(listed.stdout).context("asking busybox for its names")?;
    names.lines().filter(|name| *name != "busybox").try_for_each(|name| layer.link(&format!("bin/{name}"), "busybox"))
}

/// A program of the machine, with every library that it loads.
fn with_libraries(layer: &mut Archive, program: &str) -> Result<()> {
    let listed = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8(listed.stdout).context("reading what ldd says")?;
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    for path in std::iter::once(program).chain(libraries) {
        let content = fs::read(path).with_context(|| format!("no {path}: `make deps` installs it"))?;
        layer.file(path.trim_start_matches('/'), 0o755, &content)?;
    }
    Ok(())
}

/// The docker-archive layout: `manifest.json`, the image's configuration, one layer.
fn docker_archive(layer: &[u8], tag: &str, mut config: Value) -> Result<Vec<u8>> {
    config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    config["WorkingDir"] = json!("/");
    let digest = hex(&Sha256::digest(layer));
    let image = json!({
        "architecture": architecture(), "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    })
    .to_string();
    let id = hex(&Sha256::digest(image.as_bytes()));
    let (layer_path, config_path) = (format!("{digest}/layer.tar"), format!("{id}.json"));
    let manifest = json!([{"Config": config_path, "RepoTags": [tag], "Layers": [layer_path]}]).to_string();
    let mut archive = Archive::default();
    archive.file(&layer_path, 0o644, layer)?;
    archive.file(&config_path, 0o644, image.as_bytes())?;
    archive.file("manifest.json", 0o644, manifest.as_bytes())?;
    archive.finish()
}

/// This machine's architecture by Go's name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_each_time_and_names_its_layer() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pause"), "a program").unwrap();
        let image = assemble("pause.tar", dir.path()).unwrap();
        assert_eq!(image, assemble("pause.tar", dir.path()).unwrap());
        let text = String::from_utf8_lossy(&image);
        assert!(text.contains(version::PAUSE) && text.contains("diff_ids") && text.contains("a program"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = assemble("coredns.tar", dir.path()).unwrap_err();
        assert!(format!("{error:#}").contains("reading coredns"), "{error:#}");
    }
}
