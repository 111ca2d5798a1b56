use std::cmp::Ordering;
use std::fmt;

/// Longest name in a path, bytes (`NAME_MAX` of Linux).
const COMPONENT_MAX: usize = 255;
/// Longest path, bytes (`PATH_MAX` of Linux less its NUL).
pub(crate) const PATH_MAX: usize = 4095;

/// A path below the root of a snapshot that every POSIX file system can show: raw bytes, relative,
/// without empty, `.` or `..` components.
///
/// Ordered component by component, bytewise, so that a directory is followed at once by what it holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

/// Why a key cannot be a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    #[error("a component is longer than {COMPONENT_MAX} bytes")]
    ComponentTooLong,
    #[error("a component is `.` or `..`")]
    Dot,
    #[error("the path is empty")]
    Empty,
    #[error("the path has a leading, trailing or doubled `/`")]
    EmptyComponent,
    #[error("the path holds a NUL byte")]
    Nul,
    #[error("the path is longer than {PATH_MAX} bytes")]
    TooLong,
}

impl RelPath {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_MAX {
            return Err(PathError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        for component in bytes.split(|b| *b == b'/') {
            match component {
                b"" => return Err(PathError::EmptyComponent),
                b"." | b".." => return Err(PathError::Dot),
                _ if component.len() > COMPONENT_MAX => return Err(PathError::ComponentTooLong),
                _ => {}
            }
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Names that were checked one by one, joined by `/`.
    pub(crate) fn of_components(bytes: Vec<u8>) -> Self {
        Self(bytes.into_boxed_slice())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The directory that holds this path; `None` directly below the root.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Whether this path lies below the directory `dir`.
    pub(crate) fn is_below(&self, dir: &Self) -> bool {
        is_below(&self.0, &dir.0)
    }

    /// Every directory above this path, outermost first, from the one whose length is over `from`.
    pub(crate) fn ancestors_longer_than(&self, from: usize) -> impl Iterator<Item = Self> + '_ {
        let slashes = self.0.iter().enumerate().filter(move |(at, b)| **b == b'/' && *at > from);
        slashes.map(|(at, _)| Self(self.0[..at].into()))
    }
}

/// Whether `path` lies below the directory `dir`.
pub(crate) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.len() > dir.len() && path[dir.len()] == b'/' && path.starts_with(dir)
}

/// Whether this can be one component of a path.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= COMPONENT_MAX
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// The order of [`RelPath`] on bytes: that of the components.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // `/` ends a component, so it sorts before every byte that may stand inside one.
    let rank = |b: u8| if b == b'/' { 0 } else { b };
    let from = common(a, b);
    match (a.get(from), b.get(from)) {
        (Some(a), Some(b)) => rank(*a).cmp(&rank(*b)),
        _ => a.len().cmp(&b.len()),
    }
}

/// Bytes that both begin with. Paths of one directory have many, so eight are compared at a time.
fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.0).fmt(f)
    }
}

/// A name for people: control bytes and bytes that are not UTF-8 are escaped, so that it can forge no line.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_posix_cannot_show() {
        let refused = |path: &str| RelPath::new(path).unwrap_err();
        assert_eq!(refused(""), PathError::Empty);
        assert_eq!(refused("/a"), PathError::EmptyComponent);
        assert_eq!(refused("a/"), PathError::EmptyComponent);
        assert_eq!(refused("a//b"), PathError::EmptyComponent);
        assert_eq!(refused("a/./b"), PathError::Dot);
        assert_eq!(refused("../b"), PathError::Dot);
        assert_eq!(refused("a\0b"), PathError::Nul);
        assert_eq!(refused(&"x".repeat(256)), PathError::ComponentTooLong);
        assert_eq!(refused(&"x/".repeat(2048)), PathError::TooLong);
        assert!(RelPath::new("x".repeat(255)).is_ok());
        assert!(RelPath::new("...").is_ok());
    }

    #[test]
    fn parts() {
        let path = RelPath::new("a/b/c").unwrap();
        assert_eq!(path.name(), b"c");
        let parent = path.parent().unwrap();
        assert_eq!(parent.as_bytes(), b"a/b");
        assert!(path.is_below(&parent) && !parent.is_below(&path));
        assert!(!RelPath::new("a/bb").unwrap().is_below(&parent));
        assert_eq!(RelPath::new("a").unwrap().parent(), None);
        let above: Vec<_> = path.ancestors_longer_than(1).collect();
        assert_eq!(above, [parent]);
    }

    #[test]
    fn shown_without_control_bytes() {
        let path = RelPath::new(b"a\n\xffb\\".to_vec()).unwrap();
        assert_eq!(path.to_string(), "a\\n\\xffb\\\\");
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_components(
            common in "[a-b/]{0,20}",
            a in "[a-c./!\u{1}]{1,8}",
            b in "[a-c./!\u{1}]{1,8}",
        ) {
            let (a, b) = (format!("{common}{a}"), format!("{common}{b}"));
            if let (Ok(a), Ok(b)) = (RelPath::new(a), RelPath::new(b)) {
                let expected = a.components().cmp(b.components());
                prop_assert_eq!(a.cmp(&b), expected);
            }
        }
    }
}
