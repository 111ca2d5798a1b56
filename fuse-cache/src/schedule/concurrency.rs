//! How many blocks to have under way at once, from what the link has shown.
//!
//! A connection that waits for its answer carries nothing, so the blocks under way must cover the
//! bandwidth-delay product: rate × delay ÷ block length, plus the one that is arriving. Where one
//! connection cannot fill the link (its window, loss), that product is measured too small; so one
//! more is tried now and then and kept if the rate rose.

use std::time::Duration;

/// Rates are compared over spans this long, at least.
const SPAN: Duration = Duration::from_millis(500);
/// Spans between two trials.
const PATIENCE: u32 = 4;
/// A trial is kept if the rate rose by this factor.
const WORTH_IT: f64 = 1.05;

/// The limit of blocks under way.
#[derive(Debug)]
pub struct Concurrency {
    least: u32,
    most: u32,
    limit: u32,
    span: Span,
    /// Bytes a second in the last span, before the trial if one is on.
    rate: f64,
    trial: bool,
    rest: u32,
}

#[derive(Debug)]
struct Span {
    since: Duration,
    bytes: u64,
    blocks: u32,
    delay: Duration,
}

impl Span {
    const fn from(since: Duration) -> Self {
        Self { since, bytes: 0, blocks: 0, delay: Duration::MAX }
    }
}

impl Concurrency {
    /// Between `least` and `most`, beginning low.
    pub fn new(least: u32, most: u32) -> Self {
        let most = most.max(least);
        Self {
            least,
            most,
            limit: 4.clamp(least, most),
            span: Span::from(Duration::ZERO),
            rate: 0.0,
            trial: false,
            rest: 0,
        }
    }

    /// Blocks that may be under way.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// A block arrived at `now` (any steady clock): `bytes` long, its first byte `delay` after it
    /// was asked for.
    pub fn arrived(&mut self, now: Duration, bytes: u64, delay: Duration) {
        self.span.bytes += bytes;
        self.span.blocks += 1;
        self.span.delay = self.span.delay.min(delay);
        let elapsed = now.saturating_sub(self.span.since);
        if elapsed < SPAN || self.span.blocks < self.limit {
            return;
        }
        let block = self.span.bytes as f64 / f64::from(self.span.blocks);
        let rate = self.span.bytes as f64 / elapsed.as_secs_f64();
        let product = rate * self.span.delay.as_secs_f64() / block;
        self.judge(rate, whole(product) + 1);
        self.span = Span::from(now);
    }

    /// Nothing was under way for a while, so what was measured says nothing about the link.
    pub fn idle(&mut self, now: Duration) {
        self.span = Span::from(now);
    }

    fn judge(&mut self, rate: f64, needed: u32) {
        let floor = needed.clamp(self.least, self.most);
        if self.trial {
            self.trial = false;
            if rate < self.rate * WORTH_IT {
                self.limit = self.limit.saturating_sub(1);
                self.rest = PATIENCE;
            }
        }
        self.rate = rate;
        if self.limit < floor {
            self.limit = floor;
        } else if self.rest > 0 {
            self.rest -= 1;
        } else if self.limit < self.most {
            self.limit += 1;
            self.trial = true;
        }
        self.limit = self.limit.clamp(self.least, self.most);
    }
}

/// The least whole number that is no less, within u32.
fn whole(number: f64) -> u32 {
    (0..64).find(|whole| f64::from(*whole) >= number).unwrap_or(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that gives each connection `each` bytes a second up to `total`, `delay` to the first.
    fn settle(each: f64, total: f64, delay: Duration) -> u32 {
        const BLOCK: u64 = 4 << 20;
        let mut concurrency = Concurrency::new(2, 16);
        let mut now = 0.0;
        for _ in 0..4000 {
            let n = f64::from(concurrency.limit());
            let cycle = delay.as_secs_f64() + BLOCK as f64 / (total / n).min(each);
            now += cycle / n;
            concurrency.arrived(Duration::from_secs_f64(now), BLOCK, delay);
        }
        concurrency.limit()
    }

    #[test]
    fn a_short_link_needs_few() {
        let limit = settle(1e9, 1e9, Duration::from_micros(300));
        assert!((2..=5).contains(&limit), "{limit}");
    }

    #[test]
    fn a_long_link_needs_the_product() {
        let limit = settle(1e9, 650e6, Duration::from_millis(40));
        assert!(limit >= 8, "{limit}");
    }

    #[test]
    fn connections_that_cannot_fill_the_link_are_multiplied() {
        let limit = settle(25e6, 1e9, Duration::from_millis(40));
        assert!(limit >= 14, "{limit}");
    }

    #[test]
    fn limits_hold() {
        let mut concurrency = Concurrency::new(2, 3);
        for at in 1..1000 {
            concurrency.arrived(Duration::from_secs(at), u64::MAX >> 20, Duration::from_secs(9));
            assert!((2..=3).contains(&concurrency.limit()));
        }
    }
}
