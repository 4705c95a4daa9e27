//! kubectl, unmodified: what a person types in the lab.

use std::process::Stdio;

use ovenbird_apiserver::ApiServer;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::start;

/// kubectl with a configuration and a cache of its own.
struct Kubectl {
    directory: TempDir,
    _server: ApiServer,
}

impl Kubectl {
    /// None when kubectl is not installed.
    async fn start() -> Option<Self> {
        if Command::new("kubectl").args(["version", "--client"]).output().await.is_err() {
            println!("SKIP: kubectl is not installed");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "kubectl must be installed in CI");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (server, _) = start().await;
        std::fs::write(directory.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        Some(Self { directory, _server: server })
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.directory.path().join("kubeconfig"));
        command.arg("--cache-dir").arg(self.directory.path()).args(arguments.split_whitespace());
        command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs kubectl to its end; the output, or the error output of a failure.
    async fn run(&self, arguments: &str, input: &str) -> Result<String, String> {
        let mut child = self.command(arguments).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    async fn ok(&self, arguments: &str, input: &str) -> String {
        self.run(arguments, input).await.unwrap_or_else(|error| panic!("kubectl {arguments}: {error}"))
    }
}

/// Created and applied with `--validate=false`: kubectl before 1.25 validates by /openapi/v2, which is not served.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: n1
  containers: [{name: c, image: busybox}]
"#;

#[tokio::test]
async fn kubectl_works_on_objects() {
    let Some(kubectl) = Kubectl::start().await else { return };
    assert_eq!(kubectl.ok("create --validate=false -f -", POD).await, "pod/web created\n");
    assert!(kubectl.run("create --validate=false -f -", POD).await.unwrap_err().contains("AlreadyExists"));
    let table = kubectl.ok("get pods -o wide", "").await;
    let words = |line: usize| table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(0)[..5], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!((words(1)[..4].to_vec(), words(1)[6]), (vec!["web", "0/1", "Pending", "0"], "n1"));
    assert_eq!(kubectl.ok("get pod web -o jsonpath={.spec.containers[0].image}", "").await, "busybox");
    assert!(kubectl.ok("get pods -o json", "").await.contains("\"kind\": \"List\""));
    assert_eq!(
        kubectl.ok("apply --validate=false -f -", &POD.replace("busybox", "other")).await,
        "pod/web configured\n"
    );
    assert_eq!(
        kubectl.ok("apply --validate=false -f -", &POD.replace("busybox", "other")).await,
        "pod/web unchanged\n"
    );
    assert_eq!(
        kubectl.ok("apply --validate=false --server-side --force-conflicts -f -", POD).await,
        "pod/web serverside-applied\n"
    );
    for (verb, arguments) in [("annotated", "annotate pod web k=v"), ("labeled", "label pod web l=m")] {
        assert_eq!(kubectl.ok(arguments, "").await, format!("pod/web {verb}\n"));
    }
    for kind in ["strategic", "merge"] {
        let patch = format!("patch pod web --type={kind} -p {{\"metadata\":{{\"labels\":{{\"by\":\"{kind}\"}}}}}}");
        kubectl.ok(&patch, "").await;
        assert_eq!(kubectl.ok("get pods -l app=web -o jsonpath={.items[0].metadata.labels.by}", "").await, kind);
    }
    kubectl.ok("patch pod web --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/labels/by\"}]", "").await;
    assert!(kubectl.ok("describe pod web", "").await.contains("Node:"));
    kubectl.ok("delete pod web --force --grace-period=0", "").await;
    assert!(kubectl.run("get pod web", "").await.unwrap_err().contains("NotFound"));
}

#[tokio::test]
async fn kubectl_sees_what_is_served() {
    let Some(kubectl) = Kubectl::start().await else { return };
    assert!(kubectl.ok("version", "").await.contains("ovenbird-stand-in"));
    let resources = kubectl.ok("api-resources -o name", "").await;
    for name in ["pods", "leases.coordination.k8s.io", "networkpolicies.networking.k8s.io"] {
        assert!(resources.lines().any(|line| line == name), "{name} is missing in {resources}");
    }
    let names = kubectl.ok("get namespaces -o name", "").await;
    assert!(names.starts_with("namespace/default\n"), "{names}");
}

/// These verbs of kubectl send protobuf.
#[tokio::test]
async fn kubectl_creates_without_a_file() {
    let Some(kubectl) = Kubectl::start().await else { return };
    assert_eq!(kubectl.ok("create namespace team", "").await, "namespace/team created\n");
    kubectl.ok("create configmap c -n team --from-literal=k=v", "").await;
    assert_eq!(kubectl.ok("get configmap c -n team -o jsonpath={.data.k}", "").await, "v");
    kubectl.ok("create secret generic s -n team --from-literal=k=v", "").await;
    assert_eq!(kubectl.ok("get secret s -n team -o jsonpath={.data.k}", "").await, "dg==");
    kubectl.ok("create serviceaccount a -n team", "").await;
    // Debian 12's kubectl (1.20) sends JSON here, newer ones protobuf.
    match kubectl.run("create deployment d --image=x", "").await {
        Ok(created) => assert_eq!(created, "deployment.apps/d created\n"),
        Err(refusal) => assert!(refusal.contains("accepts application/json"), "{refusal}"),
    }
    assert_eq!(kubectl.ok("delete namespace team", "").await, "namespace \"team\" deleted\n");
}

#[tokio::test]
async fn kubectl_watches() {
    let Some(kubectl) = Kubectl::start().await else { return };
    kubectl.ok("create --validate=false -f -", POD).await;
    let mut child = kubectl.command("get pods --watch --no-headers -o name").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "pod/web");
    kubectl.ok("create --validate=false -f -", &POD.replace("web", "other")).await;
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "pod/other");
    child.kill().await.unwrap();
}
