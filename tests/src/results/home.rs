//! A results home: a directory, or a bucket of a real store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::ceph::CephRgw;
use crate::minio::Minio;
use crate::process::wait_for;
use crate::s3::S3;
use crate::scratch::Scratch;
use crate::trouble::Trouble;
use crate::versitygw::Versitygw;
use crate::wan::Namespace;

const BUCKET: &str = "results";
const PREFIX: &str = "runs/one";
/// Where a gateway keeps what is not whole yet, at the root of a directory.
const UNFINISHED: &str = ".tidegate-";
/// What names of attributes and metadata begin with.
const NOTES: [&str; 2] = ["user.tidegate.", "tidegate-"];

/// Where results go.
#[derive(Debug)]
pub struct Home {
    place: Place,
    /// Credentials, and the directory where it is one.
    scratch: Scratch,
    /// As the gateway reaches a store.
    endpoint: String,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Versitygw(Versitygw),
    Ceph(CephRgw),
    Minio(Minio),
}

impl Home {
    pub fn directory() -> Result<Self> {
        let scratch = Scratch::new()?;
        let path = scratch.dir("home")?;
        Ok(Self { place: Place::Directory(path), scratch, endpoint: String::new() })
    }

    /// One that lies somewhere else.
    pub fn directory_at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let place = Place::Directory(path.to_owned());
        Ok(Self { place, scratch: Scratch::new()?, endpoint: String::new() })
    }

    pub fn versitygw() -> Result<Self> {
        Self::bucket(Place::Versitygw(Versitygw::start()?))
    }

    pub fn ceph() -> Result<Self> {
        Self::bucket(Place::Ceph(CephRgw::start()?))
    }

    pub fn minio() -> Result<Self> {
        Self::bucket(Place::Minio(Minio::start()?))
    }

    fn bucket(place: Place) -> Result<Self> {
        let mut home = Self { place, scratch: Scratch::new()?, endpoint: String::new() };
        let store = home.store()?;
        store.create_bucket(BUCKET)?;
        store.credentials_file(&home.scratch)?;
        home.endpoint = store.endpoint().to_owned();
        Ok(home)
    }

    /// From now on gateways reach the store through somebody who makes trouble.
    pub fn troubled(&mut self) -> Result<Trouble> {
        self.troubled_in(None)
    }

    /// The same for gateways in a namespace.
    pub fn troubled_in(&mut self, namespace: Option<&Namespace>) -> Result<Trouble> {
        let port = self.endpoint.rsplit(':').next().context("no store")?.parse()?;
        let trouble = Trouble::before(port, namespace)?;
        self.endpoint = format!("http://127.0.0.1:{}", trouble.port());
        Ok(trouble)
    }

    /// A client of the store, of its own: clients are used from one thread at a time.
    fn store(&self) -> Result<S3> {
        match &self.place {
            Place::Directory(_) => anyhow::bail!("a directory has no store"),
            Place::Versitygw(server) => server.client(),
            Place::Ceph(cluster) => cluster.client(),
            Place::Minio(server) => server.client(),
        }
    }

    pub const fn is_directory(&self) -> bool {
        matches!(self.place, Place::Directory(_))
    }

    /// The word for `--results`.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Directory(path) => path.display().to_string(),
            _ => format!("s3://{BUCKET}/{PREFIX}"),
        }
    }

    fn credentials(&self) -> PathBuf {
        self.scratch.join("credentials")
    }

    /// Words for `tidegate run`, which has no gateway's configuration: how the store is reached.
    pub fn words(&self) -> Vec<OsString> {
        if self.is_directory() {
            return Vec::new();
        }
        let words = ["--s3-endpoint", &self.endpoint, "--s3-region", "us-east-1"];
        let credentials = ["--s3-credentials".into(), self.credentials().into()];
        words.map(OsString::from).into_iter().chain(credentials).collect()
    }

    /// What an object is called from outside: a path, or a URL.
    pub fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.place())
    }

    /// Of a directory; of a bucket there is none.
    pub fn path(&self) -> PathBuf {
        match &self.place {
            Place::Directory(path) => path.clone(),
            _ => PathBuf::new(),
        }
    }

    /// An entry of `results.allow`.
    pub fn allowed(&self) -> String {
        if self.is_directory() {
            return format!("\"{}\"", self.place());
        }
        format!(
            "{{ source = \"s3://{BUCKET}/{PREFIX}\", endpoint = \"{}\", region = \"us-east-1\", \
             credentials_file = \"{}\" }}",
            self.endpoint,
            self.credentials().display()
        )
    }

    /// Requests that versitygw served so far, one a line; of others nothing is known.
    pub fn access_log(&self) -> String {
        match &self.place {
            Place::Versitygw(server) => server.access_log(),
            _ => String::new(),
        }
    }

    pub fn look(&self) -> Result<Look> {
        Ok(match &self.place {
            Place::Directory(path) => Look::Directory(path.clone()),
            _ => Look::Bucket(self.store()?),
        })
    }
}

/// One thing at home under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub len: u64,
    /// Another when the bytes may be others.
    pub version: String,
}

/// Looks at a home from outside, as the company's own programs would.
#[derive(Debug)]
pub enum Look {
    Directory(PathBuf),
    Bucket(S3),
}

impl Look {
    /// Every file by its path, without what is not whole yet.
    pub fn list(&self) -> Result<BTreeMap<String, Seen>> {
        let mut found = BTreeMap::new();
        match self {
            Self::Directory(root) => walk(root, "", &mut found)?,
            Self::Bucket(store) => {
                let prefix = format!("{PREFIX}/");
                found.extend(store.objects(BUCKET, &prefix)?.into_iter().map(|object| {
                    let path = object.key.trim_start_matches(&prefix).to_owned();
                    (path, Seen { len: object.len, version: object.etag })
                }));
            }
        }
        Ok(found)
    }

    /// Bytes of a file; `None` where there is none.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Directory(root) => absent(fs::read(root.join(path))),
            Self::Bucket(store) => store.get(BUCKET, &key(path)),
        }
    }

    /// SHA-256 of a file, in hex; `None` where there is none.
    pub fn sha256(&self, path: &str) -> Result<Option<String>> {
        match self {
            Self::Directory(root) => absent(sha256(&root.join(path))),
            Self::Bucket(store) => store.sha256(BUCKET, &key(path)),
        }
    }

    /// Puts another file in the place of one, as somebody else would.
    pub fn overwrite(&self, path: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Directory(root) => {
                crate::dataset::write(root, "other", bytes)?;
                Ok(fs::rename(root.join("other"), root.join(path))?)
            }
            Self::Bucket(store) => store.put(BUCKET, &key(path), bytes),
        }
    }

    /// Removes a file as somebody else would.
    pub fn remove(&self, path: &str) -> Result<()> {
        match self {
            Self::Directory(root) => fs::remove_file(root.join(path)).context("cannot remove"),
            Self::Bucket(store) => store.delete(BUCKET, &key(path)),
        }
    }

    /// What is said of a file beside its bytes: `lease`, `snapshot`, `blake3` and so on.
    pub fn notes(&self, path: &str) -> Result<BTreeMap<String, String>> {
        let notes = match self {
            Self::Directory(root) => attributes(&root.join(path))?,
            Self::Bucket(store) => store.notes(BUCKET, &key(path))?,
        };
        let short =
            |name: &str| NOTES.iter().find_map(|start| name.strip_prefix(start)).map(str::to_owned);
        Ok(notes.into_iter().filter_map(|(name, value)| Some((short(&name)?, value))).collect())
    }

    /// What was begun and is neither whole nor given up.
    pub fn unfinished(&self) -> Result<Vec<String>> {
        match self {
            Self::Directory(root) => {
                let own = rooms(root)?;
                let inside = own.iter().filter_map(|own| fs::read_dir(root.join(own)).ok());
                Ok(inside.flatten().flatten().map(|it| it.path().display().to_string()).collect())
            }
            Self::Bucket(store) => store.uploads(BUCKET),
        }
    }

    /// Waits until nothing is left of leases that are over: nothing that is not whole, nor a place for it. In a
    /// bucket there may be `orphans`: uploads whose beginning no gateway heard, or lived to tell.
    pub fn wait_until_tidy(&self, orphans: usize) -> Result<()> {
        let left = || match self {
            Self::Directory(root) => Ok([rooms(root)?, self.unfinished()?].concat()),
            Self::Bucket(_) => self.unfinished(),
        };
        let most = if matches!(self, Self::Bucket(_)) { orphans } else { 0 };
        let tidy = || left().is_ok_and(|left| left.len() <= most).then_some(());
        wait_for("what is not whole to go", tidy).with_context(|| format!("{:?}", left()))
    }

    /// Writes all of it below `to`, for programs that read files.
    pub fn copy(&self, to: &Path) -> Result<()> {
        for path in self.list()?.into_keys() {
            let bytes = self.read(&path)?.with_context(|| format!("{path} is gone"))?;
            crate::dataset::write(to, &path, &bytes)?;
        }
        Ok(())
    }
}

/// Directories at the root in which gateways keep what is not whole.
fn rooms(root: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(root)?.flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(UNFINISHED)).collect())
}

fn key(path: &str) -> String {
    format!("{PREFIX}/{path}")
}

fn absent<T>(outcome: io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => Ok(Some(outcome?)),
    }
}

/// SHA-256 of a file, in hex.
fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 20]);
    let mut hasher = Sha256::new();
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            len => hasher.update(&piece[..len]),
        }
    }
}

/// Files below a directory. What vanishes while it is looked at was not there.
fn walk(root: &Path, inside: &str, found: &mut BTreeMap<String, Seen>) -> Result<()> {
    let Some(entries) = absent(fs::read_dir(root.join(inside)))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if inside.is_empty() && name.starts_with(UNFINISHED) {
            continue;
        }
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        let Some(meta) = absent(fs::symlink_metadata(root.join(&path)))? else { continue };
        if meta.is_dir() {
            walk(root, &path, found)?;
        } else {
            let version =
                format!("{}.{}.{}.{}", meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.len());
            found.insert(path, Seen { len: meta.len(), version });
        }
    }
    Ok(())
}

/// Extended attributes of a file.
fn attributes(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut names = vec![0_u8; 4096];
    let len = rustix::fs::listxattr(path, &mut names[..]).context("cannot list attributes")?;
    names.truncate(len);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0_u8; 4096];
            let len = rustix::fs::getxattr(path, name.as_str(), &mut value[..])?;
            value.truncate(len);
            Ok((name, String::from_utf8_lossy(&value).into_owned()))
        })
        .collect()
}
