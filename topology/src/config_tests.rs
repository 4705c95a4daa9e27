//! Settings that are valid, and what is said of those that are not.

use super::*;

fn parse(cluster: &str, service: &str, join: &str) -> Result<Config, String> {
    Config::parse(cluster, service, join, DEFAULT_MTU).map_err(|e| e.to_string())
}

#[test]
fn families_follow_the_cluster_subnets() {
    for (cluster, join) in [
        ("10.128.0.0/14/23", "100.64.0.0/16"),
        ("fd01::/48/64", "fd98::/64"),
        ("fd01::/48, 10.128.0.0/14/23", "100.64.0.0/16,fd98::/64"),
    ] {
        let config = parse(cluster, "", DEFAULT_JOIN_SUBNETS).unwrap();
        let got: Vec<String> = config.join_subnets().iter().map(IpNet::to_string).collect();
        assert_eq!(got.join(","), join);
    }
    let config = parse("10.244.0.0/16,fd01::/48", "", DEFAULT_JOIN_SUBNETS).unwrap();
    let texts: Vec<String> = config.cluster_subnets().iter().map(ClusterSubnet::to_string).collect();
    assert_eq!(texts, ["10.244.0.0/16/24", "fd01::/48/64"], "host prefixes by default");
}

#[test]
fn errors_name_the_setting_and_the_remedy() {
    let join = DEFAULT_JOIN_SUBNETS;
    for (cluster, service, join, want) in [
        ("", "", join, r#"cluster-subnets: "" is not a list of subnets; write e.g. 10.128.0.0/14/23"#),
        ("10.128.0.0", "", join, r#"cluster-subnets: "10.128.0.0" is not SUBNET/HOST PREFIX; write e.g."#),
        ("10.128.0.0/14/x", "", join, r#"cluster-subnets: "10.128.0.0/14/x" is not SUBNET/HOST PREFIX"#),
        ("10.128.0.0/14/13", "", join, "cluster-subnets: 10.128.0.0/14/13: host prefix 13 is not from 14 to 29"),
        ("fd01::/48/128", "", join, "cluster-subnets: fd01::/48/128: host prefix 128 is not from 48 to 125"),
        ("10.129.0.0/14/23", "", join, "cluster-subnets: 10.129.0.0/14: has host bits; write 10.128.0.0/14"),
        ("0.0.0.0/0/8", "", join, "cluster-subnets: 0.0.0.0/0: is too large"),
        ("10.128.0.0/14", "x", join, r#"k8s-service-cidrs: "x" is not a subnet; write e.g. 10.96.0.0/16"#),
        (
            "10.0.0.0/8/24",
            "10.96.0.0/16",
            join,
            "cluster-subnets 10.0.0.0/8 and k8s-service-cidrs 10.96.0.0/16 overlap; choose one outside the other",
        ),
        ("10.128.0.0/14,10.129.0.0/16", "", join, "cluster-subnets 10.128.0.0/14 and cluster-subnets 10.129.0.0/16"),
        (
            "10.128.0.0/14",
            "",
            "10.128.0.0/16",
            "cluster-subnets 10.128.0.0/14 and gateway-v4-join-subnet (or -v6-) 10.128.0.0/16 overlap",
        ),
        ("10.128.0.0/14", "", "fd98::/64", "gateway-v4-join-subnet (or -v6-): 0 IPv4 subnets where one is needed"),
        (
            "10.128.0.0/14",
            "",
            "100.64.0.0/24",
            "gateway-v4-join-subnet (or -v6-): 100.64.0.0/24: has no room for node ids up to 5001",
        ),
    ] {
        let error = parse(cluster, service, join).unwrap_err();
        assert!(error.starts_with(want), "{error}");
    }
    for (masquerade, non_masquerade, want) in [
        (
            "10.128.4.0/24,fd69::/125",
            "",
            "cluster-subnets 10.128.0.0/14 and gateway-v4-masquerade-subnet (or -v6-) 10.128.4.0/24 overlap",
        ),
        (
            "169.254.0.0/30,fd69::/125",
            "",
            "gateway-v4-masquerade-subnet (or -v6-): 169.254.0.0/30: has no room for the masquerade addresses",
        ),
        ("169.254.0.0/17", "", "gateway-v4-masquerade-subnet (or -v6-): 0 IPv6 subnets where one is needed"),
        (DEFAULT_MASQUERADE_SUBNETS, "x", r#"non-masquerade-cidrs: "x" is not a subnet"#),
    ] {
        let (masquerade_subnets, non_masquerade_cidrs) = (masquerade, non_masquerade);
        let error = Config::new(&Settings { masquerade_subnets, non_masquerade_cidrs, ..Settings::default() });
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
    let error = Config::parse("fd01::/48", "", join, 1279).unwrap_err().to_string();
    assert_eq!(error, "mtu: 1279 is below 1280, the least that IPv6 allows");
}
