//! A company's side of the link: a store with the state, and gateways that share it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::between::{Between, Look};
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
    common: Scratch,
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
        Self::start_behind(namespace, replicas, more, None, fill)
    }

    /// The same on loopback, where `look` sees all that the first replica asks of the store.
    pub fn start_watched(
        replicas: usize,
        more: &str,
        look: Look,
        fill: impl FnOnce(&Scratch) -> Result<()>,
    ) -> Result<Self> {
        Self::start_behind(None, replicas, more, Some(look), fill)
    }

    fn start_behind(
        namespace: Option<&Namespace>,
        replicas: usize,
        more: &str,
        look: Option<Look>,
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
        let credentials = store.credentials_file(&common)?;
        let lines = |endpoint: &str| {
            format!(
                "{more}gateways = {urls:?}\nsecrets = \"{}\"\n[state_bucket]\n\
                 url = \"s3://{BUCKET}/site\"\nendpoint = \"{endpoint}\"\ncredentials_file = \"{}\"\n",
                common.join("secrets").display(),
                credentials.display()
            )
        };
        let mut endpoints = vec![store.endpoint().to_owned(); replicas];
        if let (Some(look), Some(first)) = (look, endpoints.first_mut()) {
            *first = format!("http://127.0.0.1:{}", Between::plain(server.port(), look)?.port());
        }
        let allow = home.path().display().to_string();
        let gateways = ports
            .into_iter()
            .zip(&endpoints)
            .map(|(port, endpoint)| {
                GatewayProgram::start_on(namespace, port, &allow, &lines(endpoint))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { gateways, home, common, server })
    }

    /// The authority that all replicas have.
    pub fn authority(&self) -> PathBuf {
        self.common.join("secrets/ca/authority.pem")
    }

    /// Asks one replica for a lease on all of it.
    pub fn lease(&self, replica: usize, name: &str) -> Result<PathBuf> {
        self.gateways[replica].lease(name, ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// Where the state lies, as files.
    pub fn state(&self) -> PathBuf {
        self.server.bucket(BUCKET).join("site")
    }

    /// Whether nothing is left of a lease where keys and open leases lie.
    pub fn holds_no_key_of(&self, lease: &str) -> bool {
        let names = ["wrapped", "open"].map(|folder| fs::read_dir(self.state().join(folder)));
        let mut left = names.into_iter().flatten().flatten().flatten();
        !left.any(|file| file.file_name().to_string_lossy().contains(lease))
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
