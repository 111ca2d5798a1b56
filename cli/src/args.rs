//! The command line, as typed. Nothing here opens or checks anything; `run`, `plan` and the others do.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tidegate_fuse_cache::holder::Feature;
use tidegate_kit::telemetry::Format;

use crate::units::{Duration, RankArg, Rate, Size};

/// Stage selected data, sealed, to where the job runs; show it as a directory; leave nothing behind.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Say it as JSON, one document a line: receipt, logs and the last error on standard error;
    /// what list, show, verify, plan, status and doctor find on standard output. Remarks on the way stay
    /// lines that begin with `tidegate:`.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How log lines look: `text`, or `json`, one flat object a line. Default: the config file's, json with --json, else text.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  the command's own   of `run`, when the command ran
  1    `audit verify` found a fault; `doctor` found something missing
  2    the arguments, the selection, the mount point or the config file are wrong
  122  the command ended well, but not all of its results came home; the receipt names what is lost
  123  the command ended well, but the wipe could not be certified or its receipt not be written
  124  the lease ended, or no gateway was heard for its grace, while the data was in use; the command was ended
  125  Tidegate failed before the command could run, or had none to run; the message says what to do
  126  the command cannot be executed
  127  the command was not found
  128+N  the command was killed by signal N";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with the selected data at a path; then wipe, and print what left.
    Run(Box<RunArgs>),
    /// Print what would leave: files, bytes, blocks, minutes. Nothing moves.
    Plan(PlanArgs),
    /// Serve leases to workers, from a config file.
    Gateway(GatewayArgs),
    /// Attach to a lease and show its data at a path until a signal; then wipe.
    Mount(MountArgs),
    /// Create, list, show and revoke leases on a running gateway.
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// List, show, verify and export the ledger; works offline on a copy.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Ask a running gateway how it is.
    Status(AdminArgs),
    /// Say what this machine lacks, and what that costs.
    Doctor(DoctorArgs),
    /// The worker process. Started by `run` and `mount`, never by hand.
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Where the data lies: a directory, or s3://bucket/prefix.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    pub(crate) from: Option<String>,
    /// Take only paths that match (relative to --from; * stays in one directory, ** crosses). Repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(crate) select: Vec<String>,
    /// Leave out paths that match. Repeatable; wins over --select.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Take exactly the paths listed in FILE, one a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// Take one rank's share: contiguous in path order, balanced by bytes, always the same.
    #[arg(long, value_name = "I/N")]
    pub(crate) rank: Option<RankArg>,
    #[command(flatten)]
    pub(crate) s3: S3Args,
}

#[derive(Debug, Args)]
pub(crate) struct S3Args {
    /// S3 endpoint URL; default from the AWS environment or profile.
    #[arg(long, value_name = "URL")]
    pub(crate) s3_endpoint: Option<String>,
    #[arg(long, value_name = "REGION")]
    pub(crate) s3_region: Option<String>,
    /// Profile in the AWS configuration.
    #[arg(long, value_name = "NAME")]
    pub(crate) s3_profile: Option<String>,
    /// AWS credentials file to read in place of the default chain.
    #[arg(long, value_name = "FILE")]
    pub(crate) s3_credentials: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Show the data at PATH (an empty directory, or the path of --from itself). Default: a new directory.
    #[arg(long, value_name = "PATH")]
    pub(crate) at: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) results: ResultsArgs,
    /// Show the place for results at PATH. Default: a new directory. The command finds it in TIDEGATE_RESULTS.
    #[arg(long, value_name = "PATH")]
    pub(crate) results_at: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) spool: SpoolArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// How long the lease may live.
    #[arg(long = "for", value_name = "DURATION", default_value = "12h")]
    pub(crate) duration: Duration,
    /// Serve no faster than this, e.g. 2Gbit.
    #[arg(long, value_name = "RATE")]
    pub(crate) limit: Option<Rate>,
    /// Write the receipt as JSON to FILE as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// Join a lease of a gateway elsewhere instead of embedding one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "select", "exclude", "list", "rank", "results"])]
    pub(crate) join: Option<PathBuf>,
    /// Use this gateway instead of those in the join file.
    #[arg(long, value_name = "URL", requires = "join")]
    pub(crate) gateway: Option<String>,
    #[command(flatten)]
    pub(crate) ops: OpsArgs,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Where results go and how many, as it is granted.
#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// Bring home what the command writes: into a directory, or below s3://bucket/prefix.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    pub(crate) results: Option<String>,
    /// Show what lies there already, as an earlier attempt left it.
    #[arg(long, requires = "results")]
    pub(crate) resume: bool,
    /// Bring home no more than this; what is stored again counts again.
    #[arg(long, value_name = "SIZE", requires = "results")]
    pub(crate) results_bytes: Option<Size>,
    /// Store no more files than this; what is stored again counts again.
    #[arg(long, value_name = "N", requires = "results")]
    pub(crate) results_files: Option<u64>,
    /// Digest of the command's image, to be kept with each result.
    #[arg(long, value_name = "DIGEST", requires = "results")]
    pub(crate) image: Option<String>,
}

/// How results are kept until they are home.
#[derive(Debug, Args)]
pub(crate) struct SpoolArgs {
    /// Let `fsync` and `close` return once the bytes are sealed on this machine's disk: what is not home yet
    /// is lost with the machine.
    #[arg(long)]
    pub(crate) results_async: bool,
    /// Largest size of the sealed spool beside the cache. Default: a quarter of what is free, at most 20GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) results_spool: Option<Size>,
}

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Directory for the sealed cache file.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Largest size of the cache, e.g. 20GiB. Default: the selection, at most 20GiB and 9/10 of what is free.
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache_size: Option<Size>,
    /// Bytes of memory for all buffers together. Default: 512MiB, or a quarter of the cgroup's limit.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// Do without a kernel feature, as older kernels must: `resend`, `direct-mmap`. Repeatable.
    #[arg(long, value_name = "FEATURE")]
    pub(crate) kernel_without: Vec<Feature>,
}

#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    /// Directory of state and ledger. Default: $XDG_STATE_HOME/tidegate or ~/.local/state/tidegate.
    #[arg(long, value_name = "DIR")]
    pub(crate) ledger: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Link rate for the minutes.
    #[arg(long, value_name = "RATE", default_value = "1Gbit")]
    pub(crate) rate: Rate,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct GatewayArgs {
    #[command(subcommand)]
    pub(crate) command: Option<GatewayCommand>,
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Option<PathBuf>,
    /// Read and check the config file and what it names, then stop.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// After a loss of state: end every lease, and open a new ledger that says what is missing.
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The gateway's config file.
    #[arg(long, value_name = "FILE", required_unless_present = "ledger")]
    pub(crate) config: Option<PathBuf>,
    /// State and ledger of `run`, instead of a gateway's.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(crate) ledger: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[arg(long, value_name = "FILE")]
    pub(crate) join: PathBuf,
    #[arg(long, value_name = "PATH")]
    pub(crate) at: PathBuf,
    /// Show the place for results here, of a lease that brings some home.
    #[arg(long, value_name = "PATH")]
    pub(crate) results_at: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) spool: SpoolArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Write the receipt as JSON to FILE as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ops: OpsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OpsArgs {
    /// Serve /metrics, /livez, /readyz and /startupz here, over plain HTTP, e.g. 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) ops: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// The gateway's admin socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) admin: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Grant a lease and write its join file.
    Create {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        source: Box<SourceArgs>,
        #[command(flatten)]
        results: Box<ResultsArgs>,
        /// How long the lease may live.
        #[arg(long = "for", value_name = "DURATION", default_value = "12h")]
        duration: Duration,
        /// Where to write the join file (mode 0600).
        #[arg(long, value_name = "FILE")]
        join: PathBuf,
        /// Cut the selection into N shares, one a worker, with join files FILE.0 to FILE.N-1.
        #[arg(long, value_name = "N", conflicts_with = "rank", value_parser = clap::value_parser!(u16).range(1..))]
        ranks: Option<u16>,
    },
    List(AdminArgs),
    Show {
        #[command(flatten)]
        admin: AdminArgs,
        lease: tidegate_plan::LeaseId,
    },
    /// Ask a lease's workers to finish: reads go on until the job is done or nobody uses the mount.
    Drain {
        #[command(flatten)]
        admin: AdminArgs,
        lease: tidegate_plan::LeaseId,
    },
    /// Make a further join file for a rank: the worker that joins with it takes the rank over, and the
    /// one that had it gets nothing more.
    Token {
        #[command(flatten)]
        admin: AdminArgs,
        lease: tidegate_plan::LeaseId,
        #[arg(long, value_name = "RANK", default_value_t = 0)]
        rank: u16,
        /// Where to write the join file (mode 0600).
        #[arg(long, value_name = "FILE")]
        join: PathBuf,
    },
    /// End a lease now: its keys are destroyed and its worker is told to wipe.
    Revoke {
        #[command(flatten)]
        admin: AdminArgs,
        lease: tidegate_plan::LeaseId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// One line an entry.
    List(LedgerArgs),
    /// Everything about one lease or one entry, or which data made a result; with the documents that were not
    /// erased.
    Show {
        #[command(flatten)]
        ledger: LedgerArgs,
        /// A lease id, an entry's index, or a result: its path, s3://bucket/key, or the BLAKE3 of its bytes.
        what: String,
    },
    /// Check every entry, every checkpoint and every signature.
    Verify {
        #[command(flatten)]
        ledger: LedgerArgs,
        /// A checkpoint that left the gateway earlier (receipts and certificates hold one). Repeatable.
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// The newest ledger's verifier key, which vouches for those before it; default: the one beside it.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Write the log as C2SP tlog-tiles into a new directory.
    Export {
        #[command(flatten)]
        ledger: LedgerArgs,
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}
