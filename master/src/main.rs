//! `ovenbird-master`: reads the configuration and runs the library.

use clap::Parser;
use ovenbird_daemon::process;
use ovenbird_master::config::Args;

fn main() -> anyhow::Result<()> {
    let config = Args::parse().resolve()?;
    process::run(&config.loglevel.clone(), |stop| async { Ok(ovenbird_master::run(config, stop).await?) })
}
