//! The binary: files it writes, and SIGKILL at a moment it does not choose.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};

use crate::pod;

/// Starts the binary and returns once it serves.
fn spawn(directory: &Path, listen: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ovenbird-apiserver"));
    for (option, file) in [("--data", "data"), ("--kubeconfig", "kubeconfig"), ("--address-file", "address")] {
        command.arg(option).arg(directory.join(file));
    }
    let mut child = command.args(["--listen", listen]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("stand-in"), "{line}");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn sigkill_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let child = spawn(directory.path(), "127.0.0.1:0");
    let address = std::fs::read_to_string(directory.path().join("address")).unwrap();
    let kubeconfig = Kubeconfig::read_from(directory.path().join("kubeconfig")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let pods = Api::<Pod>::namespaced(Client::try_from(config).unwrap(), "default");
    let mut acknowledged = Vec::new();
    let mut child = Some(child);
    for n in 0.. {
        let name = format!("p{n:04}");
        if pods.create(&PostParams::default(), &pod(&name)).await.is_err() {
            break;
        }
        acknowledged.push(name);
        if n == 50 {
            // The writes go on while the signal arrives.
            let child = child.take().unwrap();
            tokio::task::spawn_blocking(|| kill(child));
        }
    }
    let child = spawn(directory.path(), &address);
    let list = pods.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = list.iter().map(ResourceExt::name_any).collect();
    let extra = names.len().saturating_sub(acknowledged.len());
    assert!(names.starts_with(&acknowledged) && extra <= 1, "{} of {}", names.len(), acknowledged.len());
    kill(child);
}
