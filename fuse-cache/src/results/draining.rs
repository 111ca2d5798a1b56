//! When bytes go home: as somebody closes or syncs, behind a writer, and at the end all that is left.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_ledger::{LOST_NAMES_MAX, StatedResults};
use tidegate_wire::{MAX_WIPE_BODY, ProblemKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ResultsFigures;
use super::block::Part;
use super::core::{Core, File, Ripe, UnderWay, lock, wait_for_room};
use super::home::Refusal;
use super::journal::Model;
use super::version::Version;
use crate::errno::FsError;

/// Names in a statement, bytes of its text in a request: all else that is said there fits in beside them.
const LOST_TEXT_MAX: usize = MAX_WIPE_BODY / 4 * 3;

/// What is home by then is not kept for a successor.
const SOON: Duration = Duration::from_millis(250);

/// Times that a file is tried at the end while others hold the room that it needs.
const TRIES: u32 = 60;

/// As many of the names as a statement has room for.
fn stateable(mut lost: Vec<String>) -> Vec<String> {
    lost.sort();
    let mut text = 0;
    let fits = |name: &String| {
        // The statement is JSON, and a string of the request's JSON.
        let said = serde_json::to_string(name).and_then(|said| serde_json::to_string(&said));
        text += said.map_or(LOST_TEXT_MAX, |said| said.len());
        text <= LOST_TEXT_MAX
    };
    let many = lost.iter().take(LOST_NAMES_MAX).map(fits).take_while(|fits| *fits).count();
    lost.truncate(many);
    lost
}

/// What was not home, by what the last worker had told.
pub(super) fn stated_from(model: &Model) -> StatedResults {
    let lost = model.unsaved();
    StatedResults {
        stored_files: model.sums.0,
        stored_bytes: model.sums.1,
        lost_files: lost.len() as u64,
        lost: stateable(lost),
    }
}

/// Sends parts on their way that are complete behind their writers.
pub(super) fn follow(core: &Arc<Core>, mut ripe: mpsc::UnboundedReceiver<Ripe>) {
    let core: Weak<Core> = Arc::downgrade(core);
    tokio::spawn(async move {
        while let Some((file, part, work)) = ripe.recv().await {
            let Some(core) = core.upgrade() else { break };
            tokio::spawn(async move { core.early(&file, part, work).await });
        }
    });
}

impl Core {
    /// Close of a descriptor, or fsync: answers when the bytes are where they are safe.
    pub(super) async fn save(self: &Arc<Self>, file: &Arc<File>) -> Result<(), FsError> {
        self.check()?;
        if let Some(refused) = lock(&file.refused).take() {
            return Err(refused);
        }
        let saved = self.bring_to_safety(file).await;
        // What was refused before is told with this, or is over; what is on its way may yet be refused.
        if saved.is_err() || !self.asynchronous {
            lock(&file.refused).take();
        }
        saved
    }

    async fn bring_to_safety(self: &Arc<Self>, file: &Arc<File>) -> Result<(), FsError> {
        if self.is_saved(file)? {
            return Ok(());
        }
        let _turn = file.turn.lock().await;
        if self.is_saved(file)? {
            return Ok(());
        }
        if !self.asynchronous {
            return self.publish(file).await;
        }
        let Some(version) = self.take_version(file).await? else { return Ok(()) };
        if !self.keep(file, &version).await {
            // There is no room for it to wait in.
            return if self.bring(file, &version).await? {
                Ok(())
            } else {
                self.publish(file).await
            };
        }
        self.bring_later(file);
        Ok(())
    }

    /// Lays a version where a successor finds it. False: there is no room.
    async fn keep(self: &Arc<Self>, file: &Arc<File>, version: &Arc<Version>) -> bool {
        let parts = lock(&version.parts).clone();
        let core = Arc::clone(self);
        let spooling = self.handle.spawn_blocking(move || {
            parts.iter().all(|part| match part {
                Part::Sealed(blocks) => blocks.iter().all(|block| core.spool_now(block)),
                Part::Copy(_) | Part::Brought { .. } => true,
            })
        });
        let spooled = spooling.await.unwrap_or(false);
        if spooled {
            self.record_complete(file, version);
        }
        spooled
    }

    /// Brings a version home, as [`Self::bring`] does. What takes long is kept for a successor meanwhile;
    /// what does not is not worth a write to the disk.
    pub(super) async fn bring_and_keep(
        self: &Arc<Self>,
        file: &Arc<File>,
        version: &Arc<Version>,
    ) -> Result<bool, FsError> {
        let mut bringing = std::pin::pin!(self.bring(file, version));
        let keeping = async {
            tokio::time::sleep(SOON).await;
            self.keep(file, version).await
        };
        tokio::select! {
            brought = &mut bringing => return brought,
            _kept = keeping => {}
        }
        bringing.await
    }

    /// Whether nothing is left to do for whoever waits.
    fn is_saved(&self, file: &File) -> Result<bool, FsError> {
        let state = file.state();
        if state.lost {
            return Err(FsError::Lost);
        }
        let is_same = |pending: &Arc<Version>| {
            let recorded = lock(&file.recorded);
            recorded.as_ref().is_some_and(|recorded| Arc::ptr_eq(recorded, pending))
        };
        let waits = match &*lock(&file.pending) {
            None => false,
            // What a successor would find is safe; what has no place to wait in is not.
            Some(pending) => !self.asynchronous || !is_same(pending),
        };
        let clean = !state.dirty && !waits;
        drop(state);
        // What has no name any more need not come home.
        Ok(clean || self.path(file.node).is_none())
    }

    /// The file's turn. Who waits for it is not under way: who has it may wait for room.
    pub(super) async fn turn_of<'a>(
        self: &Arc<Self>,
        file: &'a File,
        work: UnderWay,
    ) -> (tokio::sync::MutexGuard<'a, ()>, UnderWay) {
        if let Ok(turn) = file.turn.try_lock() {
            return (turn, work);
        }
        drop(work);
        let turn = file.turn.lock().await;
        (turn, self.begin_work())
    }

    /// Brings what is complete of a file home while nobody waits.
    pub(super) fn bring_later(self: &Arc<Self>, file: &Arc<File>) {
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        self.handle.spawn(async move {
            let Ok(_permit) = Arc::clone(&core.drains).acquire_owned().await else { return };
            let (_turn, work) = core.turn_of(&file, core.begin_work()).await;
            let pending = lock(&file.pending).clone();
            let Some(version) = pending else { return };
            let brought = match core.bring(&file, &version).await {
                Ok(false) => {
                    // It may need room, which whoever waits for it does not give.
                    drop(work);
                    core.publish(&file).await
                }
                brought => brought.map(drop),
            };
            if let Err(error) = brought {
                tracing::warn!(%error, "a result is not home yet");
                // Whoever syncs or closes next hears of it, once.
                let refused =
                    [ProblemKind::OverBudget, ProblemKind::NoSpace, ProblemKind::TooLarge];
                if refused.into_iter().any(|kind| Refusal::Kind(kind).errno() == error) {
                    *lock(&file.refused) = Some(error);
                }
            }
        });
    }

    /// The kernel let go of a descriptor. What a mapping wrote late is brought home.
    pub(super) async fn release(self: &Arc<Self>, file: &Arc<File>, writing: bool) {
        let ends = {
            let state = file.state();
            // Of a writer who closed and goes on to write by another descriptor nothing comes home that is
            // half written.
            let last = state.handles <= 1 && !state.adopted;
            last || writing && state.writers.are_unknown()
        };
        if ends
            // Nobody hears what becomes of it: a refusal waits for whoever syncs or closes next.
            && let Err(error) = self.bring_to_safety(file).await
            && error != FsError::Lost
        {
            tracing::warn!(%error, "a result is not home yet");
        }
        let mut state = file.state();
        state.handles = state.handles.saturating_sub(1);
        if state.handles == 0 {
            state.drop_clean();
            drop(state);
            lock(&file.cache).clear();
            self.ease();
        }
    }

    /// Brings everything home until that time on the boot clock.
    pub(super) async fn drain(self: &Arc<Self>, until: Duration) -> StatedResults {
        self.home.end_at(until);
        let mut drains = JoinSet::new();
        let files = self.names().files();
        for (_, file) in files {
            let (core, drains_at_once) = (Arc::clone(self), Arc::clone(&self.drains));
            drains.spawn(async move {
                let Ok(_permit) = drains_at_once.acquire_owned().await else { return };
                let _turn = file.turn.lock().await;
                let mut eased = core.eased();
                // Of a file that is lost, what was acknowledged before comes home.
                let pending = lock(&file.pending).clone();
                if let Some(version) = pending.filter(|_| file.state().lost)
                    && let Err(error) = core.bring(&file, &version).await
                {
                    tracing::debug!(%error, "a result stays behind");
                }
                for _ in 0..TRIES {
                    let Err(error) = core.publish(&file).await else { break };
                    tracing::debug!(%error, "a result stays behind");
                    // What others hold meanwhile they give back.
                    if error != FsError::NoSpace || core.is_idle() || boottime() >= until {
                        break;
                    }
                    wait_for_room(&mut eased, false).await;
                }
            });
        }
        loop {
            let left = until.saturating_sub(boottime());
            tokio::select! {
                done = drains.join_next() => if done.is_none() { break },
                () = tokio::time::sleep(left.min(Duration::from_secs(60))) => {
                    if boottime() >= until { break }
                }
            }
        }
        drains.abort_all();
        self.stated()
    }

    /// What is home, and what is not, by name.
    pub(super) fn stated(&self) -> StatedResults {
        let names = self.names();
        let unsent = |(node, file): (u64, Arc<File>)| {
            let path = names.path(node)?;
            let state = file.state();
            (state.lost || state.dirty || lock(&file.pending).is_some()).then_some(path)
        };
        let lost: Vec<_> = names.files().into_iter().filter_map(unsent).collect();
        let lost_files = lost.len() as u64;
        StatedResults {
            stored_files: self.stored_files.load(Ordering::Relaxed),
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
            lost_files,
            lost: stateable(lost),
        }
    }

    pub(super) fn figures(&self) -> ResultsFigures {
        let (mut unsent_bytes, mut unsent_files, mut oldest) = (0, 0, None::<Duration>);
        let files = self.names().files();
        for (_, file) in files {
            let state = file.state();
            unsent_bytes += state.unsent();
            let unsent = state.lost || state.dirty || lock(&file.pending).is_some();
            unsent_files += u64::from(unsent);
            if let Some(since) = state.dirty_since {
                oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            }
        }
        let now = boottime();
        ResultsFigures {
            unsent_bytes,
            unsent_files,
            spool_bytes: self.spool.used(),
            home_bytes: self.stored_bytes.load(Ordering::Relaxed),
            home_files: self.stored_files.load(Ordering::Relaxed),
            oldest_unsaved_s: oldest.map(|since| now.saturating_sub(since).as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{NodeFacts, WipeStatement};

    use super::*;

    #[test]
    fn names_are_stated_as_far_as_a_gateway_reads_them() {
        let some: Vec<_> = (0..5000).map(|n| format!("epoch-{n:06}/weights.pt")).collect();
        assert_eq!(stateable(some.clone()), some, "all of them");
        let odd: Vec<_> = (0..200_000).map(|n| format!("\u{1}\"\\ü-{n:06}")).collect();
        for many in [odd, vec!["n".repeat(4000); 5000], vec![String::new(); 100_000]] {
            let told = stateable(many.clone());
            assert!(!told.is_empty() && told.len() < many.len());
            let statement = serde_json::to_string(&told).unwrap();
            let said = WipeStatement {
                statement,
                facts: NodeFacts::default(),
                signature: vec![0; 64].into(),
            };
            let body = serde_json::to_vec(&said).unwrap().len();
            assert!(body < MAX_WIPE_BODY / 100 * 80, "{body} bytes of names alone");
        }
    }
}
