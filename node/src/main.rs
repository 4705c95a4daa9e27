//! `ovenbird-node`: reads the configuration and runs the daemon.

use clap::Parser;
use ovenbird_daemon::process;
use ovenbird_node::config::Args;
use ovenbird_node::daemon;

fn main() -> anyhow::Result<()> {
    let config = Args::parse().resolve()?;
    process::run(&config.loglevel.clone(), |stop| daemon::run(config, stop))
}
