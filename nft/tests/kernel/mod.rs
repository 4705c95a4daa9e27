//! nft(8) in a network namespace of the test's own; also for the tests of crates that make tables.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Puts the thread into a network namespace of its own; false (said loudly) where that is not possible.
pub fn enter() -> bool {
    if !nix::unistd::geteuid().is_root() || Command::new("nft").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no root, or no nft, in CI");
        eprintln!("SKIP: needs root and nft");
        return false;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    true
}

/// Runs nft, which must not complain, and returns what it prints.
pub fn nft(args: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{input}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A table as nft lists it, in JSON; by family and name.
pub fn listed(id: &str) -> String {
    let (family, name) = id.split_once(' ').unwrap();
    nft(&["-j", "list", "table", family, name], "")
}
