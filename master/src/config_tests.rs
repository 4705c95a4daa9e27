//! Precedence and validation of the configuration.

use clap::CommandFactory;

use super::*;

fn settings(args: &[&str]) -> Settings {
    Args::parse_from(std::iter::once(&"ovenbird-master").chain(args)).settings
}

fn refused(args: &[&str]) -> String {
    Config::new(settings(args)).expect_err("must be refused").to_string()
}

fn subnets(config: &Config) -> String {
    config.cluster.cluster_subnets().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn the_command_line_is_well_formed() {
    Args::command().debug_assert();
}

#[test]
fn defaults_are_valid() {
    let config = Config::new(Settings::default()).expect("valid");
    assert_eq!(subnets(&config), "10.128.0.0/14/23");
    assert_eq!(config.northbound.unwrap().endpoints, [ovsdb::Endpoint::Unix("/var/run/ovn/ovnnb_db.sock".into())]);
    assert_eq!(config.lease.duration, Duration::from_secs(8));
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("master.yaml");
    std::fs::write(&file, "cluster-subnets: 10.1.0.0/16/24\naudit-interval: 7\n").expect("write");
    let args = ["ovenbird-master", "--config", file.to_str().expect("path"), "--audit-interval", "9"];
    let config = Args::parse_from(args).resolve().expect("valid");
    assert_eq!(subnets(&config), "10.1.0.0/16/24");
    assert_eq!(config.audit_interval, Duration::from_secs(9));
    assert_eq!(config.patch_concurrency, 24);
}

#[test]
fn every_setting_has_an_environment_variable() {
    for arg in Args::command().get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
        let name = format!("OVENBIRD_{}", arg.get_id().as_str().to_uppercase());
        assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(name.as_str()));
    }
}

#[test]
fn bad_networks_name_the_flag() {
    assert!(refused(&["--cluster-subnets", "10.128.0.0/14/8"]).starts_with("--cluster-subnets: "));
    assert!(refused(&["--cluster-subnets", ""]).starts_with("--cluster-subnets: "));
    assert!(refused(&["--k8s-service-cidrs", "10.96.0.0"]).starts_with("--k8s-service-cidrs: "));
    assert!(refused(&["--k8s-service-cidrs", "10.128.0.0/20"]).starts_with("--cluster-subnets 10.128.0.0/14 and "));
    assert!(refused(&["--gateway-v4-join-subnet", "fd98::/64"]).starts_with("--gateway-v4-join-subnet: "));
}

#[test]
fn ssl_needs_its_files() {
    assert!(refused(&["--nb-address", "ssl:1.2.3.4:6641"]).starts_with("--nb-client-privkey: "));
    assert!(refused(&["--nb-address", "1.2.3.4:6641"]).contains("unknown method"));
}

#[test]
fn election_times_must_nest() {
    assert!(refused(&["--ha-election-renew-deadline", "8"]).starts_with("--ha-election-renew-deadline: "));
    assert!(refused(&["--ha-election-retry-period", "5"]).starts_with("--ha-election-retry-period: "));
    assert!(refused(&["--ha-election-retry-period", "0"]).starts_with("--ha-election-retry-period: "));
}

#[test]
fn an_empty_path_turns_the_admin_socket_off() {
    assert_eq!(Config::new(settings(&["--admin-socket", ""])).expect("valid").admin_socket, None);
}

#[test]
fn gateways_follow_their_flags() {
    let args = ["--gateway-v4-masquerade-subnet", "169.254.0.0/17", "--disable-snat"];
    let config = Config::new(settings(&args)).expect("valid").cluster;
    assert_eq!(config.masquerade().hairpin(true).to_string(), "169.254.0.5");
    assert!(!config.snat());
    let config = Config::new(settings(&["--non-masquerade-cidrs", "192.168.0.0/16"])).expect("valid").cluster;
    assert_eq!((config.snat(), config.non_masquerade_cidrs().len()), (true, 1));
    let error = refused(&["--gateway-v4-masquerade-subnet", "10.96.1.0/24"]);
    assert!(error.contains("k8s-service-cidrs 10.96.0.0/16 and gateway-v4-masquerade-subnet"), "{error}");
}
