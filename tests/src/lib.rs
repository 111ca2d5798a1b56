//! The harness: real stores, real devices, real processes, each started here on a free port or in a
//! folder of its own and ended when its value is dropped. A part that is missing is an error that
//! names it, never a test that is skipped; `cargo xtask parts` makes them.

pub mod between;
pub mod canary;
pub mod ceph;
pub mod clock;
pub mod collector;
pub mod dataset;
pub mod device;
pub mod digest;
pub mod held;
pub mod http;
pub mod many;
pub mod minio;
pub mod ops;
pub mod part;
pub mod port;
pub mod process;
pub mod programs;
pub mod reader;
pub mod relay;
pub mod results;
pub mod s3;
pub mod scratch;
pub mod site;
pub mod stranger;
pub mod tidegate;
pub mod trouble;
pub mod versitygw;
pub mod wan;
pub mod wire;
