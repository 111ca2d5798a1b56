//! A bar on a terminal; silence elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_fuse_cache::ResultsProgress;

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

/// Between two lines about results on their way home.
const LINES: Duration = Duration::from_secs(10);

/// Results on their way home once the command has ended: a bar on a terminal, elsewhere a line now and then.
#[derive(Debug)]
pub(crate) struct HomeBar {
    how: How,
    /// What was left when it began.
    total: Option<u64>,
}

#[derive(Debug)]
enum How {
    Bar(ProgressBar),
    /// When the last line was said.
    Lines(Option<Instant>),
}

impl HomeBar {
    pub(crate) fn new(json: bool) -> Self {
        let how = if json || !std::io::stderr().is_terminal() {
            How::Lines(None)
        } else {
            How::Bar(ProgressBar::hidden())
        };
        Self { how, total: None }
    }

    pub(crate) fn set(&mut self, now: &ResultsProgress) {
        if !now.draining || (self.total.is_none() && now.unsent_bytes == 0) {
            return;
        }
        let total = *self.total.get_or_insert(now.unsent_bytes);
        let said = format!("bringing results home: {} left", ByteSize(now.unsent_bytes));
        match &mut self.how {
            How::Bar(bar) => {
                if bar.is_hidden() {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    if let Ok(style) = ProgressStyle::with_template(
                        "tidegate: {msg} {wide_bar} {bytes_per_sec} {eta}",
                    ) {
                        bar.set_style(style);
                    }
                    bar.enable_steady_tick(Duration::from_millis(200));
                }
                let total = total.max(now.unsent_bytes);
                bar.set_length(total);
                bar.set_position(total - now.unsent_bytes);
                bar.set_message(said);
                if now.unsent_bytes == 0 {
                    bar.finish_and_clear();
                }
            }
            How::Lines(last) => {
                if last.is_none_or(|last| last.elapsed() >= LINES) && now.unsent_bytes > 0 {
                    eprintln!("tidegate: {said}");
                    *last = Some(Instant::now());
                }
            }
        }
    }
}

impl Drop for HomeBar {
    fn drop(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_before_the_end_or_when_all_is_home() {
        let mut bar = HomeBar::new(true);
        let said = |bar: &HomeBar| matches!(bar.how, How::Lines(Some(_)));
        bar.set(&ResultsProgress { unsent_bytes: 7, ..ResultsProgress::default() });
        bar.set(&ResultsProgress { draining: true, ..ResultsProgress::default() });
        assert!(!said(&bar));
        let left =
            ResultsProgress { unsent_bytes: 7, draining: true, ..ResultsProgress::default() };
        bar.set(&left);
        assert!(said(&bar) && bar.total == Some(7));
    }
}
