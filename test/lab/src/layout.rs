//! The lab on disk: which path means what, and the file that says what the lab is.
//!
//! Everything is below LAB_DIR, so `down` is: end what is recorded, remove the namespaces, remove the folder.
//! In: options. Out: paths, namespaces, `lab.json`. It must not start anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ovsdb::TlsFiles;
use serde::{Deserialize, Serialize};

use crate::databases::{Database, Member};
use crate::options::{Api, Mode, Options};
use crate::pki::Pki;
use crate::place::{Place, RootTree};
use crate::process::{Processes, write_atomic};
use crate::{nested, underlay};

/// A lab's names and paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// What was asked for.
    pub options: Options,
    /// Port of the API server on 127.0.0.1 in every namespace of the lab and in the root namespace.
    pub api_port: u16,
    /// Folder of the programs.
    pub bin_dir: PathBuf,
    prefix: String,
}

impl Layout {
    /// The layout of a lab that is about to be built.
    ///
    /// # Errors
    /// When the options are wrong.
    pub fn new(options: Options, api_port: u16, bin_dir: PathBuf) -> Result<Self> {
        options.validate()?;
        let prefix = options.prefix()?.to_owned();
        Ok(Self { options, api_port, bin_dir, prefix })
    }

    /// Reads what `save` wrote.
    ///
    /// # Errors
    /// When no lab lives in this folder.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("lab.json");
        let bytes =
            fs::read(&path).with_context(|| format!("no lab in {}: `ovenbird-lab up` makes one", dir.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// Writes `lab.json`: before anything is made, so that `down` knows what there may be.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self) -> Result<()> {
        fs::create_dir_all(self.dir()).with_context(|| format!("creating {}", self.dir().display()))?;
        write_atomic(&self.dir().join("lab.json"), &serde_json::to_vec_pretty(self)?)
    }

    /// The lab's folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The folder of a node, or of `central`.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The records of processes.
    pub fn processes(&self) -> Processes {
        Processes::new(self.dir())
    }

    /// The full name of a namespace, e.g. of `node1`, `central` or `fabric`.
    pub fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// All namespaces but the pods' sandboxes.
    pub fn namespaces(&self) -> Vec<String> {
        let own = ["fabric", "central", "outside"].map(str::to_owned);
        let underlay = self.options.has_vlans().then(|| underlay::PLACE.to_owned());
        let hypervisors = self.options.node_names().into_iter().map(|node| nested::hypervisor(&node));
        let hypervisors = hypervisors.filter(|_| self.options.mode == Mode::Nested);
        let all = own.into_iter().chain(underlay).chain(hypervisors).chain(self.options.node_names());
        all.map(|name| self.netns(&name)).collect()
    }

    /// Where the machine's own programs run for a node, or for `central`.
    pub fn place(&self, name: &str) -> Place {
        Place::netns(self.netns(name))
    }

    /// Where the programs of a node, or of `central`, run that belong to Kubernetes: all namespaces of a real node.
    pub fn inside(&self, name: &str) -> Place {
        if self.options.api != Api::Real || !self.options.node_names().iter().any(|node| node == name) {
            return self.place(name);
        }
        Place::node(self.processes().record_path(&format!("{name}/init")))
    }

    /// What the lab's cgroups are called.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where OVS and OVN daemons run: as `place`, inside the tree of another release if one was asked for.
    pub fn ovn_place(&self, name: &str) -> Place {
        let root = self.options.ovn.clone().map(|dir| RootTree { dir, shared: vec![self.dir().to_owned()] });
        Place { root, ..self.place(name) }
    }

    /// Environment that points OVS and OVN programs at a node's, or central's, daemons; and finds our own programs.
    pub fn env(&self, name: &str) -> BTreeMap<String, String> {
        let home = self.home(name).display().to_string();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        BTreeMap::from([
            ("OVS_RUNDIR".into(), home.clone()),
            ("OVN_RUNDIR".into(), home),
            ("LAB_DIR".into(), self.dir().display().to_string()),
            ("KUBECONFIG".into(), self.kubeconfig().display().to_string()),
            ("OVN_NB_DB".into(), self.nb()),
            ("OVN_SB_DB".into(), self.sb()),
            ("PATH".into(), format!("{}:{path}", self.bin_dir.display())),
        ])
    }

    /// The Northbound servers, separated by commas, reachable from any namespace of this machine.
    pub fn nb(&self) -> String {
        self.unix(Database::Northbound)
    }

    /// The Southbound servers, separated by commas, reachable from any namespace of this machine.
    pub fn sb(&self) -> String {
        self.unix(Database::Southbound)
    }

    fn unix(&self, database: Database) -> String {
        let members = self.members(database);
        members.into_iter().map(|member| member.unix(self)).collect::<Vec<_>>().join(",")
    }

    /// The servers of a database.
    pub fn members(&self, database: Database) -> Vec<Member> {
        Member::all(self.options.databases, database)
    }

    /// The servers of a database as other hosts reach them: over the fabric, separated by commas.
    ///
    /// # Errors
    /// When the central namespace has no address.
    pub fn over_fabric(&self, database: Database) -> Result<String> {
        let members = self.members(database).into_iter();
        Ok(members.map(|member| member.over_fabric(self)).collect::<Result<Vec<_>>>()?.join(","))
    }

    /// The authority of a lab that speaks TLS.
    pub fn pki(&self) -> Pki {
        Pki::at(self.dir().join("pki"))
    }

    /// Key and certificates of a node, or of `central`, in a lab that speaks TLS.
    pub fn tls(&self, name: &str) -> Option<TlsFiles> {
        self.options.tls.then(|| self.pki().files(name))
    }

    /// A node's Open_vSwitch server.
    pub fn ovs(&self, node: &str) -> String {
        format!("unix:{}", self.home(node).join("db.sock").display())
    }

    /// Credentials and address of the API server: good in the root namespace and in every one of the lab.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }
}
