//! Keys and sealing: what may be read by whom, and how a block is shut and opened.
//!
//! * Sealed blocks are messages of C2SP `chunked-encryption` v1 as *Cobblestone-256*
//!   (AES-256-GCM, HKDF-Expand-SHA-512): [`Sealer`], [`Opener`], [`seal_message`], [`open_message`].
//! * Every message is bound to its place by a [`Context`]: kind, lease, layout, number and count.
//! * One [`LeaseKey`] gives all keys of a lease; block keys hang on a binary tree of which a worker
//!   is handed a minimal [`Cover`] of its window.
//! * Results are sealed under a key of their own for each content, which goes to the lease's results key
//!   under HPKE (mode base): [`seal_content_key`], [`open_content_key`].
//! * Covers travel in a [`Release`] under HPKE (RFC 9180, mode PSK, X-Wing): [`seal_release`].
//!
//! The crate is pure: salts and generators of random numbers are passed in.

mod chunk;
mod context;
mod join;
mod kdf;
mod keys;
mod message;
mod opener;
mod release;
mod results;
mod schedule;
mod sealer;
mod stack;
mod tree;
#[cfg(test)]
mod vectors;
mod wrap;

pub use chunk::{CHUNK_LEN, HEADER_LEN, MAX_PLAIN_LEN, SALT_LEN, SEALED_CHUNK_LEN, TAG_LEN};
pub use context::{CONTEXT_LEN, Context, Kind};
pub use hpke::rand_core;
pub use join::{attach_proof, verify_attach_proof};
pub use keys::{
    BlockKey, EpochKey, JoinSecret, LeaseKey, ManifestKey, NodeKey, ResultsKey, Secret32,
};
pub use message::{open_message, seal_message};
pub use opener::{Authenticated, OpenError, Opener};
pub use release::{HPKE_PUBLIC_LEN, HpkeKeyPair, Release, seal_release};
pub use results::{
    RESULTS_PUBLIC_LEN, open_content_key, results_proof, results_public_key, seal_content_key,
    verify_results_proof,
};
pub use sealer::{SealError, Sealer};
pub use tree::{Cover, FormatError, depth};
pub use wrap::{WRAPPED_KEY_LEN, unwrap_lease_key, wrap_lease_key};
