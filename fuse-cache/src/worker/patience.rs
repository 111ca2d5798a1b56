//! Asking again while a gateway is in trouble.

use std::future::Future;
use std::time::Duration;

use tidegate_kit::clock::boottime;

use crate::client::ClientError;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Until when something is tried again that fails for a trouble which may pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    until: Duration,
}

impl Patience {
    /// From now on; none at all is one try.
    pub(super) fn of(long: Duration) -> Self {
        Self { until: boottime().saturating_add(long) }
    }

    /// Tries until it comes to an end that would stay the same, or the patience is over. `what` is what
    /// the log says about it.
    pub(super) async fn with<T, F>(
        self,
        what: &str,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        loop {
            match ask().await {
                Err(why) if why.may_pass() && boottime() < self.until => {
                    tracing::warn!(%why, "{what}");
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tidegate_wire::{Problem, ProblemKind};

    use super::*;

    fn refused(kind: ProblemKind) -> ClientError {
        ClientError::Refused(Box::new(Problem::new(kind, "")))
    }

    async fn tried(long: Duration, answers: Vec<ClientError>) -> (bool, usize) {
        let mut answers = VecDeque::from(answers);
        let all = answers.len();
        let outcome = Patience::of(long)
            .with("trying", || {
                let answer = answers.pop_front();
                async move { answer.map_or(Ok(()), Err) }
            })
            .await;
        (outcome.is_ok(), all - answers.len())
    }

    #[tokio::test]
    async fn troubles_of_the_moment_are_waited_out_and_refusals_are_not() {
        let long = Duration::from_secs(3600);
        let passing = [
            ProblemKind::Internal,
            ProblemKind::SourceUnavailable,
            ProblemKind::TooMany,
            ProblemKind::Unavailable,
        ];
        let troubles = || {
            let unreachable = ClientError::Unreachable("no road".into());
            passing.map(refused).into_iter().chain([unreachable])
        };
        let waited = troubles().map(|trouble| tried(long, vec![trouble]));
        for outcome in futures_util::future::join_all(waited).await {
            assert_eq!(outcome, (true, 1));
        }
        for trouble in troubles() {
            assert_eq!(tried(Duration::ZERO, vec![trouble]).await, (false, 1));
        }
        for kind in [ProblemKind::LeaseOver, ProblemKind::Forbidden, ProblemKind::Unauthenticated] {
            assert_eq!(tried(long, vec![refused(kind), refused(kind)]).await, (false, 1));
        }
    }
}
