//! Blocks of a real tree, sealed by the pipeline and opened by `tidegate-seal`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tempfile::TempDir;
use tidegate_plan::{BLOCK_MAX, BlockKind, Layout, LeaseId, Selection, SelectionSpec, Snapshot};
use tidegate_seal::{BlockKey, Context, Kind, open_message};

use super::*;
use crate::source::{Source, SourceSpec};

const KEY: [u8; 32] = [7; 32];
const LEASE: LeaseId = LeaseId::from_bytes([3; 16]);
const BUDGET: u64 = 64 << 20;

struct Staged {
    dir: TempDir,
    source: Arc<Source>,
    snapshot: Arc<Snapshot>,
    selection: Arc<Selection>,
    layout: Arc<Layout>,
}

fn content(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

impl Staged {
    async fn of(files: &[(&str, usize)]) -> Self {
        let dir = TempDir::new().unwrap();
        for (seed, (name, len)) in files.iter().enumerate() {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content(seed, *len)).unwrap();
        }
        let source = Source::open(SourceSpec::Directory(dir.path().to_owned())).await.unwrap();
        let snapshot = source.snapshot().await.unwrap();
        let selection = Selection::resolve(&snapshot, &SelectionSpec::default()).unwrap();
        let layout = Layout::build(&snapshot, &selection, 1).unwrap();
        Self {
            dir,
            source: Arc::new(source),
            snapshot: Arc::new(snapshot),
            selection: Arc::new(selection),
            layout: Arc::new(layout),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn context(&self, block: u32) -> Context {
        Context {
            kind: Kind::Block,
            lease: LEASE,
            layout: self.layout.id(),
            number: block.into(),
            count: self.layout.blocks().len() as u64,
        }
    }

    fn job(&self, block: u32) -> BlockJob {
        BlockJob {
            source: Arc::clone(&self.source),
            snapshot: Arc::clone(&self.snapshot),
            selection: Arc::clone(&self.selection),
            layout: Arc::clone(&self.layout),
            block,
            key: BlockKey::from_bytes(KEY),
            context: self.context(block),
            salt: [9; 24],
        }
    }

    async fn plain(&self, block: u32, budget: &Budget) -> Vec<u8> {
        let mut stream = start(self.job(block), budget).await.unwrap();
        let mut sealed = Vec::new();
        while let Some(frame) = stream.frames.next().await {
            sealed.extend_from_slice(&frame.unwrap());
        }
        assert_eq!(sealed.len() as u64, stream.len);
        let key = BlockKey::from_bytes(KEY);
        open_message(&key, &self.context(block), &sealed).unwrap().to_vec()
    }

    /// What a block's plaintext must be, put together from the files themselves.
    fn expected(&self, block: u32, stale: &[&str]) -> Vec<u8> {
        let extents = self.layout.extents_of(&self.snapshot, &self.selection, block);
        let described = self.layout.block(block).unwrap();
        let mut plain = vec![0; described.plain_len as usize];
        for (ordinal, extent) in extents.iter().enumerate() {
            let entry = self.selection.files()[extent.file as usize];
            let path = self.snapshot.get(entry).unwrap().path.to_string();
            if stale.contains(&path.as_str()) {
                continue;
            }
            let at = extent.at as usize;
            let file = File::open(self.path(&path)).unwrap();
            file.read_exact_at(&mut plain[at..at + extent.len as usize], extent.offset).unwrap();
            if described.kind == BlockKind::Packed {
                plain[ordinal / 8] |= 1 << (ordinal % 8);
            }
        }
        plain
    }

    fn blocks(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.layout.blocks().len()).unwrap()
    }

    fn block_of(&self, name: &str) -> u32 {
        let holds = |block: &u32| {
            let extents = self.layout.extents_of(&self.snapshot, &self.selection, *block);
            extents.iter().any(|extent| {
                let entry = self.selection.files()[extent.file as usize];
                self.snapshot.get(entry).unwrap().path.as_bytes() == name.as_bytes()
            })
        };
        self.blocks().find(holds).unwrap()
    }
}

fn append(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(b"more", file.metadata().unwrap().len()).unwrap();
}

const BLOCK: usize = BLOCK_MAX as usize;

#[tokio::test(flavor = "multi_thread")]
async fn every_block_opens_to_the_bytes_of_its_files() {
    let mut files: Vec<(String, usize)> = [
        0,
        1,
        7,
        16_383,
        16_384,
        16_385,
        262_143,
        262_144,
        262_145,
        0,
        1_000_003,
        3_000_001,
        BLOCK - 4096,
        BLOCK - 4095,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        2 * BLOCK,
        2 * BLOCK + 262_144,
        5,
    ]
    .into_iter()
    .enumerate()
    .map(|(n, len)| (format!("d{}/f{n:03}", n / 7), len))
    .collect();
    files.extend((0..2500).map(|n| (format!("tiny/{n:05}"), n % 97)));
    let names: Vec<_> = files.iter().map(|(name, len)| (name.as_str(), *len)).collect();
    let staged = Staged::of(&names).await;
    let budget = Budget::new(BUDGET);
    let mut kinds = [0; 2];
    for block in staged.blocks() {
        let described = staged.layout.block(block).unwrap();
        kinds[usize::from(described.kind == BlockKind::Whole)] += 1;
        assert!(staged.plain(block, &budget).await == staged.expected(block, &[]), "block {block}");
    }
    assert!(kinds[0] > 3 && kinds[1] > 5, "{kinds:?}");
    let beyond = staged.blocks().end;
    assert!(matches!(start(staged.job(beyond), &budget).await, Err(Refused::NoSuchBlock(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_blocks_at_once_share_the_smallest_budget() {
    let staged = Arc::new(Staged::of(&[("a", 9 * BLOCK), ("b", 100_000), ("c", BLOCK)]).await);
    let budget = Budget::new(0);
    // Streams that nobody reads to the end give back what they held.
    for _ in 0..100 {
        drop(start(staged.job(0), &budget).await.unwrap());
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (staged, budget) = (Arc::clone(&staged), budget.clone());
        tasks.spawn(async move {
            let block = n % staged.blocks().end;
            assert!(staged.plain(block, &budget).await == staged.expected(block, &[]));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_small_file_is_stale_alone() {
    let files = [("a", 100), ("b", 40_000), ("c", 100), ("d", 0), ("e", 20_000), ("f", 300_000)];
    let staged = Staged::of(&files).await;
    let budget = Budget::new(BUDGET);
    // Leaves other bytes in the buffers than zeros.
    assert!(staged.plain(0, &budget).await == staged.expected(0, &[]));
    append(&staged.path("b"));
    fs::remove_file(staged.path("e")).unwrap();
    fs::create_dir(staged.path("e")).unwrap();
    assert!(staged.plain(0, &budget).await == staged.expected(0, &["b", "e"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_large_file_is_refused_and_no_other() {
    let files = [("a", 2 * BLOCK), ("b", 2 * BLOCK), ("c", 2 * BLOCK)];
    let staged = Staged::of(&files).await;
    let budget = Budget::new(BUDGET);
    append(&staged.path("a"));
    fs::remove_file(staged.path("b")).unwrap();
    for name in ["a", "b"] {
        match start(staged.job(staged.block_of(name)), &budget).await {
            Err(Refused::SourceChanged { path }) => assert_eq!(path.as_bytes(), name.as_bytes()),
            other => panic!("{other:?}"),
        }
    }
    let block = staged.block_of("c");
    assert!(staged.plain(block, &budget).await == staged.expected(block, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_under_way_tears_the_stream() {
    let staged = Staged::of(&[("a", BLOCK)]).await;
    let budget = Budget::new(BUDGET);
    let mut stream = start(staged.job(0), &budget).await.unwrap();
    let first = stream.frames.next().await.unwrap().unwrap();
    append(&staged.path("a"));
    let mut sent = first.len() as u64;
    let torn = loop {
        match stream.frames.next().await.expect("a torn stream says so") {
            Ok(frame) => sent += frame.len() as u64,
            Err(torn) => break torn,
        }
    };
    assert_eq!(
        (torn.path.as_bytes(), torn.why),
        (b"a".as_slice(), crate::source::ReadError::Changed)
    );
    assert!(sent < stream.len);
    assert!(stream.frames.next().await.is_none());
}

#[tokio::test]
async fn what_may_no_longer_be_read_is_stale() {
    // Root reads it all the same, but sees that the inode changed.
    let staged = Staged::of(&[("a", 10), ("b", 10)]).await;
    fs::set_permissions(staged.path("a"), Permissions::from_mode(0o000)).unwrap();
    let plain = staged.plain(0, &Budget::new(BUDGET)).await;
    assert_eq!((plain[0], &plain[1..11]), (0b10, [0; 10].as_slice()));
}

#[test]
fn a_manifest_is_sealed_piece_by_piece() {
    let layout = tidegate_plan::LayoutId::from_bytes([5; 32]);
    let key = BlockKey::from_bytes(KEY);
    for (len, pieces) in
        [(0, 1), (1, 1), (MANIFEST_PIECE, 1), (MANIFEST_PIECE + 1, 2), (3 * MANIFEST_PIECE, 3)]
    {
        let plain = content(len, len);
        let mut salts = 0;
        let sealed: Vec<_> = seal_manifest(&plain, &key, LEASE, layout, || {
            salts += 1;
            [salts; 24]
        })
        .collect();
        assert_eq!((sealed.len(), manifest_pieces(len)), (pieces, pieces));
        let mut opened = Vec::new();
        for (number, piece) in sealed.iter().enumerate() {
            let (number, count) = (number as u64, pieces as u64);
            let context = Context { kind: Kind::Manifest, lease: LEASE, layout, number, count };
            opened.extend_from_slice(&open_message(&key, &context, piece).unwrap());
        }
        assert!(opened == plain);
        assert_eq!(usize::from(salts), pieces);
    }
}
