//! Names of results: what a worker may call a file at home.

use tidegate_plan::RelPath;

use super::error::HomeError;

/// What a lease's own directory at the root of a home begins with, and no name of a job may: homes may lie in
/// one another.
pub(super) const RESERVED: &str = ".tidegate-";

/// Directories in one another, with the file in them.
pub(super) const DEPTH: usize = 128;

/// A path as text, if a file of results may be called so: as POSIX has it, and UTF-8 since it is text here.
pub(crate) fn checked(path: &str) -> Result<&str, HomeError> {
    if path.split('/').count() > DEPTH {
        return Err(HomeError::Unfit("a path of results has at most 128 names"));
    }
    match RelPath::new(path.as_bytes()) {
        Ok(_) => Ok(path),
        Err(_) => Err(HomeError::Unfit("a path is relative, without empty names, `.` and `..`")),
    }
}

/// Whether a name on the way to a file belongs to leases and not to jobs.
pub(crate) fn is_reserved(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with(RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_posix_and_not_ours() {
        for good in ["a", "a/b c/ü", "..a", "日本/モデル.pt", "a.tidegate-x"] {
            assert!(checked(good).is_ok() && !is_reserved(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", "a\0b"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert!(checked(&"x".repeat(256)).is_err());
        assert!(is_reserved(".tidegate-0011/x") && is_reserved("a/.tidegate-0011/x"));
        assert!(checked("a/".repeat(DEPTH).trim_end_matches('/')).is_ok());
        assert!(checked(&format!("{}a", "a/".repeat(DEPTH))).is_err());
    }
}
