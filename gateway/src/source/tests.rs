//! A directory source on a real tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use tempfile::TempDir;
use tidegate_plan::{Entry, Kind, Snapshot, Version};

use super::*;

fn tree() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    dir
}

async fn open(path: &Path) -> Source {
    Source::open(SourceSpec::Directory(path.to_owned())).await.unwrap()
}

fn by_path(snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Entry> {
    snapshot.entries().map(|e| (e.path.as_bytes().to_vec(), e)).collect()
}

fn unshown(snapshot: &Snapshot) -> BTreeMap<&[u8], &str> {
    snapshot.unshown().iter().map(|u| (&*u.name, u.reason.as_str())).collect()
}

async fn read(source: &Source, entry: &Entry) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; usize::try_from(entry.size).unwrap()];
    source.read_at(entry, 0, &mut bytes).await.map(|()| bytes)
}

#[tokio::test]
async fn a_tree_is_listed_as_it_is() {
    let dir = tree();
    let root = dir.path();
    let odd = OsStr::from_bytes(b"odd \xff\n name");
    fs::create_dir_all(root.join("a/b/empty dir")).unwrap();
    fs::write(root.join("a/file"), "content").unwrap();
    fs::write(root.join("a/empty"), "").unwrap();
    fs::write(root.join("a").join(odd), "odd").unwrap();
    fs::write(root.join("a-b"), "beside").unwrap();
    fs::set_permissions(root.join("a/file"), Permissions::from_mode(0o4751)).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(root.join("a/file")).unwrap().set_times(FileTimes::new().set_modified(at)).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 50 << 20).unwrap();
    for (name, target) in
        [("up", "../.."), ("absolute", "/etc/passwd"), ("dangling", "nowhere"), ("dir", "b")]
    {
        symlink(target, root.join("a").join(name)).unwrap();
    }
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();

    let source = open(root).await;
    let snapshot = source.snapshot().await.unwrap();
    let entries = by_path(&snapshot);
    let mut names: Vec<&[u8]> = vec![
        b"a",
        b"a-b",
        b"a/absolute",
        b"a/b",
        b"a/b/empty dir",
        b"a/dangling",
        b"a/dir",
        b"a/empty",
        b"a/file",
        b"a/odd \xff\n name",
        b"a/up",
        b"sparse",
    ];
    names.sort();
    assert_eq!(entries.keys().map(Vec::as_slice).collect::<Vec<_>>(), names);
    let kind = |name: &[u8]| entries[name].kind.clone();
    assert_eq!(kind(b"a/b/empty dir"), Kind::Dir);
    assert_eq!(kind(b"a/up"), Kind::Symlink((*b"../..").into()));
    assert_eq!(kind(b"a/absolute"), Kind::Symlink((*b"/etc/passwd").into()));
    assert_eq!(kind(b"a/dangling"), Kind::Symlink((*b"nowhere").into()));
    assert_eq!(kind(b"a/dir"), Kind::Symlink((*b"b").into()));
    let file = &entries[b"a/file".as_slice()];
    assert_eq!((file.size, file.mode), (7, 0o4751));
    assert_eq!((file.mtime.secs, file.mtime.nanos), (1_000_000_000, 123_456_789));
    assert!(matches!(file.version, Version::Inode { .. }));
    let reasons = unshown(&snapshot);
    assert_eq!(reasons.len(), 2);
    assert_eq!(reasons[b"pipe".as_slice()], "a named pipe, not a file");
    assert_eq!(reasons[b"socket".as_slice()], "a socket, not a file");

    assert_eq!(read(&source, file).await.unwrap(), b"content");
    assert_eq!(read(&source, &entries[b"a/odd \xff\n name".as_slice()]).await.unwrap(), b"odd");
    assert_eq!(read(&source, &entries[b"a/empty".as_slice()]).await.unwrap(), b"");
    let sparse = &entries[b"sparse".as_slice()];
    assert_eq!(sparse.size, (50 << 20) + 3);
    let mut end = [1; 8];
    source.read_at(sparse, (50 << 20) - 5, &mut end).await.unwrap();
    assert_eq!(&end, b"\0\0\0\0\0end");
    let link = &entries[b"a/absolute".as_slice()];
    assert_eq!(read(&source, link).await, Err(ReadError::Changed));
}

#[tokio::test]
async fn wide_and_deep_trees_are_listed_whole() {
    let dir = tree();
    fs::create_dir(dir.path().join("wide")).unwrap();
    for n in 0..3000 {
        File::create(dir.path().join(format!("wide/{n}"))).unwrap();
    }
    let deep = "d/".repeat(300);
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    for n in 0..200 {
        fs::create_dir(dir.path().join(format!("{n}"))).unwrap();
        fs::write(dir.path().join(format!("{n}/f")), "x").unwrap();
    }
    let source = open(dir.path()).await;
    let snapshot = source.snapshot().await.unwrap();
    assert_eq!(snapshot.len(), 1 + 3000 + 300 + 400);
    assert!(snapshot.unshown().is_empty());
    assert_eq!(source.snapshot().await.unwrap().id(), snapshot.id());
}

#[tokio::test]
async fn only_what_changed_is_changed() {
    let dir = tree();
    let root = dir.path();
    for name in [
        "same", "edited", "appended", "deleted", "replaced", "linked", "touched", "cut", "piped",
        "denied",
    ] {
        fs::write(root.join(name), "first content").unwrap();
    }
    for above in ["dir", "moved"] {
        fs::create_dir(root.join(above)).unwrap();
        fs::write(root.join(above).join("file"), "first content").unwrap();
    }
    let source = open(root).await;
    let snapshot = source.snapshot().await.unwrap();

    let later = FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(5));
    let edited = File::options().write(true).open(root.join("edited")).unwrap();
    edited.write_all_at(b"other content", 0).unwrap();
    edited.set_times(later).unwrap();
    fs::write(root.join("appended"), "first content, and more").unwrap();
    fs::remove_file(root.join("deleted")).unwrap();
    fs::write(root.join("new"), "first content").unwrap();
    fs::rename(root.join("new"), root.join("replaced")).unwrap();
    fs::rename(root.join("linked"), root.join("elsewhere")).unwrap();
    symlink("elsewhere", root.join("linked")).unwrap();
    File::open(root.join("touched")).unwrap().set_times(later).unwrap();
    File::options().write(true).open(root.join("cut")).unwrap().set_len(4).unwrap();
    fs::remove_file(root.join("piped")).unwrap();
    mknodat(CWD, root.join("piped"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::remove_file(root.join("denied")).unwrap();
    fs::create_dir(root.join("denied")).unwrap();
    // A link in the place of a directory leads to the very same file, and is not followed.
    fs::rename(root.join("moved"), root.join("moved away")).unwrap();
    symlink("moved away", root.join("moved")).unwrap();

    for entry in snapshot.entries().filter(|entry| entry.kind == Kind::File) {
        let expected = match entry.path.as_bytes() {
            b"same" | b"dir/file" => Ok(b"first content".to_vec()),
            _ => Err(ReadError::Changed),
        };
        assert_eq!(read(&source, &entry).await, expected, "{}", entry.path);
    }
}

#[tokio::test]
async fn the_tree_that_was_opened_is_read_whatever_stands_at_its_path() {
    let dir = tree();
    let (path, away) = (dir.path().join("data"), dir.path().join("away"));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "right").unwrap();
    let source = open(&path).await;
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "wrong").unwrap();
    let snapshot = source.snapshot().await.unwrap();
    assert_eq!(read(&source, &snapshot.get(0).unwrap()).await.unwrap(), b"right");
}

#[test]
fn what_may_not_be_read_is_named() {
    let dir = tree();
    let root = dir.path().to_owned();
    fs::create_dir(root.join("locked")).unwrap();
    fs::write(root.join("locked/file"), "x").unwrap();
    fs::create_dir(root.join("names only")).unwrap();
    fs::write(root.join("names only/file"), "x").unwrap();
    fs::write(root.join("secret"), "x").unwrap();
    fs::write(root.join("open"), "x").unwrap();
    for (name, mode) in [("locked", 0o700), ("names only", 0o744), ("secret", 0o600)] {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    if !geteuid().is_root() {
        for (name, mode) in [("locked", 0), ("names only", 0o400), ("secret", 0)] {
            fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        }
    }
    // Root reads everything, so the listing is taken by a thread that is nobody.
    let listing = std::thread::spawn({
        let root = root.clone();
        move || {
            if geteuid().is_root() {
                let nobody = Uid::from_raw(65534);
                set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            let locked = Directory::open(&root.join("locked"));
            (Directory::open(&root).unwrap().list().unwrap(), locked)
        }
    });
    let (found, locked) = listing.join().unwrap();
    assert!(matches!(locked, Err(SourceError::PathDenied { .. })), "{locked:?}");
    let snapshot = Snapshot::build("test".to_owned(), found.entries, found.unshown);
    for name in ["locked", "names only"] {
        fs::set_permissions(root.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let names: Vec<_> = snapshot.entries().map(|e| e.path.to_string()).collect();
    assert_eq!(names, ["names only", "open"]);
    let reasons = unshown(&snapshot);
    let denied: Vec<&[u8]> = vec![b"locked", b"names only/file", b"secret"];
    assert_eq!(reasons.keys().copied().collect::<Vec<_>>(), denied);
    assert!(reasons.values().all(|reason| *reason == "permission denied"), "{reasons:?}");
}

#[tokio::test]
async fn a_source_lies_where_it_was_opened_whatever_becomes_of_the_link() {
    let dir = tree();
    let (real, other, link) =
        (dir.path().join("real"), dir.path().join("other"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let source = open(&link).await;
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let real = real.canonicalize().unwrap();
    assert_eq!(source.place().unwrap(), SourceSpec::Directory(real));
}

#[tokio::test]
async fn what_is_no_directory_is_said() {
    let dir = tree();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let opened = Source::open(SourceSpec::Directory(file)).await.unwrap_err();
    assert!(matches!(opened, SourceError::NotADirectory { .. }), "{opened}");
    let absent = SourceSpec::Directory(dir.path().join("absent"));
    let opened = Source::open(absent).await.unwrap_err();
    assert!(matches!(opened, SourceError::NoSuchPath { .. }), "{opened}");
    assert!(opened.to_string().contains("absent"), "{opened}");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_said() {
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tree();
    let credentials = dir.path().join("credentials");
    fs::write(&credentials, "[some]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    let options = |profile: &str, file: &Path| S3Options {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: None,
        profile: Some(profile.to_owned()),
        credentials_file: Some(file.to_owned()),
    };
    let refused = async |options| {
        let spec = SourceSpec::parse("s3://bucket/prefix", options).unwrap();
        Source::open(spec).await.unwrap_err()
    };
    let error = refused(options("some", &credentials)).await;
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error:?}");
    let error = refused(options("another", &credentials)).await;
    assert!(matches!(error, SourceError::NoCredentials { .. }), "{error:?}");
    let error = refused(options("some", &dir.path().join("absent"))).await;
    assert!(matches!(error, SourceError::Io { .. }), "{error:?}");
}
