//! The form of network plugins that kubelet had before CNI (until Kubernetes 1.5): verbs as arguments, the verdict in the exit code.
//!
//! ```text
//! init -> STATUS      setup -> ADD      teardown -> DEL      status -> FIND --> {"kind":"PodNetworkStatus","ip":...}
//! ```
//!
//! The sandbox's namespace is `$CNI_NETNS`, else the one that ip-netns(8) knows by the ID. Must not: know more than the shim does.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::{DEFAULT_SOCKET, ask, request};

const USAGE: &str = "usage: ovenbird-cni init | setup|teardown|status NAMESPACE POD ID";
const CONF: &str = r#"{"cniVersion":"1.1.0","name":"ovenbird","type":"ovenbird-cni"}"#;

/// Carries out one verb.
pub fn run(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (command, pod) = match args[..] {
        ["init"] => ("STATUS", None),
        ["setup", namespace, name, id] => ("ADD", Some([namespace, name, id])),
        ["teardown", namespace, name, id] => ("DEL", Some([namespace, name, id])),
        ["status", namespace, name, id] => ("FIND", Some([namespace, name, id])),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let socket = std::env::var("OVENBIRD_CNI_SOCKET").unwrap_or_else(|_| DEFAULT_SOCKET.into());
    let problem = match ask(&socket, &request(&environment(command, pod), CONF), 11) {
        Ok((stdout, 0)) if command == "FIND" => match status(&stdout) {
            Some(status) => {
                println!("{status}");
                return ExitCode::SUCCESS;
            }
            None => "the pod has no address".into(),
        },
        Ok((_, 0)) => return ExitCode::SUCCESS,
        Ok((error, _)) => message(&error).unwrap_or(error),
        Err((_, problem)) => problem,
    };
    eprintln!("ovenbird-cni: {problem}");
    ExitCode::FAILURE
}

fn environment(command: &str, pod: Option<[&str; 3]>) -> Map<String, Value> {
    let mut env = Map::new();
    env.insert("CNI_COMMAND".into(), command.into());
    if let Some([namespace, name, id]) = pod {
        let netns = std::env::var("CNI_NETNS").unwrap_or_else(|_| format!("/var/run/netns/{id}"));
        let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={id}");
        for (key, value) in
            [("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", &netns), ("CNI_ARGS", &args)]
        {
            env.insert(key.into(), value.into());
        }
    }
    env
}

/// What kubelet read of `status`: one address.
fn status(result: &str) -> Option<Value> {
    let result: Value = serde_json::from_str(result).ok()?;
    let ip = result.get("ips")?.get(0)?.get("address")?.as_str()?.split('/').next()?.to_owned();
    Some(json!({"kind": "PodNetworkStatus", "apiVersion": "v1beta1", "ip": ip}))
}

/// The message of a CNI error.
fn message(error: &str) -> Option<String> {
    let error: Value = serde_json::from_str(error).ok()?;
    Some(error.get("msg")?.as_str()?.to_owned())
}
