//! The gateway's configuration: TOML with no unknown keys, checked before anything is opened.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use serde::Deserialize;
use tidegate_kit::telemetry;
use tidegate_kit::tls::Endpoint;

mod admit;
pub mod allow;
mod inspect;
mod limits;
mod results;

pub use admit::Inadmissible;
pub use allow::{Allowed, SourcesConfig};
pub use limits::Limits;
pub use results::ResultsConfig;

use crate::nodes::NodePolicy;
use crate::source::SourceSpec;
use crate::state::StateBucket;

/// Certificates of workers live this many seconds at most (design: ≤ 15 minutes).
pub(crate) const CERTIFICATE_S: u32 = 15 * 60;
/// Seconds between heartbeats: a gateway notices a lost worker within a minute.
const HEARTBEAT_S: u32 = 10;
/// Seconds a worker may serve without a heartbeat that was answered.
const GRACE_S: u32 = 60;
/// Graces after which a silent worker is taken for gone: a link that is away for some minutes costs a
/// pause and not the lease, and the lease's key lives here for so much longer than anybody's use of it.
const SILENCE_GRACES: u32 = 5;
/// Seconds a worker may take to wipe: 8 TB of cache, overwritten and read back at 1 GB/s, take 4.5 hours.
const WIPE_S: u32 = 6 * 3600;
/// A week: a closed lease's backups die soon after it.
const KEY_EPOCH_S: u64 = 7 * 24 * 3600;

/// Everything a gateway needs to start. Fields are as written in the TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address of the workers' listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names or addresses under which workers reach it, for its certificate and the join files.
    #[serde(default)]
    pub names: Vec<String>,
    /// URLs of all replicas, for the join files; its own when absent.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Directory of this gateway's own, made with mode 0700: its lock, and all state and secrets that
    /// are not said to lie elsewhere.
    pub state: PathBuf,
    /// A bucket for the state, shared by any number of replicas.
    #[serde(default)]
    pub state_bucket: Option<StateBucket>,
    /// Directory of the keys that replicas must have in common; `state` when absent.
    #[serde(default)]
    pub secrets: Option<PathBuf>,
    /// A second place for the newest checkpoint, best on another disk.
    #[serde(default)]
    pub checkpoint_copy: Option<PathBuf>,
    /// Unix socket of the admin interface; none when absent.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// Address for metrics and health, over plain HTTP: loopback, or a network of the operators' own.
    /// None when absent.
    #[serde(default)]
    pub ops_listen: Option<SocketAddr>,
    #[serde(default)]
    pub log: LogConfig,
    pub sources: SourcesConfig,
    /// Where jobs may bring results home to.
    #[serde(default)]
    pub results: ResultsConfig,
    #[serde(default)]
    pub limits: Limits,
    /// What a worker's node may be like.
    #[serde(default)]
    pub nodes: NodePolicy,
    /// Seconds between heartbeats.
    #[serde(default = "heartbeat_s")]
    pub heartbeat_s: u32,
    /// Seconds of silence after which a worker destroys its keys.
    #[serde(default = "grace_s")]
    pub grace_s: u32,
    /// Seconds of silence after which a worker is taken for gone and its lease is withdrawn; five
    /// graces when absent, one for an embedded gateway, whose worker has no link to lose.
    #[serde(default)]
    pub silence_s: Option<u32>,
    /// Seconds for which a worker's certificate is good; it is renewed after half of that.
    #[serde(default = "certificate_s")]
    pub certificate_s: u32,
    /// Seconds after the destruction of a lease's key within which its workers are to state their wipes.
    #[serde(default = "wipe_s")]
    pub wipe_s: u32,
    /// Sealed bytes a second over all workers; unlimited when absent.
    #[serde(default)]
    pub rate_limit: Option<u64>,
    /// Seconds for which one key-encryption key wraps new lease keys.
    #[serde(default = "key_epoch_s")]
    pub key_epoch_s: u64,
    /// Origin of a ledger that is new; a random one when absent. An existing ledger keeps its own.
    #[serde(default)]
    pub origin: Option<String>,
    /// Lives and dies with the program that started it: its leases are withdrawn when the process is gone.
    #[serde(skip)]
    pub embedded: bool,
}

/// How log lines look, unless the command line says.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    pub format: telemetry::Format,
}

const fn heartbeat_s() -> u32 {
    HEARTBEAT_S
}

const fn grace_s() -> u32 {
    GRACE_S
}

const fn wipe_s() -> u32 {
    WIPE_S
}

const fn key_epoch_s() -> u64 {
    KEY_EPOCH_S
}

const fn certificate_s() -> u32 {
    CERTIFICATE_S
}

/// The configuration cannot be used; says which key and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("cannot read the configuration {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {path} is not valid: {source}")]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("configuration key `{key}`: {why}")]
    Value { key: &'static str, why: String },
}

fn value(key: &'static str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, why: why.into() }
}

impl GatewayConfig {
    /// A gateway inside another program: on loopback, a free port, this one source (or prefix) allowed.
    pub fn embedded(state: PathBuf, source: impl Into<Allowed>) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            names: Vec::new(),
            gateways: Vec::new(),
            state,
            state_bucket: None,
            secrets: None,
            checkpoint_copy: None,
            admin_socket: None,
            ops_listen: None,
            log: LogConfig::default(),
            sources: SourcesConfig { allow: vec![source.into()] },
            results: ResultsConfig::default(),
            // It makes a token for one rank only.
            limits: Limits { ranks: u16::MAX, ..Limits::default() },
            nodes: NodePolicy::OWN_MACHINE,
            heartbeat_s: HEARTBEAT_S,
            grace_s: GRACE_S,
            silence_s: None,
            certificate_s: CERTIFICATE_S,
            wipe_s: WIPE_S,
            rate_limit: None,
            key_epoch_s: KEY_EPOCH_S,
            origin: None,
            embedded: true,
        }
    }

    /// Allows this one place for results, reached as it is.
    pub fn allow_results(&mut self, home: &SourceSpec) {
        self.results.allow.push(home.clone().into());
    }

    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that cannot work together.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, path) in [
            ("state", Some(&self.state)),
            ("secrets", self.secrets.as_ref()),
            ("checkpoint_copy", self.checkpoint_copy.as_ref()),
            ("admin_socket", self.admin_socket.as_ref()),
        ] {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(value(key, "must be an absolute path"));
            }
        }
        if self.ops_listen.is_some_and(|ops| ops.port() != 0 && ops == self.listen) {
            return Err(value("ops_listen", "must be another address than `listen`"));
        }
        // They go into join files as they are.
        if let Some(url) = self.gateways.iter().find(|url| Endpoint::parse(url).is_none()) {
            return Err(value("gateways", format!("`{url}` is no https://host:port")));
        }
        if let Some(bucket) = &self.state_bucket {
            bucket.place().map_err(|why| value("state_bucket.url", why.to_string()))?;
        }
        if self.listen.ip().is_unspecified() && self.names.is_empty() {
            return Err(value(
                "names",
                "needs the name or address that workers use when `listen` is an unspecified address",
            ));
        }
        if let Some(name) = self.names.iter().find(|name| !is_host(name)) {
            return Err(value("names", format!("`{name}` is neither a host name nor an address")));
        }
        self.sources.check().map_err(|why| value("sources.allow", why))?;
        self.results.check().map_err(|(key, why)| value(key, why))?;
        if self.heartbeat_s == 0 {
            return Err(value("heartbeat_s", "must be at least 1"));
        }
        if self.heartbeat_s.saturating_mul(2) >= self.grace_s {
            return Err(value("grace_s", "must be more than twice `heartbeat_s`"));
        }
        if self.certificate_s > CERTIFICATE_S {
            return Err(value("certificate_s", format!("must be at most {CERTIFICATE_S}")));
        }
        if self.grace_s >= self.certificate_s {
            return Err(value("grace_s", "must be less than `certificate_s`"));
        }
        if self.silence_s() < self.grace_s {
            return Err(value("silence_s", "must be at least `grace_s`"));
        }
        if self.wipe_s < self.grace_s {
            return Err(value("wipe_s", "must be at least `grace_s`"));
        }
        if self.rate_limit == Some(0) {
            return Err(value("rate_limit", "must be more than 0; leave it out for no limit"));
        }
        if self.key_epoch_s == 0 {
            return Err(value("key_epoch_s", "must be at least 1"));
        }
        let bad = |name: &String| {
            name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+')
        };
        if self.origin.as_ref().is_some_and(bad) {
            return Err(value("origin", "must be a name without spaces and `+`"));
        }
        self.limits.check().map_err(|(key, why)| value(key, why))
    }

    /// Seconds of silence after which a worker is taken for gone.
    pub fn silence_s(&self) -> u32 {
        let graces = if self.embedded { 1 } else { SILENCE_GRACES };
        self.silence_s.unwrap_or_else(|| self.grace_s.saturating_mul(graces))
    }

    /// Where the keys lie that replicas have in common.
    pub(crate) fn secrets(&self) -> &Path {
        self.secrets.as_deref().unwrap_or(&self.state)
    }

    /// Names for the server certificate: those configured, or the address listened on.
    pub fn host_names(&self) -> Vec<String> {
        if self.names.is_empty() { vec![self.listen.ip().to_string()] } else { self.names.clone() }
    }
}

/// A DNS name or an IP address, as certificates and workers know them.
fn is_host(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GatewayConfig, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        GatewayConfig::load(file.path()).map_err(|error| error.to_string())
    }

    const GOOD: &str = "listen = \"127.0.0.1:0\"\nstate = \"/var/lib/tidegate\"\n";

    #[test]
    fn the_smallest_configuration_is_taken() {
        let config = parse(&format!("{GOOD}[sources]\nallow = [\"/data\"]\n")).unwrap();
        assert_eq!(config.host_names(), ["127.0.0.1"]);
        assert_eq!((config.heartbeat_s, config.grace_s), (HEARTBEAT_S, GRACE_S));
        assert_eq!(config.limits.window_blocks(), 4096);
    }

    #[test]
    fn a_silence_is_five_graces_unless_it_is_said() {
        let silence = |lines: &str| {
            let text = format!("{GOOD}{lines}\n[sources]\nallow = [\"/data\"]\n");
            parse(&text).unwrap().silence_s()
        };
        assert_eq!(silence(""), 5 * GRACE_S);
        assert_eq!(silence("grace_s = 30"), 150);
        assert_eq!(silence("grace_s = 30\nsilence_s = 30"), 30);
        assert_eq!(silence("silence_s = 100000"), 100_000);
        assert_eq!(GatewayConfig::embedded("/s".into(), "/d").silence_s(), GRACE_S);
    }

    /// The operator's guide shows a file that is taken, and so with what several gateways need besides.
    #[test]
    fn the_file_in_the_guide_is_taken() {
        let guide = include_str!("../../docs/operating.md");
        let shown = |from: &str, to: &str| -> String {
            let (_, rest) = guide.split_once(from).unwrap();
            let (block, _) = rest.split_once(to).unwrap();
            block.lines().map(|line| format!("{}\n", line.trim_start())).collect()
        };
        let one = shown("# gateway.toml\n", "\nThen:");
        let config = parse(&one).unwrap();
        assert_eq!((config.heartbeat_s, config.grace_s), (HEARTBEAT_S, GRACE_S));
        assert_eq!(
            config.silence_s,
            Some(SILENCE_GRACES * GRACE_S),
            "what is shown is the default"
        );
        assert_eq!(config.wipe_s, WIPE_S);
        assert_eq!(config.limits.window, Limits::default().window);
        assert_eq!(config.limits.results_bytes, Limits::default().results_bytes);
        assert_eq!(config.limits.results_files, Limits::default().results_files);
        assert_eq!(config.results.drain_s, ResultsConfig::default().drain_s);
        assert_eq!(config.results.allow.len(), 2);
        let more = shown("directory of its own:\n", "\nAny replica");
        let (lines, table) = more.split_once("[state_bucket]").unwrap();
        let several = parse(&format!("{lines}{one}[state_bucket]{table}")).unwrap();
        assert_eq!(several.gateways.len(), 2);
        assert!(several.state_bucket.is_some());
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        for (text, word) in [
            (format!("{GOOD}stat = 1\n[sources]\nallow = [\"/data\"]\n"), "stat"),
            (format!("{GOOD}[sources]\n"), "allow"),
            (format!("{GOOD}ops_listen = \"here\"\n[sources]\nallow = [\"/d\"]\n"), "ops_listen"),
            (
                "listen = \"127.0.0.1:1\"\nops_listen = \"127.0.0.1:1\"\nstate = \"/s\"\n\
                 [sources]\nallow = [\"/d\"]\n"
                    .to_owned(),
                "ops_listen",
            ),
            (format!("{GOOD}[log]\nformat = \"xml\"\n[sources]\nallow = [\"/d\"]\n"), "xml"),
            (format!("{GOOD}[sources]\nallow = [\"data\"]\n"), "sources.allow"),
            (format!("{GOOD}grace_s = 20\n[sources]\nallow = [\"/data\"]\n"), "grace_s"),
            (format!("{GOOD}grace_s = 900\n[sources]\nallow = [\"/data\"]\n"), "certificate_s"),
            (format!("{GOOD}certificate_s = 60\n[sources]\nallow = [\"/d\"]\n"), "grace_s"),
            (format!("{GOOD}silence_s = 59\n[sources]\nallow = [\"/d\"]\n"), "silence_s"),
            (format!("{GOOD}certificate_s = 901\n[sources]\nallow = [\"/d\"]\n"), "certificate_s"),
            (format!("{GOOD}wipe_s = 59\n[sources]\nallow = [\"/data\"]\n"), "wipe_s"),
            (format!("{GOOD}rate_limit = 0\n[sources]\nallow = [\"/data\"]\n"), "rate_limit"),
            (format!("{GOOD}secrets = \"keys\"\n[sources]\nallow = [\"/d\"]\n"), "secrets"),
            (
                format!("{GOOD}checkpoint_copy = \"copy\"\n[sources]\nallow = [\"/d\"]\n"),
                "checkpoint_copy",
            ),
            (format!("{GOOD}admin_socket = \"s\"\n[sources]\nallow = [\"/d\"]\n"), "admin_socket"),
            (
                format!("{GOOD}gateways = [\"https://gw:7443/x\"]\n[sources]\nallow = [\"/d\"]\n"),
                "gateways",
            ),
            (
                format!("{GOOD}gateways = [\"https://u@gw:7443\"]\n[sources]\nallow = [\"/d\"]\n"),
                "gateways",
            ),
            (format!("{GOOD}names = [\"a b\"]\n[sources]\nallow = [\"/data\"]\n"), "names"),
            (format!("{GOOD}names = [\"gw-\"]\n[sources]\nallow = [\"/data\"]\n"), "names"),
            (format!("{GOOD}[sources]\nallow = [\"/d\"]\n[limits]\nstrangers = 0\n"), "strangers"),
            (format!("{GOOD}[sources]\nallow = [\"/d\"]\n[limits]\nranks = 0\n"), "ranks"),
            (
                format!("{GOOD}[sources]\nallow = [\"/d\"]\n[limits]\nsnapshots = 1048575\n"),
                "limits.snapshots",
            ),
            (
                format!("{GOOD}[sources]\nallow = [\"/d\"]\n[limits]\nwindow = 1000\n"),
                "limits.window",
            ),
            (format!("{GOOD}[sources]\nallow = []\n[results]\nallow = [\"r\"]\n"), "results.allow"),
            (format!("{GOOD}[sources]\nallow = []\n[results]\nrate = 0\n"), "results.rate"),
            (format!("{GOOD}[sources]\nallow = []\n[results]\ndrain_s = 0\n"), "results.drain_s"),
            (format!("{GOOD}[sources]\nallow = []\n[results]\ndrain = 1\n"), "drain"),
            (
                format!("{GOOD}[sources]\nallow = []\n[limits]\nresults_bytes = 0\n"),
                "limits.results_bytes",
            ),
            (
                format!("{GOOD}[sources]\nallow = []\n[limits]\nresults_files = 0\n"),
                "limits.results_files",
            ),
            (
                "listen = \"0.0.0.0:1\"\nstate = \"/s\"\n[sources]\nallow = [\"/d\"]\n".to_owned(),
                "names",
            ),
            (
                "listen = \"127.0.0.1:1\"\nstate = \"s\"\n[sources]\nallow = [\"/d\"]\n".to_owned(),
                "state",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(word), "{error:?} does not name {word}");
        }
    }
}
