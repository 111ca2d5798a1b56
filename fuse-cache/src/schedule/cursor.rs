//! Streams of reads within the reads of one open file, or of all files together.

/// Streams told apart in one file: interleaved readers of one descriptor.
const EACH: usize = 4;
/// A jump further than this begins a new stream, blocks.
const NEAR: u32 = 64;

/// A reader that moves in even steps, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) last: u32,
    /// Blocks a step, either way; 0 until there were two blocks.
    stride: i64,
    /// Steps seen that kept to the stride.
    kept: u32,
    /// When it last moved, in touches.
    pub(super) moved: u64,
}

impl Stream {
    /// Whether it has shown where it goes.
    pub(super) fn is_sure(&self) -> bool {
        self.kept >= 1 && self.stride != 0
    }

    /// The block so many steps on.
    pub(super) fn after(&self, steps: u32) -> Option<u32> {
        u32::try_from(i64::from(self.last) + self.stride * i64::from(steps)).ok()
    }

    /// Steps until it comes to a block; `None` if it does not, as far as can be told. The block it
    /// has just left counts as near, since reads of several threads overlap there.
    pub(super) fn steps_to(&self, block: u32) -> Option<u32> {
        let distance = i64::from(block) - i64::from(self.last);
        if distance == 0 {
            return Some(0);
        }
        if distance == -self.stride {
            return Some(1);
        }
        let ahead = self.is_sure() && distance % self.stride == 0 && distance / self.stride > 0;
        if ahead { u32::try_from(distance / self.stride).ok() } else { None }
    }

    fn expects(&self, block: u32) -> bool {
        self.kept >= 1 && self.after(1) == Some(block)
    }
}

/// The streams of one open file.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    streams: Vec<Stream>,
}

impl Cursors {
    pub(super) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter()
    }

    /// A read at that block. True when a stream moved.
    pub(super) fn touch(&mut self, block: u32, now: u64) -> bool {
        if self.streams.iter().any(|stream| stream.last == block) {
            return false;
        }
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.expects(block)) {
            *stream =
                Stream { last: block, kept: stream.kept.saturating_add(1), moved: now, ..*stream };
            return true;
        }
        let nearest = self.streams.iter_mut().min_by_key(|stream| stream.last.abs_diff(block));
        match nearest.filter(|stream| stream.last.abs_diff(block) <= NEAR) {
            // A late read behind a stream that is sure of itself does not turn it round.
            Some(stream)
                if stream.kept >= 2
                    && (i64::from(block) - i64::from(stream.last)).signum()
                        != stream.stride.signum() =>
            {
                false
            }
            // A stream that skipped goes on as before; one that was not sure takes a new step.
            Some(stream) => {
                let step = i64::from(block) - i64::from(stream.last);
                let (stride, kept) =
                    if stream.kept >= 2 { (stream.stride, stream.kept - 1) } else { (step, 1) };
                *stream = Stream { last: block, stride, kept, moved: now };
                true
            }
            None => {
                self.begin(block, now);
                true
            }
        }
    }

    fn begin(&mut self, block: u32, now: u64) {
        if self.streams.len() >= EACH
            && let Some(oldest) =
                (0..self.streams.len()).min_by_key(|index| self.streams[*index].moved)
        {
            self.streams.swap_remove(oldest);
        }
        self.streams.push(Stream { last: block, stride: 0, kept: 0, moved: now });
    }
}
