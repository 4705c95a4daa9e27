//! Masters beside the lab's own, and what a master says of itself.
//!
//! In: a lab. Out: command lines, answers. It must not know what a test proves with them.

use anyhow::{Context, Result, bail, ensure};
use ovenbird_lab::{Lab, Spec};
use serde_json::Value;

/// The lab's first master under another name, with some of its flags set otherwise, its own admin socket, and no metrics.
///
/// # Errors
/// When the lab has no master, or that has no such flag.
pub fn another(lab: &Lab, name: &str, flags: &[(&str, &str)]) -> Result<Spec> {
    let mut spec = lab.layout().processes().get("central/master")?.spec;
    spec.name = format!("central/{name}");
    let socket = socket(lab, name);
    let own = [("--admin-socket", socket.as_str()), ("--metrics-bind-address", ""), ("--lease-identity", name)];
    for (flag, value) in own.iter().chain(flags) {
        set_flag(&mut spec.argv, flag, value)?;
    }
    Ok(spec)
}

/// What a master that `another` has made answers to `ovenbird status`.
///
/// # Errors
/// When it does not answer.
pub fn status(lab: &Lab, name: &str) -> Result<Value> {
    let text = lab.exec_node("central", &["ovenbird", "status", "--output", "json", "--socket", &socket(lab, name)])?;
    serde_json::from_str(&text).context("reading a master's status")
}

fn socket(lab: &Lab, name: &str) -> String {
    lab.layout().home("central").join(format!("{name}.sock")).display().to_string()
}

fn set_flag(argv: &mut [String], flag: &str, value: &str) -> Result<()> {
    let Some(index) = argv.iter().position(|argument| argument == flag) else { bail!("the master has no {flag}") };
    ensure!(index + 1 < argv.len(), "{flag} has no value");
    value.clone_into(&mut argv[index + 1]);
    Ok(())
}
