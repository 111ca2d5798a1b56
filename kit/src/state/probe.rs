//! Whether a bucket does what state rests on, found out by trying.

use bytes::Bytes;
use futures_util::future::join_all;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::store::{StateError, StateStore};
use crate::keyfile;

/// Writers that race for one name.
const RACERS: u8 = 8;

impl StateStore {
    /// Lets eight writers race for one name and looks at what came of it.
    pub(super) async fn probe(&self) -> Result<(), StateError> {
        let name = keyfile::random_hex::<16>();
        let path = ObjectPath::from(format!("probe/{name}"));
        let verdict = self.race(&path, &name).await;
        // Whatever was found, nothing of ours stays.
        let removed = self.store.delete(&path).await;
        verdict?;
        removed.map_err(|source| self.failed("delete what was written to try it", source))?;
        match self.store.head(&path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("look for what was deleted", source)),
            Ok(_) => Err(self.unfit("what is deleted can still be read")),
        }
    }

    async fn race(&self, path: &ObjectPath, name: &str) -> Result<(), StateError> {
        let tries = join_all((0..RACERS).map(|racer| async move {
            let payload = PutPayload::from_bytes(Bytes::from(format!("{racer} {name}")));
            let outcome = self.store.put_opts(path, payload, PutOptions::from(PutMode::Create));
            (racer, outcome.await)
        }))
        .await;
        let (mut winners, mut last) = (Vec::new(), None);
        for (racer, outcome) in tries {
            match outcome {
                Ok(put) if put.version.is_some() => {
                    return Err(self.unfit(
                        "it keeps versions, so nothing in it is ever gone; use a bucket that never had versioning on",
                    ));
                }
                Ok(_) => winners.push(racer),
                Err(
                    object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. },
                ) => {}
                Err(source) => last = Some(source),
            }
        }
        let [winner] = winners.as_slice() else {
            return Err(match last {
                Some(source) if winners.is_empty() => self.failed("write to it", source),
                _ => self.unfit(
                    "of writers that race for one name not exactly one wins (`If-None-Match: *`)",
                ),
            });
        };
        let found = self.store.get(path).await.map_err(|source| self.failed("read it", source))?;
        let found = found.bytes().await.map_err(|source| self.failed("read it", source))?;
        if found != format!("{winner} {name}").as_bytes() {
            return Err(self.unfit("what is read is not what was written"));
        }
        if !self.list("probe").await?.iter().any(|listed| listed == name) {
            return Err(self.unfit("what was written is not listed at once"));
        }
        Ok(())
    }

    fn unfit(&self, why: &'static str) -> StateError {
        StateError::Unfit { place: self.place.to_string(), why }
    }

    fn failed(&self, doing: &'static str, source: object_store::Error) -> StateError {
        StateError::Store { path: self.place.to_string(), doing, source }
    }
}
