//! Large values at rest: snapshots and selections, as runs of small objects.
//!
//! `snapshots/ID/00000000` and so on hold pieces of [`PIECE`] bytes each; a shorter one, which may be
//! empty, is the last, and is created last. So no request is longer than a piece, however many
//! files a snapshot has, and a run that has an end is whole. Names are digests of what they name:
//! whoever stored a piece first stored the same.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_kit::state::{StateError, StateStore};

/// Bytes of every piece but the last.
const PIECE: usize = 4 << 20;
/// Pieces that are stored at once.
const AT_ONCE: usize = 4;
/// Most pieces that are read back: 64 GiB.
const PIECES_MAX: usize = 16 * 1024;

fn path(name: &str, piece: usize) -> String {
    format!("{name}/{piece:08}")
}

/// Stores `bytes`, unless they are there.
pub(crate) async fn store(store: &StateStore, name: &str, bytes: &[u8]) -> Result<(), StateError> {
    let last = bytes.len() / PIECE;
    let end = &bytes[last * PIECE..];
    if store.read(&path(name, last)).await?.is_some_and(|there| there == end) {
        return Ok(());
    }
    let whole = |piece: usize| {
        let bytes = Bytes::copy_from_slice(&bytes[piece * PIECE..(piece + 1) * PIECE]);
        create(store, path(name, piece), bytes)
    };
    stream::iter(0..last).map(whole).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    create(store, path(name, last), Bytes::copy_from_slice(end)).await
}

async fn create(store: &StateStore, path: String, bytes: Bytes) -> Result<(), StateError> {
    let _ = store.create(&path, bytes).await?;
    Ok(())
}

/// Reads what was stored; `None` when it is not there whole.
pub(crate) async fn read(store: &StateStore, name: &str) -> Result<Option<Vec<u8>>, StateError> {
    let mut bytes = Vec::new();
    for piece in 0..PIECES_MAX {
        let Some(next) = store.read(&path(name, piece)).await? else { return Ok(None) };
        bytes.extend_from_slice(&next);
        if next.len() < PIECE {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_stored_is_read_back_and_a_run_without_its_end_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateStore::open(&dir.path().join("state")).unwrap();
        for len in [0, 1, PIECE - 1, PIECE, 2 * PIECE + 5] {
            let name = format!("snapshots/{len}");
            let bytes: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            assert_eq!(read(&state, &name).await.unwrap(), None);
            for _ in 0..2 {
                store(&state, &name, &bytes).await.unwrap();
                assert!(read(&state, &name).await.unwrap() == Some(bytes.clone()));
            }
            assert_eq!(state.list(&name).await.unwrap().len(), len / PIECE + 1);
            state.delete(&path(&name, len / PIECE)).await.unwrap();
            assert_eq!(read(&state, &name).await.unwrap(), None);
            store(&state, &name, &bytes).await.unwrap();
            assert!(read(&state, &name).await.unwrap() == Some(bytes));
        }
    }
}
