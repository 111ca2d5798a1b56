//! What lies with a file besides its bytes: mode, time, and extended attributes that say which data made it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, Stat, StatxFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
    fchmod, fgetxattr, fsetxattr, fstat, futimens, statx,
};
use rustix::io::Errno;
use tidegate_plan::LeaseId;
use tidegate_wire::Attributes;

use super::super::error::HomeError;
use super::super::file::{Arrival, Kept, Provenance};

/// Extended attributes are called so and then as in `Provenance::marks`.
const PREFIX: &str = "user.tidegate.";
/// The longest value that is read back: a hash in hex.
const VALUE: usize = 64;

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Sets mode and time. The owner can always read: what comes home is to be read again.
pub(super) fn set_attributes(file: impl AsFd, attributes: &Attributes) -> Result<(), HomeError> {
    let file = file.as_fd();
    fchmod(file, Mode::from_raw_mode(attributes.mode & 0o777 | 0o400))?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: attributes.mtime_s,
            tv_nsec: attributes.mtime_ns.min(999_999_999).into(),
        },
    };
    Ok(futimens(file, &times)?)
}

/// Marks a file before it is shown. A file system without extended attributes goes without: the ledger
/// says the same.
pub(super) fn mark(file: &OwnedFd, made: &Provenance, of: &Arrival) -> Result<(), HomeError> {
    let mut marks = made.marks();
    marks.push(("content", of.content.to_string()));
    marks.push(("blake3", hex::encode(of.blake3)));
    for (name, value) in marks {
        match fsetxattr(file, format!("{PREFIX}{name}"), value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// One mark of a file, if it is there and not longer than a hash.
fn marked(file: impl AsFd, name: &str) -> Option<String> {
    let mut value = [0; VALUE];
    let len = fgetxattr(file, format!("{PREFIX}{name}"), &mut value).ok()?;
    std::str::from_utf8(value.get(..len)?).ok().map(str::to_owned)
}

/// What names this version of an open file: the content it came with. One that has no such mark is named by
/// what a rename and a change of attributes leave as they are.
pub(super) fn version(file: impl AsFd) -> Result<String, HomeError> {
    let file = file.as_fd();
    let size = fstat(file)?.st_size;
    if let Some(content) = marked(file, "content") {
        return Ok(format!("{content}.{size}"));
    }
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
    let born = stat.stx_btime;
    Ok(format!("i{}.{}.{}.{size}", stat.stx_ino, born.tv_sec, born.tv_nsec))
}

/// Whether what has that version may be the one that was named. One without a mark may have got another number
/// since, where a file system does not keep them: then its length is all that is known.
pub(super) fn may_be(is: &str, named: &str) -> bool {
    // Of one with a mark there are two fields.
    let size = |version: &str| version.split('.').nth(3).map(str::to_owned);
    is == named || size(is).is_some() && size(is) == size(named)
}

/// An open file as it is at home.
pub(super) fn kept(file: impl AsFd) -> Result<Kept, HomeError> {
    let file = file.as_fd();
    let blake3 = marked(file, "blake3").and_then(|hex| hex::decode(hex).ok());
    Ok(Kept {
        version: version(file)?,
        len: u64::try_from(fstat(file)?.st_size).unwrap_or(0),
        blake3: blake3.and_then(|hash| hash.try_into().ok()),
    })
}

/// Whether an open file came as this one, by its content and its hash; `None` where it does not say both.
pub(super) fn is_of(file: impl AsFd, of: &Arrival) -> Option<bool> {
    let file = file.as_fd();
    let (content, blake3) = (marked(file, "content")?, marked(file, "blake3")?);
    Some(content == of.content.to_string() && blake3 == hex::encode(of.blake3))
}

/// Whether a lease brought this open file home, as far as can be said: where there are no extended attributes,
/// nobody can.
pub(super) fn is_from(file: impl AsFd, lease: LeaseId) -> bool {
    let mut value = [0; VALUE];
    match fgetxattr(file, format!("{PREFIX}lease"), &mut value) {
        Ok(len) => value[..len] == *lease.to_string().as_bytes(),
        Err(errno) => errno == Errno::NOTSUP,
    }
}

pub(super) fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        mtime_s: stat.st_mtime,
        mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::may_be;

    #[test]
    fn without_a_mark_a_version_is_known_by_its_length() {
        for (is, named, same) in [
            ("iabc.7", "iabc.7", true),
            ("iabc.7", "iabd.7", false),
            ("i12.1.2.7", "i13.4.5.7", true),
            ("i12.1.2.7", "i12.1.2.8", false),
            ("iabc.7", "i12.1.2.7", false),
        ] {
            assert_eq!(may_be(is, named), same, "{is} {named}");
        }
    }
}
