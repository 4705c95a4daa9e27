//! Builds what the cache lacks, one thing after the other: Go itself uses every core.
//!
//! In: a cache, the Go toolchain. Out: a whole cache, a line per step on stderr. It must not set up Go: where modules come from is
//! the machine's matter.

use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::image;
use crate::version::{IMAGES, MODULES, PROGRAMS, Program, TEST_IMAGES};

/// Makes the cache whole. Safe to interrupt and to run again: what is there and unchanged stays.
///
/// # Errors
/// Names the step that failed, with what Go said.
pub fn build(cache: &Cache) -> Result<()> {
    let start = Instant::now();
    fs::create_dir_all(cache.bin()).with_context(|| format!("creating {}", cache.bin().display()))?;
    fs::create_dir_all(cache.images()).with_context(|| format!("creating {}", cache.images().display()))?;
    for path in cache.forget_changed()? {
        eprintln!("kube: {path} is not as it was built: building it again");
    }
    let missing = cache.missing();
    let wanted: Vec<_> = PROGRAMS.iter().filter(|program| missing.contains(&format!("bin/{}", program.name))).collect();
    if !missing.is_empty() {
        check_go()?;
        write_modules(cache)?;
    }
    for (index, program) in wanted.iter().enumerate() {
        eprintln!("kube: [{}/{}] {}", index + 1, wanted.len(), program.name);
        let start = Instant::now();
        compile(cache, program)?;
        eprintln!("kube: {:<24} {:4} s", program.name, start.elapsed().as_secs());
    }
    for name in IMAGES
        .iter()
        .chain(TEST_IMAGES)
        .filter(|name| !wanted.is_empty() || missing.contains(&format!("images/{name}")))
    {
        let bytes = image::assemble(name, cache).with_context(|| format!("assembling {name}"))?;
        fs::write(cache.images().join(name), &bytes).with_context(|| format!("writing {name}"))?;
        cache.record(&format!("images/{name}"))?;
        eprintln!("kube: {name:<24} {:4} MiB", bytes.len() >> 20);
    }
    eprintln!("kube: {} is whole, {} s", cache.dir().display(), start.elapsed().as_secs());
    Ok(())
}

/// Whether Go is there at all; which version is needed says `go.mod`, and Go itself complains.
fn check_go() -> Result<()> {
    match Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`go version` ended with {status}: mend the Go toolchain, then run this again"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "no Go toolchain in PATH: install Go 1.26 or newer (https://go.dev/dl), put its bin folder into PATH, then run `make kube-build` again"
            )
        }
        Err(error) => Err(error).context("running go"),
    }
}

fn write_modules(cache: &Cache) -> Result<()> {
    for module in MODULES {
        for (path, text) in module.files {
            let path = cache.dir().join("modules").join(module.name).join(path);
            let folder = path.parent().unwrap_or(&path);
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

fn compile(cache: &Cache, program: &Program) -> Result<()> {
    let draft = cache.dir().join(format!("{}.new", program.name));
    let mut command = Command::new("go");
    command.current_dir(cache.dir().join("modules").join(program.module)).env("CGO_ENABLED", "0");
    command.args(program.kind.args()).arg("-o").arg(&draft).arg(program.package).stdin(Stdio::null());
    let status = command.status().with_context(|| format!("building {}", program.name))?;
    if !status.success() {
        bail!("building {}: `go` ended with {status}; its own words are above", program.name);
    }
    let path = cache.bin().join(program.name);
    fs::rename(&draft, &path).with_context(|| format!("moving {} to its place", program.name))?;
    cache.record(&format!("bin/{}", program.name))
}
