//! A company's side of the link: a store with the state, and gateways that share it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::port;
use crate::programs::{GatewayProgram, succeed};
use crate::scratch::Scratch;
use crate::tidegate::tidegate;
use crate::versitygw::Versitygw;
use crate::wan::Namespace;

const BUCKET: &str = "state";

/// Replicas over one bucket. The gateways end before the store.
#[derive(Debug)]
pub struct Site {
    pub gateways: Vec<GatewayProgram>,
    pub home: Scratch,
    /// Keys and credentials that all replicas have.
    _common: Scratch,
    server: Versitygw,
}

impl Site {
    /// `fill` puts the data in place; `more` are lines of configuration that all gateways have.
    pub fn start(
        namespace: Option<&Namespace>,
        replicas: usize,
        more: &str,
        fill: impl FnOnce(&Scratch) -> Result<()>,
    ) -> Result<Self> {
        let words = namespace.map_or_else(Vec::new, Namespace::words);
        let address = namespace.map_or("127.0.0.1", Namespace::address);
        let server = Versitygw::start_in(&words)?;
        let store = server.client()?;
        match namespace {
            Some(namespace) => namespace.within(|| store.create_bucket(BUCKET))?,
            None => store.create_bucket(BUCKET)?,
        }
        let (home, common) = (Scratch::new()?, Scratch::new()?);
        fill(&home)?;
        let ports = (0..replicas).map(|_| port::free()).collect::<Result<Vec<_>>>()?;
        let urls: Vec<_> = ports.iter().map(|port| format!("https://{address}:{port}")).collect();
        let lines = format!(
            "{more}gateways = {urls:?}\nsecrets = \"{}\"\n[state_bucket]\n\
             url = \"s3://{BUCKET}/site\"\nendpoint = \"{}\"\ncredentials_file = \"{}\"\n",
            common.join("secrets").display(),
            store.endpoint(),
            store.credentials_file(&common)?.display()
        );
        let allow = home.path().display().to_string();
        let gateways = ports
            .into_iter()
            .map(|port| GatewayProgram::start_on(namespace, port, &allow, &lines))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { gateways, home, _common: common, server })
    }

    /// Asks one replica for a lease on all of it.
    pub fn lease(&self, replica: usize, name: &str) -> Result<PathBuf> {
        self.gateways[replica].lease(name, ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// Where the state lies, as files.
    pub fn state(&self) -> PathBuf {
        self.server.bucket(BUCKET).join("site")
    }

    /// The ledger's entries, after it was verified.
    pub fn ledger(&self) -> Result<Vec<Value>> {
        let state = self.state();
        let folder = state.as_os_str();
        succeed(tidegate(["audit".as_ref(), "verify".as_ref(), "--ledger".as_ref(), folder])?)?;
        let words = ["--json", "audit", "list", "--ledger"].map(AsRef::as_ref);
        let listed = succeed(tidegate(words.into_iter().chain([folder]))?)?;
        let parse = |line: &str| serde_json::from_str(line).context("an entry is not JSON");
        listed.lines().map(parse).collect()
    }
}

/// The entries of a kind and a lease.
pub fn entries_of<'a>(entries: &'a [Value], kind: &str, lease: &str) -> Vec<&'a Value> {
    let of = |entry: &&Value| {
        let event = &entry["event"];
        event["type"] == kind && event["lease"] == lease
    };
    entries.iter().filter(of).collect()
}
