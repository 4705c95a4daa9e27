//! What is built: versions, programs, and the hash of it all, which names the cache.
//!
//! The versions themselves are pinned by the embedded `go.mod` and `go.sum` files; those here repeat what images and stamps need.
//! It must not touch the system.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Kubernetes, as `modules/kubernetes/go.mod` pins it.
pub const KUBERNETES: &str = "1.36.3";
/// The sandbox image, as this Kubernetes names it (test/utils/image/manifest.go).
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// A shell and small tools.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
/// Upstream's test server and client.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// The same, and what upstream has under other names for the same tools: an older one to update from, one with glibc.
pub const AGNHOST_NAMES: &[&str] = &[
    AGNHOST,
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
];
/// agnhost with a page, before an update.
pub const NAUTILUS: &str = "registry.k8s.io/e2e-test-images/nautilus:1.8";
/// agnhost with a page, after an update.
pub const KITTEN: &str = "registry.k8s.io/e2e-test-images/kitten:1.8";
/// A server of files on port 80.
pub const NGINX: &[&str] =
    &["registry.k8s.io/e2e-test-images/nginx:1.15-4", "registry.k8s.io/e2e-test-images/nginx:1.27-0"];
/// An API server to aggregate, as `modules/kubernetes/go.mod` pins it, under the tag that this Kubernetes asks for.
pub const SAMPLE_APISERVER: &str = "registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2";
/// What that one stores in.
pub const ETCD: &str = "registry.k8s.io/etcd:3.6.8-0";
/// A program that says who it is, and would be root if it could.
pub const NONEWPRIVS: &str = "registry.k8s.io/e2e-test-images/nonewprivs:1.4";
/// A program that sends packets out of the order of their connection.
pub const REGRESSION_74839: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4";
/// Cluster DNS, as `modules/coredns/go.mod` pins it.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.14.2";

/// A Go module of our own that pins other modules: folder and files, relative to `modules/`.
pub struct Module {
    /// Its folder.
    pub name: &'static str,
    /// Path and text of each file.
    pub files: &'static [(&'static str, &'static str)],
}

/// A program: which module builds which package, and how.
pub struct Program {
    /// Name of the file.
    pub name: &'static str,
    /// Folder of the module.
    pub module: &'static str,
    /// Go package.
    pub package: &'static str,
    /// What is special about the build.
    pub kind: Kind,
}

/// How a program is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `go build`.
    Plain,
    /// `go build` with Kubernetes' version stamped in: an unstamped one fails the checks of version skew.
    Stamped,
    /// `go build` without the parts of containerd that need more than this machine has.
    Containerd,
    /// `go test -c`, stamped.
    Test,
}

impl Kind {
    /// Arguments of `go`, up to the output.
    pub fn args(self) -> Vec<String> {
        let mut args: Vec<String> = if self == Self::Test { vec!["test", "-c"] } else { vec!["build"] }
            .into_iter()
            .chain(["-trimpath", "-buildvcs=false", "-mod=readonly"])
            .map(Into::into)
            .collect();
        if self == Self::Containerd {
            args.extend(["-tags".into(), "no_btrfs no_devmapper no_zfs no_aufs no_tracing".into()]);
        }
        let stamps = if matches!(self, Self::Stamped | Self::Test) { stamps() } else { String::new() };
        args.extend(["-ldflags".into(), format!("-s -w{stamps}")]);
        args
    }
}

/// Linker flags that give Kubernetes' programs their version (k8s.io/component-base/version/base.go).
fn stamps() -> String {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let values = [
        ("gitVersion", format!("v{KUBERNETES}")),
        ("gitMajor", "1".into()),
        ("gitMinor", minor.to_owned()),
        ("gitCommit", "0".repeat(40)),
        ("gitTreeState", "clean".into()),
        ("buildDate", "2026-01-01T00:00:00Z".into()),
    ];
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    let mut text = String::new();
    for (name, value) in packages
        .iter()
        .flat_map(|package| values.iter().map(move |value| (package, value)))
        .map(|(package, (name, value))| (format!("{package}.{name}"), value))
    {
        // Writing to a String cannot fail.
        let _ = write!(text, " -X {name}={value}");
    }
    text
}

macro_rules! module {
    ($name:literal $(, $more:literal)*) => {
        Module {
            name: $name,
            files: &[
                ("go.mod", include_str!(concat!("../modules/", $name, "/go.mod"))),
                ("go.sum", include_str!(concat!("../modules/", $name, "/go.sum"))),
                $(($more, include_str!(concat!("../modules/", $name, "/", $more))),)*
            ],
        }
    };
}

/// All modules.
pub const MODULES: &[Module] =
    &[module!("kubernetes", "pause/main.go"), module!("containerd"), module!("crictl"), module!("coredns")];

const fn program(name: &'static str, module: &'static str, package: &'static str, kind: Kind) -> Program {
    Program { name, module, package, kind }
}

/// All programs, in the order in which they are built.
pub const PROGRAMS: &[Program] = &[
    program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", Kind::Stamped),
    program("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", Kind::Stamped),
    program("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", Kind::Stamped),
    program("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet", Kind::Stamped),
    program("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", Kind::Stamped),
    program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", Kind::Stamped),
    program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3", Kind::Plain),
    program("agnhost", "kubernetes", "k8s.io/kubernetes/test/images/agnhost", Kind::Plain),
    program("pause", "kubernetes", "./pause", Kind::Plain),
    program("containerd", "containerd", "github.com/containerd/containerd/v2/cmd/containerd", Kind::Containerd),
    program(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        Kind::Containerd,
    ),
    program("ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr", Kind::Containerd),
    program("crictl", "crictl", "sigs.k8s.io/cri-tools/cmd/crictl", Kind::Plain),
    program("coredns", "coredns", "github.com/coredns/coredns", Kind::Plain),
    program("ginkgo", "kubernetes", "github.com/onsi/ginkgo/v2/ginkgo", Kind::Plain),
    program("e2e.test", "kubernetes", "k8s.io/kubernetes/test/e2e", Kind::Test),
    program("sample-apiserver", "kubernetes", "k8s.io/sample-apiserver", Kind::Plain),
    program("nonewprivs", "kubernetes", "k8s.io/kubernetes/test/images/nonewprivs", Kind::Plain),
    program(
        "regression-issue-74839",
        "kubernetes",
        "k8s.io/kubernetes/test/images/regression-issue-74839",
        Kind::Plain,
    ),
];

/// Archives of the images of every lab, by name of the file below `images/`. A new recipe takes a new name, so that caches make it anew.
pub const IMAGES: &[&str] = &["pause.tar", "busybox-3.tar", "agnhost-4.tar", "coredns.tar"];
/// Archives of images that only upstream's tests want.
pub const TEST_IMAGES: &[&str] = &["conformance.tar"];

/// What names the cache: changes with any version, checksum, flag or image.
pub fn hash() -> String {
    let mut hasher = Sha256::new();
    let mut feed = |text: &str| hasher.update(format!("{}:{text}", text.len()));
    MODULES.iter().flat_map(|module| module.files).for_each(|(path, text)| {
        feed(path);
        feed(text);
    });
    for program in PROGRAMS {
        [program.name, program.package].iter().for_each(|text| feed(text));
        program.kind.args().iter().for_each(|arg| feed(arg));
    }
    [PAUSE, BUSYBOX, AGNHOST, COREDNS].iter().for_each(|tag| feed(tag));
    hex(&hasher.finalize())[..16].to_owned()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_its_module_and_the_versions_agree_with_its_pins() {
        let pins = |module: &str| MODULES.iter().find(|m| m.name == module).map(|m| m.files[0].1).unwrap();
        assert!(PROGRAMS.iter().all(|program| !pins(program.module).is_empty()));
        assert!(pins("kubernetes").contains(&format!("k8s.io/kubernetes v{KUBERNETES}\n")));
        let coredns = COREDNS.rsplit(':').next().unwrap();
        assert!(pins("coredns").contains(&format!("github.com/coredns/coredns {coredns}\n")));
    }

    #[test]
    fn stamps_name_the_version_in_both_packages() {
        assert_eq!(stamps().matches(&format!("gitVersion=v{KUBERNETES}")).count(), 2);
        assert_eq!(stamps().matches("gitMinor=36").count(), 2);
    }
}
