//! Golden results of each CNI version.

use super::*;

fn attached() -> Attached {
    Attached {
        interfaces: vec![
            Interface { name: "ovc0ffee".into(), mac: "aa:bb:cc:dd:ee:ff".into(), mtu: 1400, sandbox: None },
            Interface {
                name: "eth0".into(),
                mac: "0a:58:0a:80:00:03".into(),
                mtu: 1400,
                sandbox: Some("/run/netns/x".into()),
            },
        ],
        ips: vec![
            Ip {
                address: "10.128.0.3/24".parse().unwrap(),
                gateway: Some("10.128.0.1".parse().unwrap()),
                interface: Some(1),
            },
            Ip { address: "fd00::3/64".parse().unwrap(), gateway: None, interface: Some(1) },
        ],
        routes: vec![Route { dst: "0.0.0.0/0".parse().unwrap(), gw: Some("10.128.0.1".parse().unwrap()) }],
    }
}

const V0: &str = r#""interfaces":[{"name":"ovc0ffee","mac":"aa:bb:cc:dd:ee:ff"},{"name":"eth0","mac":"0a:58:0a:80:00:03","sandbox":"/run/netns/x"}],"ips":[{"version":"4","interface":1,"address":"10.128.0.3/24","gateway":"10.128.0.1"},{"version":"6","interface":1,"address":"fd00::3/64"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.128.0.1"}],"dns":{}}"#;
const V1: &str = r#""interfaces":[{"name":"ovc0ffee","mac":"aa:bb:cc:dd:ee:ff"},{"name":"eth0","mac":"0a:58:0a:80:00:03","sandbox":"/run/netns/x"}],"ips":[{"interface":1,"address":"10.128.0.3/24","gateway":"10.128.0.1"},{"interface":1,"address":"fd00::3/64"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.128.0.1"}],"dns":{}}"#;
const V1_1: &str = r#""interfaces":[{"name":"ovc0ffee","mac":"aa:bb:cc:dd:ee:ff","mtu":1400},{"name":"eth0","mac":"0a:58:0a:80:00:03","mtu":1400,"sandbox":"/run/netns/x"}],"ips":[{"interface":1,"address":"10.128.0.3/24","gateway":"10.128.0.1"},{"interface":1,"address":"fd00::3/64"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.128.0.1"}],"dns":{}}"#;

#[test]
fn add_in_each_version() {
    for (version, body) in
        [(Version::V0_3_1, V0), (Version::V0_4_0, V0), (Version::V1_0_0, V1), (Version::V1_1_0, V1_1)]
    {
        let golden = format!(r#"{{"cniVersion":"{version}",{body}"#);
        assert_eq!(add_json(&attached(), version), golden);
    }
}

#[test]
fn version_lists_all() {
    assert_eq!(
        version_json(Version::V0_4_0),
        r#"{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}"#
    );
}
