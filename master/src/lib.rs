//! The central daemon: Kubernetes objects in, OVN Northbound rows out.
//!
//! ```text
//! Kubernetes API --list, watch--> [pipeline] --transactions--> OVN_Northbound
//!        ^---------annotations---------+
//! ```
//!
//! The binary is [`config::Args`] and [`run`]. Must not: translate (that is `topology`), compare or order writes (that is
//! `reconcile`), or speak OVSDB (that is `ovsdb`).

pub mod admin;
pub mod allocate;
pub mod annotate;
pub mod condition;
pub mod config;
pub mod event;
pub mod lease;
pub mod lists;
pub mod metrics;
pub mod monitor;
pub mod northbound;
pub mod pace;
pub mod pipeline;
pub mod readiness;
pub mod report;
pub mod run;
pub mod status;

use ovenbird_watch::{self as watch, object};

pub use config::Config;
pub use run::{RunError, run, run_with};
