//! Names of results: what a worker may call a file at home.

use tidegate_plan::RelPath;

use super::error::HomeError;

/// What a lease's own directory at the root of a home begins with, and nothing of a job may.
pub(super) const RESERVED: &str = ".tidegate-";

/// A path as text, if a file of results may be called so: as POSIX has it, and UTF-8 since it is text here.
pub(crate) fn checked(path: &str) -> Result<&str, HomeError> {
    match RelPath::new(path.as_bytes()) {
        Ok(_) => Ok(path),
        Err(_) => Err(HomeError::Unfit("a path is relative, without empty names, `.` and `..`")),
    }
}

/// Whether a name at the root of a home belongs to leases and not to jobs.
pub(crate) fn is_reserved(path: &str) -> bool {
    path.starts_with(RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_posix_and_not_ours() {
        for good in ["a", "a/b c/ü", "..a", "日本/モデル.pt", "a/.tidegate-x"] {
            assert!(checked(good).is_ok() && !is_reserved(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", "a\0b"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert!(checked(&"x".repeat(256)).is_err());
        assert!(is_reserved(".tidegate-0011/x"));
    }
}
