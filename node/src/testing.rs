//! A real ovsdb-server with the schema of Open_vSwitch, in a folder of its own, for tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ovsdb::Endpoint;

/// A server; it ends with this value.
pub struct Ovsdb {
    child: Child,
    dir: tempfile::TempDir,
}

impl Ovsdb {
    /// Starts one whose Open_vSwitch row holds these external_ids. `None` (said loudly) where OVS is not installed.
    pub fn start(external_ids: &str) -> Option<Ovsdb> {
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        if !Path::new(schema).exists() {
            assert!(std::env::var_os("CI").is_none(), "no Open vSwitch in CI");
            eprintln!("SKIP: Open vSwitch is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("conf.db");
        assert!(Command::new("ovsdb-tool").arg("create").arg(&db).arg(schema).status().unwrap().success());
        let mut server = Ovsdb { child: Ovsdb::spawn(dir.path()), dir };
        server.await_socket();
        server.vsctl("--no-wait init");
        if !external_ids.is_empty() {
            server.vsctl(&format!("--no-wait set Open_vSwitch . {external_ids}"));
        }
        Some(server)
    }

    fn spawn(dir: &Path) -> Child {
        Command::new("ovsdb-server")
            .arg(dir.join("conf.db"))
            .arg(format!("--remote=punix:{}", dir.join("db.sock").display()))
            .arg(format!("--unixctl={}", dir.join("ctl").display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits until the server listens.
    fn await_socket(&mut self) {
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "ovsdb-server has ended");
            std::thread::yield_now();
        }
    }

    /// Kills the server and starts it again on the same database.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
        self.child = Ovsdb::spawn(self.dir.path());
        self.await_socket();
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("unix:{}", self.socket().display())).unwrap()
    }

    /// Runs ovs-vsctl and returns what it prints, trimmed.
    pub fn vsctl(&self, args: &str) -> String {
        let output = Command::new("ovs-vsctl")
            .arg(format!("--db=unix:{}", self.socket().display()))
            .args(args.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "ovs-vsctl {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Ovsdb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
