//! The gateway's worker API as typed values: requests, responses, problems and the join file.
//!
//! Nothing here opens a socket. Byte strings travel as unpadded base64url, ids as lower-case hex,
//! times as seconds since the Unix epoch by the gateway's clock. Every struct refuses unknown keys
//! where it is read from a file, and tolerates them where it is read from a peer of another version.

mod attach;
mod bytes;
mod facts;
mod join;
mod lease;
mod problem;
mod receipt;
mod results;

pub use attach::{AttachRequest, AttachResponse, Challenge};
pub use bytes::Base64;
pub use facts::{Evidence, NodeFacts};
pub use join::{JoinError, JoinFile};
pub use lease::{
    Counters, Directive, Heartbeat, HeartbeatReply, KeyGrant, KeyRequest, LeaseTerms, WipeReceipt,
    WipeStatement,
};
pub use problem::{Problem, ProblemKind};
pub use receipt::Receipt;
pub use results::{
    AbandonRequest, Attributes, BeginReply, BeginRequest, Change, ChangeRequest, Changed,
    CommitRequest, CopyRequest, Found, ListReply, ListRequest, MAX_COMMIT_BODY, MAX_RESULT_HEAD,
    PartReceipt, PartRequest, ReadRequest, ResultsTerms, StoreRequest, Stored, frame_head,
    head_len,
};

/// Media type of sealed bytes (blocks and manifests).
pub const SEALED_MEDIA_TYPE: &str = "application/octet-stream";

/// Largest JSON body either side reads, in bytes; read no further before refusing.
pub const MAX_JSON_BODY: usize = 256 * 1024;
/// Largest JSON body about a wipe, bytes, either way: it names what was lost.
pub const MAX_WIPE_BODY: usize = 4 << 20;
