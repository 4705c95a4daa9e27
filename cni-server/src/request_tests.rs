//! Requests good and bad, and the code each bad one gets.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CONF: &str = r#"{"cniVersion":"1.1.0","name":"ovenbird","type":"ovenbird-cni"}"#;

fn call(env: &[(&str, &str)], stdin: &str) -> Vec<u8> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    json!({"env": env, "stdin": stdin}).to_string().into_bytes()
}

fn env(command: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/var/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u1"),
    ]
}

fn attachment() -> Attachment {
    Attachment { container_id: "c0ffee".into(), ifname: "eth0".into() }
}

fn code_of(env: &[(&str, &str)], stdin: &str) -> u32 {
    parse_request(&call(env, stdin)).unwrap_err().error.code as u32
}

#[test]
fn add_is_read_whole() {
    let Request { version, action: Action::Add(add) } = parse_request(&call(&env("ADD"), CONF)).unwrap() else {
        panic!("not an ADD")
    };
    assert_eq!(version, Version::V1_1_0);
    assert_eq!(add.attachment, attachment());
    assert_eq!(add.netns, PathBuf::from("/var/run/netns/x"));
    assert_eq!((add.pod.namespace.as_str(), add.pod.name.as_str()), ("default", "web-0"));
    assert_eq!(add.pod.uid.as_deref(), Some("u1"));
}

#[test]
fn del_needs_neither_netns_nor_pod() {
    let env = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c0ffee"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
    let request = parse_request(&call(&env, CONF)).unwrap();
    assert_eq!(request.action, Action::Del(Del { attachment: attachment(), netns: None }));
}

#[test]
fn check_takes_the_old_and_the_new_result_layout() {
    for (version, family) in [("0.4.0", r#""version":"4","#), ("1.0.0", "")] {
        let conf = format!(
            r#"{{"cniVersion":"{version}","name":"n","prevResult":{{"cniVersion":"{version}",
            "interfaces":[{{"name":"eth0","mac":"0a:58:0a:80:00:03","sandbox":"/x"}}],
            "ips":[{{{family}"interface":0,"address":"10.128.0.3/24","gateway":"10.128.0.1"}}],
            "routes":[{{"dst":"0.0.0.0/0","gw":"10.128.0.1"}}],"dns":{{}}}}}}"#
        );
        let Action::Check(check) = parse_request(&call(&env("CHECK"), &conf)).unwrap().action else {
            panic!("not a CHECK")
        };
        assert_eq!(check.previous.ips[0].address, "10.128.0.3/24".parse().unwrap());
        assert_eq!(check.previous.interfaces[0].sandbox.as_deref(), Some("/x"));
        assert_eq!(check.previous.routes.len(), 1);
    }
}

#[test]
fn gc_takes_both_spellings_and_refuses_none() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let conf =
            format!(r#"{{"cniVersion":"1.1.0","name":"n","{key}":[{{"containerID":"c0ffee","ifname":"eth0"}}]}}"#);
        let request = parse_request(&call(&[("CNI_COMMAND", "GC")], &conf)).unwrap();
        assert_eq!(request.action, Action::Gc(vec![attachment()]));
    }
    assert_eq!(code_of(&[("CNI_COMMAND", "GC")], CONF), 7);
}

#[test]
fn codes_of_the_specification() {
    let conf = |version| format!(r#"{{"cniVersion":"{version}","name":"n"}}"#);
    assert_eq!(code_of(&env("ADD"), &conf("2.0.0")), 1);
    assert_eq!(code_of(&env("ADD"), r#"{"name":"n"}"#), 1);
    assert_eq!(code_of(&env("CHECK"), &conf("0.3.1")), 1);
    assert_eq!(code_of(&env("STATUS"), &conf("1.0.0")), 1);
    assert_eq!(code_of(&env("BOIL"), CONF), 4);
    assert_eq!(code_of(&[], CONF), 4);
    for missing in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
        let env: Vec<_> = env("ADD").into_iter().filter(|(k, _)| *k != missing).collect();
        assert_eq!(code_of(&env, CONF), 4, "{missing}");
    }
    for (key, bad) in [
        ("CNI_CONTAINERID", "../x"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_ARGS", "K8S_POD_NAME=x"),
        ("CNI_ARGS", "oops"),
    ] {
        let mut env = env("ADD");
        env.push((key, bad));
        assert_eq!(code_of(&env, CONF), 4, "{key}={bad}");
    }
    assert_eq!(code_of(&env("ADD"), ""), 6, "empty stdin");
    assert_eq!(code_of(&env("ADD"), &CONF[..20]), 6, "truncated stdin");
    assert_eq!(code_of(&env("ADD"), "[]"), 6);
    assert_eq!(code_of(&env("ADD"), r#"{"cniVersion":"1.1.0"}"#), 7, "no name");
    assert_eq!(code_of(&env("CHECK"), CONF), 7, "no prevResult");
    assert_eq!(parse_request(b"nonsense").unwrap_err().error.code, Code::Decode);
}

#[test]
fn the_error_of_an_unknown_version_lists_what_is_spoken() {
    let rejection = parse_request(&call(&env("ADD"), r#"{"cniVersion":"9","name":"n"}"#)).unwrap_err();
    assert_eq!(
        rejection.error.to_json(rejection.version),
        r#"{"cniVersion":"1.1.0","code":1,"msg":"CNI version \"9\" is not supported","details":"set cniVersion to one of 0.3.1, 0.4.0, 1.0.0, 1.1.0"}"#
    );
}

#[test]
fn an_error_is_printed_in_the_version_of_the_request() {
    let rejection =
        parse_request(&call(&[("CNI_COMMAND", "ADD")], r#"{"cniVersion":"0.4.0","name":"n"}"#)).unwrap_err();
    assert_eq!(rejection.version, Version::V0_4_0);
}

#[test]
fn version_answers_whatever_stdin_holds() {
    for stdin in ["", "{", CONF] {
        assert_eq!(parse_request(&call(&[("CNI_COMMAND", "VERSION")], stdin)).unwrap().action, Action::Version);
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_value(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_request(&bytes);
    }

    #[test]
    fn any_variables_give_a_value(command in "ADD|DEL|CHECK|GC|STATUS", value in "\\PC{0,40}", stdin in "\\PC{0,80}") {
        let keys = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
        let mut env: Vec<(&str, &str)> = keys.map(|k| (k, value.as_str())).to_vec();
        env.push(("CNI_COMMAND", &command));
        let _ = parse_request(&call(&env, &stdin));
        let _ = parse_request(&call(&env, CONF));
    }
}
