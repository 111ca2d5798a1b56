//! The INIT exchange of the FUSE protocol (`include/uapi/linux/fuse.h`), answered once by the holder.
//!
//! Whoever answers INIT decides what the connection can do for its whole life, which is longer than
//! any worker's. So the holder answers, and keeps the request's bytes for each worker to replay.

use fuser::InitFlags;

/// What the holder asks of the kernel, where the kernel offers it.
const WANTED: InitFlags = InitFlags::FUSE_ASYNC_READ
    .union(InitFlags::FUSE_BIG_WRITES)
    .union(InitFlags::FUSE_MAX_PAGES)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_INIT_EXT)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_HAS_RESEND);

/// The same of a mount that is written to: with `O_TRUNC` in the open. No writeback cache, so that a write
/// is answered by the worker before it returns; no remote locks, so that the kernel keeps them itself.
const WANTED_WRITABLE: InitFlags =
    WANTED.difference(InitFlags::FUSE_CACHE_SYMLINKS).union(InitFlags::FUSE_ATOMIC_O_TRUNC);

/// What a mount is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Selected data, read-only.
    Data,
    /// Results, writable.
    Results,
}

impl MountKind {
    const fn wanted(self) -> InitFlags {
        match self {
            Self::Data => WANTED,
            Self::Results => WANTED_WRITABLE,
        }
    }

    const fn max_write(self) -> u32 {
        match self {
            // Nobody writes here; the kernel wants at least a page.
            Self::Data => 128 << 10,
            Self::Results => MAX_PAGES as u32 * 4096,
        }
    }

    /// What a request to write may carry, bytes.
    pub(crate) const fn longest_write(self) -> usize {
        match self {
            Self::Data => 0,
            Self::Results => self.max_write() as usize,
        }
    }

    const fn max_background(self) -> u16 {
        match self {
            // Below 16 costs 40 % on large reads.
            Self::Data => 64,
            // Written pages of mappings that wait hold 1 MiB each in the worker.
            Self::Results => 16,
        }
    }
}

/// A kernel feature that older kernels lack and that can be done without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Requests that a killed worker had taken are sent again (Linux 6.9). Without it a killed worker
    /// ends the mount.
    Resend,
    /// Shared mappings of files that are read directly (Linux 6.6). Without it `mmap` with `MAP_SHARED`
    /// of files over 1 MiB is `ENODEV`; private mappings work.
    DirectMmap,
}

impl Feature {
    const fn flag(self) -> InitFlags {
        match self {
            Self::Resend => InitFlags::FUSE_HAS_RESEND,
            Self::DirectMmap => InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        }
    }
}

impl std::str::FromStr for Feature {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "resend" => Ok(Self::Resend),
            "direct-mmap" => Ok(Self::DirectMmap),
            _ => Err("known features are `resend` and `direct-mmap`"),
        }
    }
}

const MAJOR: u32 = 7;
/// Newest minor whose structures fuser 0.18 writes.
const MINOR: u32 = 40;
/// Oldest minor served: `max_pages` (Linux 4.20).
const OLDEST_MINOR: u32 = 28;

const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const INIT_OUT: usize = 64;
const OPCODE_INIT: u32 = 26;

/// Largest read or write the kernel sends in one request, in 4 KiB pages: 1 MiB.
pub(super) const MAX_PAGES: u16 = 256;
const MAX_READAHEAD: u32 = 1 << 20;

/// A parsed INIT request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Init {
    unique: u64,
    minor: u32,
    max_readahead: u32,
    offered: InitFlags,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum InitError {
    #[error("the kernel's first FUSE request is not INIT")]
    NotInit,
    #[error("the kernel speaks FUSE {0}.{1}; 7.28 (Linux 4.20) or newer is needed")]
    TooOld(u32, u32),
}

impl Init {
    pub(super) fn parse(request: &[u8]) -> Result<Self, InitError> {
        let u32_at = |at: usize| {
            request
                .get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_ne_bytes)
                .ok_or(InitError::NotInit)
        };
        if u32_at(4)? != OPCODE_INIT {
            return Err(InitError::NotInit);
        }
        let unique = u64::from(u32_at(8)?) | u64::from(u32_at(12)?) << 32;
        let (major, minor) = (u32_at(IN_HEADER)?, u32_at(IN_HEADER + 4)?);
        if major != MAJOR || minor < OLDEST_MINOR {
            return Err(InitError::TooOld(major, minor));
        }
        let low = u32_at(IN_HEADER + 12)?;
        let mut offered = InitFlags::from_bits_retain(u64::from(low));
        if offered.contains(InitFlags::FUSE_INIT_EXT) {
            let high = u32_at(IN_HEADER + 16)?;
            offered |= InitFlags::from_bits_retain(u64::from(high) << 32);
        }
        Ok(Self { unique, minor, max_readahead: u32_at(IN_HEADER + 8)?, offered })
    }

    /// The same as if the kernel had not offered these.
    pub(super) fn without(mut self, features: &[Feature]) -> Self {
        for feature in features {
            self.offered.remove(feature.flag());
        }
        self
    }

    /// Whether requests that a killed worker had taken can be sent again (Linux 6.9).
    pub(super) fn can_resend(&self) -> bool {
        self.offered.contains(InitFlags::FUSE_HAS_RESEND)
    }

    /// The reply: `fuse_out_header` and `fuse_init_out`.
    pub(super) fn answer(&self, kind: MountKind) -> Vec<u8> {
        let flags = (self.offered & kind.wanted()).bits().to_ne_bytes();
        let (low, high) = if cfg!(target_endian = "little") {
            (&flags[..4], &flags[4..])
        } else {
            (&flags[4..], &flags[..4])
        };
        let mut out = Vec::with_capacity(OUT_HEADER + INIT_OUT);
        let length = u32::try_from(OUT_HEADER + INIT_OUT).unwrap_or(0);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&0i32.to_ne_bytes());
        out.extend_from_slice(&self.unique.to_ne_bytes());
        out.extend_from_slice(&MAJOR.to_ne_bytes());
        out.extend_from_slice(&self.minor.min(MINOR).to_ne_bytes());
        out.extend_from_slice(&self.max_readahead.max(MAX_READAHEAD).to_ne_bytes());
        out.extend_from_slice(low);
        out.extend_from_slice(&kind.max_background().to_ne_bytes());
        out.extend_from_slice(&(kind.max_background() / 4 * 3).to_ne_bytes());
        out.extend_from_slice(&kind.max_write().to_ne_bytes());
        out.extend_from_slice(&1u32.to_ne_bytes()); // time granularity: 1 ns
        out.extend_from_slice(&MAX_PAGES.to_ne_bytes());
        out.extend_from_slice(&0u16.to_ne_bytes()); // no DAX mapping
        out.extend_from_slice(high);
        out.resize(OUT_HEADER + INIT_OUT, 0); // no stacking, reserved words
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(minor: u32, flags: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [104u32, OPCODE_INIT, 0x22, 0x11, 0, 0, 0, 0, 0, 0] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        let (low, high) = ((flags & 0xffff_ffff) as u32, (flags >> 32) as u32);
        for word in [7u32, minor, 131_072, low, high] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.resize(104, 0);
        bytes
    }

    #[test]
    fn answers_only_what_was_offered() {
        let offered = InitFlags::FUSE_INIT_EXT
            | InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_WRITEBACK_CACHE
            | InitFlags::FUSE_HAS_RESEND;
        let init = Init::parse(&request(45, offered.bits())).unwrap();
        assert!(init.can_resend());
        let answer = init.answer(MountKind::Data);
        assert_eq!(answer.len(), 80);
        assert_eq!(&answer[8..16], &(0x22u64 | 0x11 << 32).to_ne_bytes());
        assert_eq!(&answer[20..24], &40u32.to_ne_bytes());
        let low = u32::from_ne_bytes(answer[28..32].try_into().unwrap());
        let high = u32::from_ne_bytes(answer[48..52].try_into().unwrap());
        let given = u64::from(low) | u64::from(high) << 32;
        assert_eq!(given, (offered & WANTED).bits());
    }

    #[test]
    fn a_feature_done_without_is_not_answered() {
        let offered = InitFlags::FUSE_INIT_EXT
            | InitFlags::FUSE_HAS_RESEND
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        let whole = Init::parse(&request(45, offered.bits())).unwrap();
        let less = whole.without(&[Feature::Resend, Feature::DirectMmap]);
        assert!(whole.can_resend() && !less.can_resend());
        let high = |init: Init| init.answer(MountKind::Data)[48..52].to_vec();
        assert_ne!(high(whole), high(less));
        assert_eq!(high(less), [0; 4]);
    }

    #[test]
    fn a_writable_mount_takes_writes_of_a_mebibyte_and_truncates_in_the_open() {
        let offered = InitFlags::all();
        let init = Init::parse(&request(45, offered.bits())).unwrap();
        let answer = |kind| {
            let answer = init.answer(kind);
            let low = u32::from_ne_bytes(answer[28..32].try_into().unwrap());
            let max_write = u32::from_ne_bytes(answer[36..40].try_into().unwrap());
            (InitFlags::from_bits_retain(low.into()), max_write)
        };
        let (flags, max_write) = answer(MountKind::Results);
        assert!(flags.contains(InitFlags::FUSE_ATOMIC_O_TRUNC));
        assert!(!flags.intersects(
            InitFlags::FUSE_WRITEBACK_CACHE
                | InitFlags::FUSE_POSIX_LOCKS
                | InitFlags::FUSE_FLOCK_LOCKS
        ));
        assert_eq!(max_write, 1 << 20);
        let (flags, max_write) = answer(MountKind::Data);
        assert!(!flags.contains(InitFlags::FUSE_ATOMIC_O_TRUNC));
        assert_eq!(max_write, 128 << 10);
    }

    #[test]
    fn high_flags_count_only_with_init_ext() {
        let init = Init::parse(&request(36, InitFlags::FUSE_HAS_RESEND.bits())).unwrap();
        assert!(!init.can_resend());
    }

    #[test]
    fn refuses_old_kernels_and_other_requests() {
        assert_eq!(Init::parse(&request(27, 0)), Err(InitError::TooOld(7, 27)));
        assert_eq!(Init::parse(&[0; 104]), Err(InitError::NotInit));
        assert_eq!(Init::parse(&request(40, 0)[..50]), Err(InitError::NotInit));
    }
}
