//! Results on their way: where they lie at home, a job that writes and says what was acknowledged, and
//! somebody who looks at home all the time.

mod desk;
mod home;
mod log;
mod watcher;

pub use desk::{Desk, entries};
pub use home::{Home, Look, Seen};
pub use log::{Log, Verdict};
pub use watcher::Watcher;
