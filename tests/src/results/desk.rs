//! A gateway that serves a small dataset and lets results go to one home.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::home::Home;
use crate::dataset;
use crate::programs::{GatewayProgram, MountProgram, lease_of, succeed};
use crate::scratch::Scratch;
use crate::tidegate::{Run, tidegate};
use crate::wan::Namespace;

/// The gateway ends before the store it writes to.
#[derive(Debug)]
pub struct Desk {
    pub gateway: GatewayProgram,
    pub data: Scratch,
    pub home: Home,
}

impl Desk {
    /// `extra` are more lines of configuration.
    pub fn start(home: Home, extra: &str) -> Result<Self> {
        Self::start_in(None, home, extra)
    }

    /// The same on loopback or at one end of a link.
    pub fn start_in(namespace: Option<&Namespace>, home: Home, extra: &str) -> Result<Self> {
        let data = Scratch::new()?;
        dataset::flat(data.path(), 3, 50_000, 1500)?;
        let extra = format!("{extra}\nresults.allow = [{}]\n", home.allowed());
        let allow = data.path().display().to_string();
        let port = crate::port::free()?;
        let gateway = GatewayProgram::start_on(namespace, port, &allow, &extra)?;
        Ok(Self { gateway, data, home })
    }

    /// A lease on the dataset whose results go to the home.
    pub fn lease(&self, name: &str, args: &[&str]) -> Result<PathBuf> {
        let (from, place) = (self.data.path().display().to_string(), self.home.place());
        let words = ["--from", &from, "--results", &place];
        self.gateway.lease(name, words.iter().chain(args))
    }

    /// A lease of that name, mounted.
    pub fn mount(&self, name: &str, lease: &[&str], args: &[&str]) -> Result<MountProgram> {
        MountProgram::with_results(&self.lease(name, lease)?, args)
    }

    /// A run that joins a lease.
    pub fn run(&self, join: &Path) -> Result<Run> {
        Ok(Run::new()?.arg("--join").arg(join))
    }

    /// Where the ledger lies.
    pub fn ledger(&self) -> PathBuf {
        self.gateway.state()
    }

    /// The entries about results of a lease, in order; the ledger is verified first.
    pub fn entries(&self, join: &Path) -> Result<Vec<Value>> {
        entries(&self.ledger(), &lease_of(join)?)
    }
}

/// The entries about results of a lease in a ledger that verifies.
pub fn entries(ledger: &Path, lease: &str) -> Result<Vec<Value>> {
    let folder = ledger.as_os_str();
    succeed(tidegate(["audit".as_ref(), "verify".as_ref(), "--ledger".as_ref(), folder])?)?;
    let words = ["--json", "audit", "list", "--ledger"].map(AsRef::as_ref);
    let listed = succeed(tidegate(words.into_iter().chain([folder]))?)?;
    let entries = listed.lines().map(serde_json::from_str::<Value>);
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let of =
        |entry: &Value| entry["event"]["type"] == "results" && entry["event"]["lease"] == lease;
    Ok(entries.into_iter().filter(of).collect())
}
