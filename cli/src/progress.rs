//! A bar on a terminal; silence elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Shows staged bytes of `total` when standard error is a terminal and `json` was not asked for.
    pub(crate) fn new(total: u64, json: bool) -> Self {
        let bar = ProgressBar::new(total);
        if json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "tidegate: staged {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Staged plaintext bytes so far, and bytes read by the job.
    pub(crate) fn set(&self, staged: u64, read: u64) {
        self.0.set_position(staged);
        self.0.set_message(format!("read {}", bytesize::ByteSize(read)));
        if staged >= self.0.length().unwrap_or(u64::MAX) {
            // From here on the terminal is the job's alone.
            self.clear();
        }
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
