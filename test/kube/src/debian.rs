//! Debian 13's busybox, unpacked from its package without being installed: Debian 12's (1.35) crashes in `wget -T`, which upstream's
//! tests run.
//!
//! In: the mirror that apt is set up with. Out: a program in a folder. It must not change what is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const VERSION: &str = "1.37.0-6+b9";
/// SHA-256 of the package for each architecture, by Debian's name.
const SUMS: &[(&str, &str)] = &[
    ("amd64", "598a3fd92bdafc34cd81196b2952ad36e910e47a4ecf162f8ce5e8e262598e53"),
    ("arm64", "c833be48abfa16bc19c4966ec93e289ff1ce5d2f1476cad3a57bd105378cd15c"),
];
/// What to do when the package cannot be had: a point release of Debian 13 may have replaced it.
const ADVICE: &str = "run `apt-get update` and try again; if Debian 13 has a newer busybox-static, set VERSION and SUMS in \
                      test/kube/src/debian.rs to it";

/// The program, downloaded into `folder` unless it is there.
///
/// # Errors
/// When it cannot be downloaded or is not what it was; the text says what to do.
pub fn busybox(folder: &Path) -> Result<PathBuf> {
    let tree = folder.join(format!("busybox-{VERSION}"));
    let program = tree.join("usr/bin/busybox");
    if program.exists() {
        return Ok(program);
    }
    let architecture = said("dpkg", &["--print-architecture"])?.trim().to_owned();
    let sum = SUMS.iter().find(|(name, _)| *name == architecture).map(|(_, sum)| sum);
    let sum =
        sum.with_context(|| format!("the busybox of {architecture} is not known: add it to SUMS in debian.rs"))?;
    let mirrors = said("apt-get", &["indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian"])?;
    let mirror =
        mirrors.lines().next().context("apt knows no mirror of Debian: run `apt-get update`, then this again")?;
    let url = format!("{mirror}pool/main/b/busybox/busybox-static_{}_{architecture}.deb", VERSION.replace('+', "%2b"));
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let package = folder.join("busybox.deb").display().to_string();
    let helper = "/usr/lib/apt/apt-helper";
    said(helper, &["download-file", &url, &package, &format!("SHA256:{sum}")]).context(ADVICE)?;
    let draft = folder.join("busybox.new");
    said("dpkg-deb", &["--extract", &package, &draft.display().to_string()])?;
    fs::rename(&draft, &tree).with_context(|| format!("moving busybox to {}", tree.display()))?;
    Ok(program)
}

/// What a command says when it succeeds.
fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("`{program} {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading what {program} says"))
}
