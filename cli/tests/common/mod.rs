//! What the tests on real databases share: servers that end with the test, and the program itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};

const SCHEMAS: &str = "/usr/share/ovn";

/// False, said aloud, on a host without OVN.
pub fn has_ovn() -> bool {
    let there = Path::new(SCHEMAS).exists();
    if !there {
        println!("SKIP: no OVN on this host ({SCHEMAS})");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI must have OVN");
    }
    there
}

/// Runs `ovenbird render`, which must have nothing to complain about.
pub fn render(file: &Path, output: &str, settings: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ovenbird"));
    let out = command.args(["render", "--output", output, "--filename"]).arg(file).args(settings).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A process that ends with the test.
pub struct Server(Child);

impl Server {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Server {
        Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an empty database, `nb` or `sb`, on `DIR/NAME.sock`; returns once it answers.
pub fn database(dir: &Path, name: &str) -> Server {
    let file = |suffix: &str| dir.join(format!("{name}.{suffix}"));
    let schema = format!("{SCHEMAS}/ovn-{name}.ovsschema");
    assert!(Command::new("ovsdb-tool").arg("create").arg(file("db")).arg(schema).status().unwrap().success());
    let remote = format!("--remote=punix:{}", file("sock").display());
    let control = format!("--unixctl={}", file("ctl").display());
    let server = Server::spawn(Command::new("ovsdb-server").args([&remote, &control]).arg(file("db")));
    let full_name = if name == "nb" { "OVN_Northbound" } else { "OVN_Southbound" };
    let wait = ["--timeout=20", "wait", &format!("unix:{}", file("sock").display()), full_name, "connected"];
    assert!(Command::new("ovsdb-client").args(wait).status().unwrap().success(), "the server listens");
    server
}
