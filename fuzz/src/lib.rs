//! Fuzz targets: one function over bytes for each parser that reads what others wrote, valid seeds
//! for each, and a driver that mutates the seeds.
//!
//! A target panics when a promise breaks: any bytes give a value or an error, what was accepted can
//! be used without a panic, and encodes to the bytes it came from. The targets know no engine; the
//! driver runs on stable Rust, and a coverage-guided engine may call the same functions.

pub mod driver;
pub mod seeds;
pub mod targets;
