//! Reads: inline when every byte is here, from a task when something must be waited for.

use std::sync::Arc;

use fuser::ReplyData;
use tokio::runtime::Handle;

use crate::blocks::{Cache, ReadError};
use crate::errno::FsError;
use crate::fs::Reading;
use crate::tree::Part;

use super::assembly::Assembly;

pub(super) struct Reads {
    assembly: Arc<Assembly>,
    runtime: Handle,
}

impl Reads {
    pub(super) fn new(assembly: Arc<Assembly>, runtime: Handle) -> Self {
        Self { assembly, runtime }
    }

    /// Answers a read, now or from a task.
    pub(super) fn answer(&self, Reading { cache, parts }: Reading, reply: ReplyData) {
        match parts.as_slice() {
            [] => reply.data(&[]),
            [part] => self.read_one(cache, *part, reply),
            _ => self.read_many(cache, parts, reply),
        }
    }

    /// A read that lies in one block: the reply is sent from the buffer the bytes were opened in.
    fn read_one(&self, cache: Arc<Cache>, part: Part, reply: ReplyData) {
        let mut waiting = Some(reply);
        let outcome = cache.try_read_with(&part.piece, part.len, |bytes| send(&mut waiting, bytes));
        match outcome {
            Ok(Some(())) => cache.count_read(length(part.len), false),
            Ok(None) => {
                self.runtime.spawn(async move {
                    let outcome = cache
                        .read_with(&part.piece, part.len, |bytes| send(&mut waiting, bytes))
                        .await;
                    cache.count_read(
                        if outcome.is_ok() { length(part.len) } else { 0 },
                        outcome.is_err(),
                    );
                    refuse(waiting, outcome);
                });
            }
            Err(error) => {
                cache.count_read(0, true);
                refuse(waiting, Err(error));
            }
        }
    }

    /// A read across blocks is put together in a buffer first.
    fn read_many(&self, cache: Arc<Cache>, parts: Vec<Part>, reply: ReplyData) {
        let total = parts.iter().map(|part| part.len).sum();
        if let Some(mut buffer) = self.assembly.try_take() {
            match gather_now(&cache, &parts, &mut buffer) {
                Ok(true) => {
                    cache.count_read(length(total), false);
                    return reply.data(&buffer[..total]);
                }
                Ok(false) => {}
                Err(error) => {
                    cache.count_read(0, true);
                    return reply.error(error.errno());
                }
            }
        }
        let assembly = Arc::clone(&self.assembly);
        self.runtime.spawn(async move {
            let mut buffer = assembly.take().await;
            match gather(&cache, &parts, &mut buffer).await {
                Ok(()) => {
                    cache.count_read(length(total), false);
                    reply.data(&buffer[..total]);
                }
                Err(error) => {
                    cache.count_read(0, true);
                    reply.error(error.errno());
                }
            }
        });
    }
}

fn gather_now(cache: &Cache, parts: &[Part], buffer: &mut [u8]) -> Result<bool, FsError> {
    let mut rest = buffer;
    for part in parts {
        let (here, behind) = rest.split_at_mut_checked(part.len).ok_or(FsError::Unplaced)?;
        if !cache.try_read(&part.piece, here)? {
            return Ok(false);
        }
        rest = behind;
    }
    Ok(true)
}

async fn gather(cache: &Cache, parts: &[Part], buffer: &mut [u8]) -> Result<(), FsError> {
    let mut rest = buffer;
    for part in parts {
        let (here, behind) = rest.split_at_mut_checked(part.len).ok_or(FsError::Unplaced)?;
        cache.read(&part.piece, here).await?;
        rest = behind;
    }
    Ok(())
}

fn send(reply: &mut Option<ReplyData>, bytes: &[u8]) {
    if let Some(reply) = reply.take() {
        reply.data(bytes);
    }
}

fn refuse(reply: Option<ReplyData>, outcome: Result<(), ReadError>) {
    if let (Some(reply), Err(error)) = (reply, outcome) {
        reply.error(FsError::from(error).errno());
    }
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
