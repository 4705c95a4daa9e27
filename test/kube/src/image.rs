//! Container images as docker archives: what `ctr images import` reads. Upstream names many; one root tree serves several of them.
//!
//! Every image is the same for the same programs. In: the cache's programs, Debian 13's busybox, programs of the machine. Out: tar
//! archives. It must not talk to a registry or a runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::archive::Archive;
use crate::cache::Cache;
use crate::debian;
use crate::version::{self, hex};

/// `/bin/sh`. Not busybox's, which prefers its own `nc` and `ip` to what is in PATH, and like dash keeps variables of odd names from the
/// programs that it starts.
const SHELL: (&str, &str) = ("bash", "/bin/bash");
/// What upstream's tests run in agnhost's container beside agnhost: name in the image, path on the machine.
const TOOLS: &[(&str, &str)] = &[
    ("curl", "/usr/bin/curl"),
    ("dig", "/usr/bin/dig"),
    ("getent", "/usr/bin/getent"),
    ("ip", "/bin/ip"),
    ("ipcs", "/usr/bin/ipcs"),
    ("iperf", "/usr/bin/iperf"),
    ("nc", "/bin/nc.openbsd"),
    ("nslookup", "/usr/bin/nslookup"),
    ("ss", "/bin/ss"),
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n\
                      user-defined-in-image:x:1000:1000::/home:/bin/sh\n";
/// The group that upstream's test of supplementary groups looks for (test/images/agnhost/Dockerfile).
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\n\
                     group-defined-in-image:x:50000:user-defined-in-image\n";
const FOLDERS: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "home",
    "proc",
    "root",
    "run",
    "sys",
    "uploads",
    "usr",
    "usr/bin",
    "usr/local",
    "usr/local/bin",
    "var",
    "www",
];

/// One image: its names, its configuration (OCI image specification, "config"), the layers that make its root tree.
struct Image<'a> {
    tags: &'a [&'a str],
    config: Value,
    layers: Vec<&'a [u8]>,
}

/// Builds the archive that lies under this name (one of [`version::IMAGES`] or [`version::TEST_IMAGES`]).
///
/// # Errors
/// When a program is missing; the text says which and where it comes from.
pub fn assemble(name: &str, cache: &Cache) -> Result<Vec<u8>> {
    let program = |name: &str| fs::read(cache.bin().join(name)).with_context(|| format!("reading {name}"));
    match name {
        "pause.tar" => {
            let layer = layer(&[("pause", 0o755, &program("pause")?)])?;
            let config = json!({"Entrypoint": ["/pause"], "User": "65535:65535"});
            archive(&[Image { tags: &[version::PAUSE], config, layers: vec![&layer] }])
        }
        "busybox-3.tar" => {
            let mut root = Archive::default();
            base(&mut root, cache, &[])?;
            let root = root.finish()?;
            let page = layer(&[("www/index.html", 0o644, b"Welcome to nginx!\n")])?;
            let serve = json!({"Entrypoint": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"]});
            archive(&[
                Image { tags: &[version::BUSYBOX], config: json!({"Cmd": ["sh"]}), layers: vec![&root] },
                Image { tags: version::NGINX, config: serve, layers: vec![&root, &page] },
            ])
        }
        "agnhost-4.tar" => {
            let root = agnhost(cache, &program("agnhost")?, &program("coredns")?)?;
            let config = |command: &str| json!({"Entrypoint": ["/agnhost"], "Cmd": [command]});
            let nautilus = layer(&[("data.json", 0o644, b"{\"image\": \"nautilus.jpg\"}\n")])?;
            let kitten = layer(&[("data.json", 0o644, b"{\"image\": \"kitten.jpg\"}\n")])?;
            let page = |tags, page| Image { tags, config: config("test-webserver"), layers: vec![&root, page] };
            archive(&[
                Image { tags: version::AGNHOST_NAMES, config: config("pause"), layers: vec![&root] },
                page(&[version::NAUTILUS], &nautilus),
                page(&[version::KITTEN], &kitten),
            ])
        }
        "coredns.tar" => {
            let layer = layer(&[("coredns", 0o755, &program("coredns")?)])?;
            let config = json!({"Entrypoint": ["/coredns"]});
            archive(&[Image { tags: &[version::COREDNS], config, layers: vec![&layer] }])
        }
        "conformance.tar" => {
            let alone = |name: &str, path: &str, mode| layer(&[(path, mode, &program(name)?)]);
            let apiserver = alone("sample-apiserver", "sample-apiserver", 0o755)?;
            let etcd = alone("etcd", "usr/local/bin/etcd", 0o755)?;
            let privileges = alone("nonewprivs", "usr/local/bin/nnp", 0o4755)?;
            let regression = alone("regression-issue-74839", "regression-issue-74839", 0o755)?;
            let image = |tags, command: &str, layer| Image {
                tags,
                config: json!({"Entrypoint": [command]}),
                layers: vec![layer],
            };
            archive(&[
                image(&[version::SAMPLE_APISERVER], "/sample-apiserver", &apiserver),
                image(&[version::ETCD], "/usr/local/bin/etcd", &etcd),
                image(&[version::NONEWPRIVS], "nnp", &privileges),
                image(&[version::REGRESSION_74839], "/regression-issue-74839", &regression),
            ])
        }
        other => bail!("no image {other}"),
    }
}

/// A layer of a few files: path, mode, content.
fn layer(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut layer = Archive::default();
    files.iter().try_for_each(|(path, mode, content)| layer.file(path, *mode, content))?;
    layer.finish()
}

/// A root tree with the shell, these tools of the machine, and busybox under all the names that are left.
fn base(layer: &mut Archive, cache: &Cache, tools: &[(&str, &str)]) -> Result<()> {
    FOLDERS.iter().try_for_each(|folder| layer.folder(folder, 0o755))?;
    layer.folder("tmp", 0o1777)?;
    layer.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
    layer.file("etc/group", 0o644, GROUP.as_bytes())?;
    layer.file("etc/nsswitch.conf", 0o644, b"passwd: files\ngroup: files\nhosts: files dns\n")?;
    let busybox = debian::busybox(&cache.dir().join("debian"))?;
    layer.file("bin/busybox", 0o755, &fs::read(&busybox).context("reading busybox")?)?;
    for (path, content) in with_libraries(&[&[SHELL], tools].concat())? {
        layer.file(path.trim_start_matches('/'), 0o755, &content)?;
    }
    layer.link("bin/bash", "/usr/bin/bash")?;
    layer.link("bin/sh", "/usr/bin/bash")?;
    let listed = Command::new(&busybox).arg("--list").output().context("asking busybox for its names")?;
    let names = String::from_utf8(listed.stdout).context("asking busybox for its names")?;
    let mut others = names.lines().filter(|name| !["busybox", "sh"].contains(name));
    others.try_for_each(|name| layer.link(&format!("bin/{name}"), "busybox"))
}

/// What test/images/agnhost/Dockerfile makes.
fn agnhost(cache: &Cache, agnhost: &[u8], coredns: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Archive::default();
    base(&mut layer, cache, TOOLS)?;
    layer.link("usr/local/bin/iperf", "/usr/bin/iperf")?;
    layer.file("agnhost", 0o755, agnhost)?;
    layer.link("agnhost-2", "agnhost")?;
    layer.file("coredns", 0o755, coredns)?;
    let source = source_of_kubernetes(cache)?;
    for name in ["localhost.crt", "localhost.key"] {
        let path = Path::new(&source).join("test/images/agnhost/porter").join(name);
        layer.file(name, 0o644, &fs::read(&path).with_context(|| format!("reading {}", path.display()))?)?;
    }
    layer.finish()
}

/// Programs of the machine with every library that they load, by path in the image.
fn with_libraries(tools: &[(&str, &str)]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for (name, path) in tools {
        let content = fs::read(path).with_context(|| format!("no {path}: `make deps` installs it"))?;
        files.insert(format!("/usr/bin/{name}"), content);
        let listed = Command::new("ldd").arg(path).output().context("running ldd")?;
        let text = String::from_utf8(listed.stdout).context("reading what ldd says")?;
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
        for library in libraries.filter(|library| !files.contains_key(*library)).collect::<Vec<_>>() {
            files.insert(library.to_owned(), fs::read(library).with_context(|| format!("reading {library}"))?);
        }
    }
    Ok(files)
}

/// Where Go keeps the source of Kubernetes.
fn source_of_kubernetes(cache: &Cache) -> Result<String> {
    let mut command = Command::new("go");
    command.args(["mod", "download", "-json", "k8s.io/kubernetes"]).current_dir(cache.dir().join("modules/kubernetes"));
    let output = command.output().context("running go (1.26 or newer must be in PATH)")?;
    let said: Value = serde_json::from_slice(&output.stdout).context("asking Go for the source of Kubernetes")?;
    said["Dir"].as_str().map(str::to_owned).with_context(|| format!("Go has no source of Kubernetes: {said}"))
}

/// The docker-archive layout: `manifest.json`, each image's configuration, each layer once.
fn archive(images: &[Image<'_>]) -> Result<Vec<u8>> {
    let (mut archive, mut written, mut manifest) = (Archive::default(), BTreeSet::new(), Vec::new());
    for image in images {
        let digests: Vec<_> = image.layers.iter().map(|layer| hex(&Sha256::digest(layer))).collect();
        for (digest, layer) in digests.iter().zip(&image.layers) {
            if written.insert(digest.clone()) {
                archive.file(&format!("{digest}/layer.tar"), 0o644, layer)?;
            }
        }
        let config = configuration(&image.config, &digests);
        let name = format!("{}.json", hex(&Sha256::digest(config.as_bytes())));
        archive.file(&name, 0o644, config.as_bytes())?;
        let layers: Vec<_> = digests.iter().map(|digest| format!("{digest}/layer.tar")).collect();
        manifest.push(json!({"Config": name, "RepoTags": image.tags, "Layers": layers}));
    }
    archive.file("manifest.json", 0o644, Value::from(manifest).to_string().as_bytes())?;
    archive.finish()
}

fn configuration(config: &Value, digests: &[String]) -> String {
    let mut config = config.clone();
    config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    config["WorkingDir"] = json!("/");
    let layers: Vec<_> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    json!({
        "architecture": architecture(), "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": layers},
    })
    .to_string()
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
        let cache = Cache::at(dir.path().to_owned());
        fs::create_dir(cache.bin()).unwrap();
        fs::write(cache.bin().join("pause"), "a program").unwrap();
        let image = assemble("pause.tar", &cache).unwrap();
        assert_eq!(image, assemble("pause.tar", &cache).unwrap());
        let text = String::from_utf8_lossy(&image);
        assert!(text.contains(version::PAUSE) && text.contains("diff_ids") && text.contains("a program"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = assemble("coredns.tar", &Cache::at(dir.path().to_owned())).unwrap_err();
        assert!(format!("{error:#}").contains("reading coredns"), "{error:#}");
    }

    #[test]
    fn images_that_share_a_layer_hold_it_once() {
        let root = layer(&[("file", 0o644, b"of both")]).unwrap();
        let page = layer(&[("page", 0o644, b"of one")]).unwrap();
        let image = |tag, layers| Image { tags: tag, config: json!({}), layers };
        let both = archive(&[image(&["one"], vec![&root, &page]), image(&["two"], vec![&root])]).unwrap();
        let text = String::from_utf8_lossy(&both);
        assert_eq!((text.matches("of both").count(), text.matches("of one").count()), (1, 1));
        assert_eq!(text.matches("RepoTags").count(), 2);
    }
}
