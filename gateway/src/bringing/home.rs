//! The home of a lease's results: looked at when the lease is granted, opened when it is first needed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::book::{Document, ResultsPart};
use crate::config::Inadmissible;
use crate::live::Live;
use crate::losses::provenance;
use crate::office::Office;
use crate::results::{Desk, Home, HomeError};
use crate::source::{SourceError, SourceSpec};

/// Longest digest of an image.
const IMAGE_MAX: usize = 256;
/// For how long a home is waited for: a store out of reach is tried three times.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lease cannot bring results home as was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeRefused {
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    #[error("the directory {} for results cannot be made", .path.display())]
    NotMade { path: PathBuf, source: std::io::Error },
    #[error("the home of results cannot be used")]
    Source(#[from] SourceError),
    #[error("results cannot be written to `{home}`: {why}")]
    NotWritable { home: String, why: String },
    #[error(
        "a lease of this gateway may bring home at most {most} {what} of results (`limits.results_{what}`), and at \
         least 1"
    )]
    Budget { what: &'static str, most: u64 },
    #[error("the home of results does not answer")]
    Slow,
    #[error("the directory is not the one that the lease began in: is its file system mounted?")]
    NotMounted,
    #[error("an image is named by its digest: at most 256 letters, digits and signs")]
    Image,
}

/// What is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) home: &'a SourceSpec,
    pub(crate) resume: bool,
    pub(crate) bytes: Option<u64>,
    pub(crate) files: Option<u64>,
    pub(crate) image: Option<&'a str>,
}

/// Looks at the home that is asked for: allowed, apart from all data, and written to. `source` is what the lease
/// reads, a directory by its real path.
pub(crate) async fn prepare(
    office: &Office,
    asked: Asked<'_>,
    source: &SourceSpec,
) -> Result<ResultsPart, HomeRefused> {
    let limits = &office.config.limits;
    let bytes = within("bytes", asked.bytes, limits.results_bytes)?;
    let files = within("files", asked.files, limits.results_files)?;
    let is_digest = |image: &&str| {
        (1..=IMAGE_MAX).contains(&image.len()) && image.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let image = match asked.image {
        Some(image) => Some(Some(image).filter(is_digest).ok_or(HomeRefused::Image)?.to_owned()),
        None => None,
    };
    let home = match asked.home {
        SourceSpec::Directory(path) => made(office, path, source).await?,
        SourceSpec::S3 { .. } => asked.home.clone(),
    };
    let opened = opened(office, &home, source, None).await?;
    let tried = tokio::time::timeout(PATIENCE, opened.try_out()).await;
    tried
        .map_err(|_| HomeRefused::Slow)?
        .map_err(|error| HomeRefused::NotWritable { home: home.to_string(), why: why(&error) })?;
    if tokio::time::timeout(PATIENCE, tidy_up(office, &opened)).await.is_err() {
        tracing::warn!(%home, "what leases left half done at home stays for now: no answer");
    }
    Ok(ResultsPart {
        home,
        resume: asked.resume,
        image,
        bytes,
        files,
        reserved_bytes: 0,
        reserved_files: 0,
        drain_s: office.config.results.drain_s,
        lost: Vec::new(),
    })
}

/// Takes away what leases of this gateway that are closed have left at a home: they were tidied up after by
/// nobody when it was away, or when a process was killed.
async fn tidy_up(office: &Office, home: &Home) {
    for lease in home.left_by().await.unwrap_or_default() {
        let is_closed = match office.book.head(lease).await {
            Ok((_, document)) => document.lease.is_closed(),
            // Another gateway's, or not to be known now.
            Err(_) => false,
        };
        if is_closed && let Err(error) = home.tidy(lease).await {
            tracing::warn!(%lease, %error, "what a lease left half done at home stays for now");
        }
    }
}

fn why(error: &HomeError) -> String {
    match error {
        HomeError::Unavailable(cause) => cause.clone(),
        error => error.to_string(),
    }
}

fn within(what: &'static str, asked: Option<u64>, most: u64) -> Result<u64, HomeRefused> {
    let asked = asked.unwrap_or(most);
    if asked == 0 || asked > most {
        return Err(HomeRefused::Budget { what, most });
    }
    Ok(asked)
}

/// The real path of a directory, which is made where only it is not there. What is there of it decides first
/// whether it may be.
async fn made(
    office: &Office,
    path: &Path,
    source: &SourceSpec,
) -> Result<SourceSpec, HomeRefused> {
    office.config.admit_home(&SourceSpec::Directory(path.to_owned()), source)?;
    let failed = |source| HomeRefused::NotMade { path: path.to_owned(), source };
    for there in path.ancestors() {
        match tokio::fs::canonicalize(there).await {
            Ok(real) => {
                let below = path.strip_prefix(there).unwrap_or_else(|_| Path::new(""));
                let real = if below.as_os_str().is_empty() { real } else { real.join(below) };
                office.config.admit_home(&SourceSpec::Directory(real), source)?;
                break;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let wanted = path.to_owned();
    let making = tokio::task::spawn_blocking(move || make(&wanted)).await;
    making.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
    let real = tokio::fs::canonicalize(path).await.map_err(failed)?;
    Ok(SourceSpec::Directory(real))
}

/// Makes a directory whose parent is there, and flushes its name: whoever made one that is there may not have
/// come to flush it. Blocking.
fn make(path: &Path) -> std::io::Result<()> {
    let is_new = match std::fs::create_dir(path) {
        Ok(()) => true,
        // What is there may be no directory.
        Err(_) if path.is_dir() => false,
        Err(error) => return Err(error),
    };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = std::fs::File::open(above.unwrap_or_else(|| Path::new("/")));
    // What we may not open, or nobody can flush, as an automounter's directory.
    let is_beyond_us = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput)
    };
    match above.and_then(|above| above.sync_all()) {
        Err(error) if !is_new && is_beyond_us(&error) => Ok(()),
        flushed => flushed,
    }
}

/// Does what a network file system may let hang: few threads wait for such, one of a lease, and nobody for long.
async fn patiently<T: Send + 'static>(
    office: &Office,
    of: Option<&Live>,
    step: impl Future<Output = T> + Send + 'static,
) -> Result<T, HomeRefused> {
    let places = std::iter::once(&office.home_openings).chain(of.map(|live| &live.home_opening));
    let places = places.map(|places| Arc::clone(places).try_acquire_owned());
    let places = places.collect::<Result<Vec<_>, _>>().map_err(|_| HomeRefused::Slow)?;
    let step = tokio::spawn(async move {
        let done = step.await;
        drop(places);
        done
    });
    let done = tokio::time::timeout(PATIENCE, step).await.map_err(|_| HomeRefused::Slow)?;
    done.map_err(|_| HomeRefused::Slow)
}

/// Opens a home that may be opened. A link may have been turned since it was looked at: what is open counts.
async fn opened(
    office: &Office,
    home: &SourceSpec,
    source: &SourceSpec,
    of: Option<&Live>,
) -> Result<Home, HomeRefused> {
    let admitted = office.config.admit_home(home, source)?;
    let opened = patiently(office, of, async move { Home::open(&admitted).await }).await??;
    if let Some(path) = opened.real_path()? {
        office.config.admit_home(&SourceSpec::Directory(path), source)?;
    }
    Ok(opened)
}

/// The desk of a lease that was granted.
pub(super) async fn open(
    office: &Office,
    live: &Live,
    document: &Document,
    part: &ResultsPart,
) -> Result<Arc<Desk>, HomeRefused> {
    let home = opened(office, &part.home, &document.source, Some(live)).await?;
    let provenance = provenance(document, part);
    let rate = office.config.results.rate;
    Ok(Arc::new(Desk::new(home, part.home.to_string(), provenance, rate)))
}

/// Makes the own directory of a lease that is being granted, where its home is a directory: that is the home
/// from here on.
pub(crate) async fn begin(office: &Office, live: &Live) -> Result<(), HomeRefused> {
    let document = live.view().document;
    match &document.results {
        Some(part) if part.has_directories() => {
            let home = opened(office, &part.home, &document.source, Some(live)).await?;
            let lease = live.id;
            let making = patiently(office, Some(live), async move { home.begin_in(lease).await });
            making.await?.map_err(|error| refused(part, &error))
        }
        _ => Ok(()),
    }
}

/// The desk of a lease that brings results home: where those go to a directory, it is the one of the grant.
pub(super) async fn open_begun(
    office: &Office,
    live: &Live,
    document: &Document,
    part: &ResultsPart,
) -> Result<Arc<Desk>, HomeRefused> {
    let desk = open(office, live, document, part).await?;
    let (home, lease) = (desk.home.clone(), live.id);
    let begun = patiently(office, Some(live), async move { home.has_begun(lease).await });
    match begun.await? {
        Ok(true) => Ok(desk),
        Ok(false) => Err(HomeRefused::NotMounted),
        Err(error) => Err(refused(part, &error)),
    }
}

fn refused(part: &ResultsPart, error: &HomeError) -> HomeRefused {
    HomeRefused::NotWritable { home: part.home.to_string(), why: why(error) }
}

/// Where results may go and how many, for the document beside the grant's entry.
pub(crate) fn terms_document(part: &ResultsPart) -> String {
    serde_json::json!({
        "home": part.home.to_string(),
        "resume": part.resume,
        "bytes": part.bytes,
        "files": part.files,
        "image": part.image,
    })
    .to_string()
}
