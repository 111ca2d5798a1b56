//! `tidegate lease` and `tidegate status`: one request each to a gateway's admin socket.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_gateway::LeaseStatus;
use tidegate_gateway::admin::Ended;
use tidegate_wire::{JoinFile, Problem};
use tokio::net::UnixStream;

use crate::args::{AdminArgs, LeaseCommand, ResultsArgs, SourceArgs};
use crate::units::Duration;
use crate::{Usage, home, source, table};

/// Largest answer read, in bytes: a list of some ten thousand leases.
const MAX_ANSWER: usize = 16 << 20;

pub(crate) fn lease(command: LeaseCommand, as_json: bool) -> Result<u8> {
    match command {
        LeaseCommand::Create { admin, source, results, duration, join, ranks } => {
            let body = grant(&source, &results, duration, ranks)?;
            create(&admin, body, &join, ranks.is_some(), as_json)
        }
        LeaseCommand::List(admin) => {
            let answer = ask(&admin, "GET", "/v1/admin/leases", None)?;
            if as_json {
                let leases = answer.as_array().map(Vec::as_slice).unwrap_or_default();
                leases.iter().for_each(table::document);
            } else {
                table::leases(&read::<Vec<LeaseStatus>>(answer)?);
            }
            Ok(0)
        }
        LeaseCommand::Show { admin, lease } => {
            let answer = ask(&admin, "GET", &format!("/v1/admin/leases/{lease}"), None)?;
            show(answer, as_json, |lease| table::lease(&lease))
        }
        LeaseCommand::Drain { admin, lease } => {
            let path = format!("/v1/admin/leases/{lease}/drain");
            let answer = ask(&admin, "POST", &path, Some(json!({})))?;
            show(answer, as_json, |lease| table::lease(&lease))
        }
        LeaseCommand::Token { admin, lease, rank, join } => {
            let path = format!("/v1/admin/leases/{lease}/tokens");
            let answer = ask(&admin, "POST", &path, Some(json!({ "rank": rank })))?;
            let file: JoinFile =
                serde_json::from_value(answer).context("the gateway's answer is no join file")?;
            write_secret(&join, &serde_json::to_vec_pretty(&file)?)?;
            eprintln!("tidegate: join file {}; who joins takes the rank over", join.display());
            Ok(0)
        }
        LeaseCommand::Revoke { admin, lease } => {
            let path = format!("/v1/admin/leases/{lease}/revoke");
            let answer = ask(&admin, "POST", &path, Some(json!({})))?;
            show(answer, as_json, |ended: Ended| table::lease(&ended.status))
        }
    }
}

pub(crate) fn status(admin: &AdminArgs, as_json: bool) -> Result<u8> {
    show(ask(admin, "GET", "/v1/admin/status", None)?, as_json, |status| table::status(&status))
}

/// What a gateway is asked to grant.
fn grant(
    from: &SourceArgs,
    results: &ResultsArgs,
    duration: Duration,
    each: Option<u16>,
) -> Result<Value> {
    let (rank, ranks) = match each {
        Some(ranks) => (None, ranks),
        None => {
            let (rank, ranks) = source::rank(from);
            (Some(rank), ranks)
        }
    };
    let s3 = &from.s3;
    let mut body = json!({
        "source": source::source(from)?.to_string(),
        "s3": {
            "endpoint": s3.s3_endpoint, "region": s3.s3_region, "profile": s3.s3_profile,
            "credentials_file": s3.s3_credentials,
        },
        "selection": source::selection(from)?,
        "ranks": ranks,
        "only_rank": rank,
        "duration_s": duration.0.as_secs(),
    });
    if let Some(body) = body.as_object_mut() {
        body.extend(home::fields(results, s3)?);
    }
    Ok(body)
}

/// Grants a lease; `each`: every rank has a join file of its own.
fn create(admin: &AdminArgs, body: Value, join: &Path, each: bool, as_json: bool) -> Result<u8> {
    let answer = ask(admin, "POST", "/v1/admin/leases", Some(body))?;
    let files: Vec<JoinFile> = serde_json::from_value(answer["joins"].clone())
        .context("the gateway's answer holds no join files")?;
    for file in &files {
        let path = if each { with_rank(join, file.rank) } else { join.to_owned() };
        write_secret(&path, &serde_json::to_vec_pretty(file)?)?;
        if !as_json {
            eprintln!("tidegate: lease {} granted; join file {}", file.lease, path.display());
        }
    }
    if as_json {
        table::document(&without_secrets(answer));
    }
    Ok(0)
}

/// `FILE.RANK`.
fn with_rank(join: &Path, rank: u16) -> PathBuf {
    let mut name = join.as_os_str().to_owned();
    name.push(format!(".{rank}"));
    name.into()
}

/// Says an answer as it came, or in words.
fn show<T: DeserializeOwned>(answer: Value, as_json: bool, words: impl FnOnce(T)) -> Result<u8> {
    if as_json {
        table::document(&answer);
    } else {
        words(read(answer)?);
    }
    Ok(0)
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T> {
    serde_json::from_value(answer).context("the gateway's answer is of another version")
}

fn without_secrets(mut answer: Value) -> Value {
    if let Some(map) = answer.as_object_mut() {
        map.remove("joins");
    }
    answer
}

/// A new file that only its owner reads; never over an old one.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write the join file {}", path.display()))
}

fn ask(admin: &AdminArgs, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(exchange(&admin.admin, method, path, body))
}

async fn exchange(socket: &Path, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        Usage(format!("--admin {}: {error}; is the gateway running there?", socket.display()))
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = body.map_or_else(Bytes::new, |value| value.to_string().into());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the gateway's answer: {error}"))?
        .to_bytes();
    if !status.is_success() {
        let problem: Problem = serde_json::from_slice(&bytes)
            .with_context(|| format!("the gateway answered {status} without saying why"))?;
        bail!("{}: {}", problem.title, problem.detail);
    }
    serde_json::from_slice(&bytes).context("the gateway's answer is not JSON")
}
