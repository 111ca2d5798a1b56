use tidegate_wire::{Problem, ProblemKind};

/// Why a request came to nothing, sorted by who is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The gateway's answer is not what the protocol says.
    #[error("the gateway answers nonsense: {0}")]
    Nonsense(String),
    /// The gateway understood and said no.
    #[error("the gateway refused: {}{}{}", .0.title, if .0.detail.is_empty() { "" } else { ": " }, .0.detail)]
    Refused(Box<Problem>),
    /// No connection, or one that broke. Trying again may help.
    #[error("no gateway can be reached: {0}")]
    Unreachable(String),
    /// Somebody who is not our gateway, or a gateway that cannot prove what it says.
    #[error("not to be trusted: {0}")]
    Untrusted(String),
}

impl ClientError {
    /// Whether it is the gateway's trouble of the moment, so that the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(problem) => matches!(
                problem.kind,
                ProblemKind::Internal
                    | ProblemKind::SourceUnavailable
                    | ProblemKind::TooMany
                    | ProblemKind::Unavailable
            ),
            Self::Nonsense(_) | Self::Untrusted(_) => false,
        }
    }

    /// The kind of the refusal, if it is one.
    pub fn refusal(&self) -> Option<ProblemKind> {
        match self {
            Self::Refused(problem) => Some(problem.kind),
            _ => None,
        }
    }
}
