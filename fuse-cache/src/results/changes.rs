//! Changes of names and attributes: at home first, then here, then written down for a successor.

use std::sync::Arc;
use std::time::SystemTime;

use tidegate_wire::{Change, ChangeRequest, Changed, ProblemKind};
use tokio::sync::OwnedMutexGuard;

use super::block::Part;
use super::content::State;
use super::core::{Core, File, attributes, lock};
use super::home::Refusal;
use super::journal::{Model, Move, Record};
use super::names::{Directory, Kind, checked};
use super::publish::AGAIN;
use super::{Caller, NewAttributes};
use crate::errno::FsError;

impl Core {
    /// The node of a file under that name, made or found.
    pub(super) async fn create(
        self: &Arc<Self>,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        exclusive: bool,
        truncate: bool,
    ) -> Result<Arc<File>, FsError> {
        self.check()?;
        let name = checked(name)?;
        let found = self.names().child(parent, name)?;
        if let Some(node) = found {
            let file = self.names().file(node)?;
            // A resent request finds what it made.
            if !self.journal.was_done(caller.unique) {
                if exclusive {
                    return Err(FsError::Exists);
                }
                if truncate {
                    self.resize(caller, &file, 0).await?;
                }
            }
            return Ok(file);
        }
        self.has_names_left()?;
        let _tree = self.tree.read().await;
        let now = SystemTime::now();
        let mut names = self.names();
        names.path_of(parent, name)?;
        let mut made = None;
        let node = names.add(parent, name, |node| {
            let file = File::new(node, State::new(mode, now));
            made = Some(Arc::clone(&file));
            Kind::File(file)
        })?;
        names.directory_mut(parent)?.mtime = Some(now);
        drop(names);
        self.record(&[
            Record::Made {
                node,
                parent,
                name: name.to_owned(),
                directory: false,
                attributes: attributes(mode, now),
            },
            Record::Done { unique: caller.unique },
        ]);
        made.ok_or(FsError::NotFound)
    }

    pub(super) async fn make_directory(
        self: &Arc<Self>,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<u64, FsError> {
        self.check()?;
        let name = checked(name)?;
        let _tree = self.tree.read().await;
        let path = {
            let names = self.names();
            match names.child(parent, name)? {
                Some(node) if self.journal.was_done(caller.unique) => return Ok(node),
                Some(_) => return Err(FsError::Exists),
                None => names.path_of(parent, name)?,
            }
        };
        self.has_names_left()?;
        if self.terms.directories {
            self.change(Change::MakeDirectory { path, mode }).await.map_err(Refusal::errno)?;
        }
        let now = SystemTime::now();
        let mut names = self.names();
        let directory = Directory::new(mode, Some(now));
        let node = names.add(parent, name, |_| Kind::Directory(directory))?;
        names.directory_mut(parent)?.mtime = Some(now);
        drop(names);
        self.record(&[
            Record::Made {
                node,
                parent,
                name: name.to_owned(),
                directory: true,
                attributes: attributes(mode, now),
            },
            Record::Done { unique: caller.unique },
        ]);
        Ok(node)
    }

    pub(super) async fn remove_directory(
        self: &Arc<Self>,
        caller: Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<(), FsError> {
        self.check()?;
        let name = checked(name)?;
        let _tree = self.tree.read().await;
        let path = {
            let names = self.names();
            let Some(node) = names.child(parent, name)? else {
                return self.gone_already(caller);
            };
            names.directory(node)?;
            if !names.children(node).is_empty() {
                return Err(FsError::NotEmpty);
            }
            names.path_of(parent, name)?
        };
        if self.terms.directories {
            match self.change(Change::RemoveDirectory { path }).await {
                Ok(_) | Err(Refusal::Kind(ProblemKind::Absent)) => {}
                Err(Refusal::Kind(ProblemKind::Occupied)) => return Err(FsError::NotEmpty),
                Err(refusal) => return Err(refusal.errno()),
            }
        }
        self.take_name(caller, parent, name)
    }

    pub(super) async fn unlink(
        self: &Arc<Self>,
        caller: Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<(), FsError> {
        self.check()?;
        let name = checked(name)?;
        let found = self.names().child(parent, name)?;
        let Some(node) = found else { return self.gone_already(caller) };
        let file = self.names().file(node)?;
        let _turn = file.turn.lock().await;
        self.remove_at_home(&file).await?;
        self.take_name(caller, parent, name)?;
        *lock(&file.pending) = None;
        *lock(&file.recorded) = None;
        self.drop_upload(&file);
        Ok(())
    }

    /// What of a file, or of one whose name it has now, is at home.
    async fn remove_at_home(self: &Arc<Self>, file: &Arc<File>) -> Result<(), FsError> {
        let there = {
            let state = file.state();
            state.home.is_some() || state.covers
        };
        let Some(path) = self.path(file.node).filter(|_| there) else { return Ok(()) };
        match self.change(Change::Unlink { path }).await {
            Ok(_) | Err(Refusal::Kind(ProblemKind::Absent)) => Ok(()),
            Err(refusal) => Err(refusal.errno()),
        }
    }

    fn take_name(&self, caller: Caller, parent: u64, name: &str) -> Result<(), FsError> {
        let mut names = self.names();
        let node = names.remove(parent, name)?;
        names.directory_mut(parent)?.mtime = Some(SystemTime::now());
        drop(names);
        self.record(&[Record::Unnamed { node }, Record::Done { unique: caller.unique }]);
        Ok(())
    }

    fn gone_already(&self, caller: Caller) -> Result<(), FsError> {
        if self.journal.was_done(caller.unique) { Ok(()) } else { Err(FsError::NotFound) }
    }

    pub(super) async fn rename(
        self: &Arc<Self>,
        caller: Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        no_replace: bool,
    ) -> Result<(), FsError> {
        self.check()?;
        if self.journal.was_done(caller.unique) {
            return Ok(());
        }
        let from = (from.0, checked(from.1)?);
        let to = (to.0, checked(to.1)?);
        let (node, replaced) = self.names().check_rename(from, to, no_replace)?;
        if from == to {
            return Ok(());
        }
        let file = self.names().file(node);
        match file {
            Ok(file) => self.rename_file(caller, &file, from, to, replaced).await,
            Err(_) => self.rename_directory(caller, node, from, to, replaced).await,
        }
    }

    async fn rename_file(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        from: (u64, &str),
        to: (u64, &str),
        replaced: Option<u64>,
    ) -> Result<(), FsError> {
        let other = replaced.map(|node| self.names().file(node)).transpose()?;
        let _turns = turns(std::iter::once(file).chain(&other)).await;
        if self.journal.was_done(caller.unique) {
            return Ok(());
        }
        self.settle_upload(file).await?;
        let _tree = self.tree.read().await;
        let (at_home, covered) = {
            let state = file.state();
            (state.home.is_some(), state.covers)
        };
        let replaces = other.as_ref().is_some_and(|other| {
            let state = other.state();
            state.home.is_some() || state.covers
        });
        let mut records = Vec::new();
        let (old, new) = self.paths(from, to)?;
        if at_home {
            self.moves(caller, file.node, to);
            let version = self.rename_at_home(file, old, new).await;
            let version =
                version.inspect_err(|_| self.record(&[Record::Stays { node: file.node }]))?;
            let mut state = file.state();
            if let Some(home) = &state.home {
                let (len, receipts) = (home.len, home.receipts.clone());
                let home = super::content::AtHome { version: version.clone(), len, receipts };
                state.home = Some(Arc::new(home));
                records.push(Record::Version { node: file.node, version });
            }
        } else if covered {
            // It never was there itself; what it had replaced must not stay under its old name.
            match self.change(Change::Unlink { path: old }).await {
                Ok(_) | Err(Refusal::Kind(ProblemKind::Absent)) => {}
                Err(refusal) => return Err(refusal.errno()),
            }
        }
        // What is replaced at home by nothing yet stays until this file comes.
        let covers = replaces && !at_home;
        file.state().covers = covers;
        if let Some(other) = &other {
            *lock(&other.pending) = None;
            self.drop_upload(other);
        }
        self.names().rename(from, to)?;
        self.has_moved_name(caller, file.node, to, replaced, covers, records);
        if let Some(other) = &other {
            *lock(&other.recorded) = None;
        }
        Ok(())
    }

    /// Returns the version that has the name then.
    async fn rename_at_home(
        &self,
        file: &File,
        from: String,
        to: String,
    ) -> Result<String, FsError> {
        let home = {
            let state = file.state();
            state.home.clone().filter(|_| !state.unheard)
        };
        for _ in 0..AGAIN {
            let (from, to) = (from.clone(), to.clone());
            let version = home.as_ref().map(|home| home.version.clone());
            let change = Change::Rename { from, to, version };
            let version = self.change(change).await.map_err(Refusal::errno)?.version;
            // None: a later request for one of the names came first, and nothing was done.
            if !version.is_empty() {
                return Ok(version);
            }
        }
        Err(FsError::Lost)
    }

    async fn rename_directory(
        self: &Arc<Self>,
        caller: Caller,
        node: u64,
        from: (u64, &str),
        to: (u64, &str),
        replaced: Option<u64>,
    ) -> Result<(), FsError> {
        let numbers =
            |below: &[(u64, Arc<File>)]| below.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        let (_turns, _tree) = loop {
            let below = self.names().files_below(node);
            if !self.terms.directories && !below.is_empty() {
                return Err(FsError::CrossDevice);
            }
            let turns = turns(below.iter().map(|(_, file)| file)).await;
            for (_, file) in &below {
                self.settle_upload(file).await?;
            }
            let tree = self.tree.write().await;
            // Another may have come in meanwhile; none does from here on.
            if numbers(&self.names().files_below(node)) == numbers(&below) {
                break (turns, tree);
            }
        };
        if self.journal.was_done(caller.unique) {
            return Ok(());
        }
        if self.terms.directories {
            let (old, new) = self.paths(from, to)?;
            self.moves(caller, node, to);
            // It takes the place of an empty one, in one step.
            let change = Change::RenameDirectory { from: old, to: new };
            if let Err(refusal) = self.change(change).await {
                self.record(&[Record::Stays { node }]);
                return Err(match refusal {
                    Refusal::Kind(ProblemKind::Occupied) => FsError::NotEmpty,
                    refusal => refusal.errno(),
                });
            }
        }
        self.names().rename(from, to)?;
        self.has_moved_name(caller, node, to, replaced, false, Vec::new());
        Ok(())
    }

    /// Those of the moment: what is above may have been renamed while turns were waited for.
    fn paths(&self, from: (u64, &str), to: (u64, &str)) -> Result<(String, String), FsError> {
        let names = self.names();
        Ok((names.path_of(from.0, from.1)?, names.path_of(to.0, to.1)?))
    }

    /// Home is about to be asked for another name of it.
    fn moves(&self, caller: Caller, node: u64, (parent, name): (u64, &str)) {
        let to = Move { parent, name: name.to_owned(), unique: caller.unique };
        self.record(&[Record::Moves { node, to }]);
    }

    /// Asks again for names that home may have given before this worker came: nothing is brought home under
    /// the old ones before that.
    pub(super) async fn move_on(self: &Arc<Self>, model: &Model) {
        for (node, known) in &model.nodes {
            let Some(to) = &known.moves else { continue };
            let (from, name) = ((known.parent, known.name.as_bytes()), to.name.as_bytes());
            let caller = Caller { unique: to.unique, thread: 0 };
            if let Err(error) = self.rename(caller, from, (to.parent, name), false).await {
                tracing::warn!(%error, "a result keeps the name that it was to lose");
                self.record(&[Record::Stays { node: *node }]);
            }
        }
    }

    fn has_moved_name(
        &self,
        caller: Caller,
        node: u64,
        to: (u64, &str),
        replaced: Option<u64>,
        covers: bool,
        mut records: Vec<Record>,
    ) {
        records.extend(replaced.map(|node| Record::Unnamed { node }));
        let name = to.1.to_owned();
        records.push(Record::Named { node, parent: to.0, name, covers });
        records.push(Record::Done { unique: caller.unique });
        self.record(&records);
    }

    /// Leaves no upload open under a name that is to change. The caller holds the file's turn.
    async fn settle_upload(self: &Arc<Self>, file: &Arc<File>) -> Result<(), FsError> {
        let (open, left) = {
            let state = file.state();
            (state.upload.is_some(), state.has_uploaded())
        };
        let pending = lock(&file.pending).clone();
        let brought = pending.is_some_and(|version| {
            lock(&version.parts).iter().any(|part| matches!(part, Part::Brought { .. }))
        });
        if left || brought {
            // Bytes that are nowhere else come home under the old name first.
            return self.publish(file).await;
        }
        if open {
            self.drop_upload(file);
        }
        Ok(())
    }

    pub(super) async fn set_attributes(
        self: &Arc<Self>,
        caller: Caller,
        node: u64,
        new: NewAttributes,
    ) -> Result<(), FsError> {
        self.check()?;
        let foreign = |given: Option<u32>, own: u32| given.is_some_and(|given| given != own);
        if foreign(new.uid, self.owner.0) || foreign(new.gid, self.owner.1) {
            return Err(FsError::NotPermitted);
        }
        self.known(node, self.names().node(node).map(drop))?;
        let file = self.names().file(node);
        let Ok(file) = file else {
            if new.size.is_some() {
                return Err(FsError::NotFile);
            }
            let mut names = self.names();
            let directory = names.directory_mut(node)?;
            directory.mode = new.mode.unwrap_or(directory.mode) & 0o7777;
            directory.mtime = new.mtime.or(directory.mtime);
            let now = attributes(directory.mode, directory.mtime.unwrap_or(SystemTime::UNIX_EPOCH));
            drop(names);
            self.record(&[
                Record::Attributes { node, attributes: now },
                Record::Done { unique: caller.unique },
            ]);
            return Ok(());
        };
        if let Some(size) = new.size {
            self.resize(caller, &file, size).await?;
        }
        if new.mode.is_none() && new.mtime.is_none() {
            return Ok(());
        }
        let _turn = file.turn.lock().await;
        let (mode, mtime, goes_home) = {
            let state = file.state();
            let mode = new.mode.unwrap_or(state.mode) & 0o7777;
            let clean = !state.dirty && lock(&file.pending).is_none();
            (mode, new.mtime.unwrap_or(state.mtime), clean && state.home.is_some())
        };
        let attributes = attributes(mode, mtime);
        if goes_home
            && self.terms.directories
            && let Some(path) = self.path(node)
        {
            match self.change(Change::SetAttributes { path, attributes }).await {
                Ok(_) | Err(Refusal::Kind(ProblemKind::NotOffered)) => {}
                Err(refusal) => return Err(refusal.errno()),
            }
        }
        {
            let mut state = file.state();
            (state.mode, state.mtime, state.ctime) = (mode, mtime, SystemTime::now());
        }
        self.record(&[
            Record::Attributes { node, attributes },
            Record::Done { unique: caller.unique },
        ]);
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<Changed, Refusal> {
        self.home.ask("change", &ChangeRequest { seq: self.home.next_seq(), change }).await
    }
}

/// The turns of several files, always in one order.
async fn turns<'a>(files: impl Iterator<Item = &'a Arc<File>>) -> Vec<OwnedMutexGuard<()>> {
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|file| file.node);
    let mut turns = Vec::with_capacity(files.len());
    for file in files {
        turns.push(Arc::clone(&file.turn).lock_owned().await);
    }
    turns
}
