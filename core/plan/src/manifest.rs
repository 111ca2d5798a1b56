//! One share's map: names, attributes and places, in a form that is used where it lies.
//!
//! All integers little-endian and at fixed places; nothing is copied out to be used.
//!
//! | part | length | fields |
//! | --- | --- | --- |
//! | head | 88 | `tgmanif1`, layout version u16, rank u16, records u32, first block u32, blocks u32, layout id 32 B, files u64, bytes u64, heap length u64, reserved u64 = 0 |
//! | records | 48 each | name at u64, size u64, mtime i64 + u32, parent u32, a u32, b u32, ordinal u16, mode u16, name length u8, kind u8, reserved u16 = 0 |
//! | blocks | 8 each | plaintext length u32, extents u16, packed u8, reserved u8 = 0 |
//! | heap | | each record's name, a link's followed by its target, in the order of the records |
//!
//! Record 0 is the root. Records stand in breadth-first order, so the children of a directory are a
//! contiguous run sorted by name (`a` first child, `b` count), and looking a name up is a binary
//! search. A file's `a` is its first block, `b` and `ordinal` the place of its *packed* extent: that
//! of a small file, or a large file's tail. The layout's rules give every other place by arithmetic.
//!
//! A file costs 48 bytes beside its name, and 8 more where it opens a block: at most 64 up to 8 MiB
//! of content. Parsing checks every field once, in time linear in the length, and refuses whatever a
//! writer would not have written; after that no access fails.

mod read;
mod record;
mod tree;
mod write;

pub use read::{Manifest, Piece};
pub use record::{BlockInfo, Record, RecordKind};
pub(crate) use write::Sums;
pub use write::build_manifest;

#[cfg(test)]
mod tests;
