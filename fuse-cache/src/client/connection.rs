//! One connection: TCP, TLS, HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, ClientConfig};
use tidegate_kit::tls::Endpoint;
use tidegate_wire::{Problem, ProblemKind};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::ClientError;
use super::link::Link;
use super::outgoing::{OutgoingBody, Progress};

/// What hyper reads and passes on at once, bytes.
const READ: usize = 128 << 10;

/// Times to wait for the answer of a long body.
const TAIL: u32 = 4;

pub(super) struct Connection {
    sender: SendRequest<OutgoingBody>,
    /// Which of our certificates it was made with.
    pub(super) generation: u64,
    /// Which of the gateways it leads to.
    pub(super) endpoint: usize,
    authority: String,
}

impl Connection {
    pub(super) async fn open(
        endpoint: &Endpoint,
        config: Arc<ClientConfig>,
        within: Duration,
    ) -> Result<Self, ClientError> {
        let unreachable = |why: &dyn std::fmt::Display| {
            ClientError::Unreachable(format!("{}: {why}", endpoint.authority))
        };
        let opening = async {
            let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
                .await
                .map_err(|why| unreachable(&why))?;
            tcp.set_nodelay(true).map_err(|why| unreachable(&why))?;
            TlsConnector::from(config).connect(endpoint.name.clone(), tcp).await.map_err(|why| {
                match tls_error(&why) {
                    Some(rustls::Error::InvalidCertificate(why)) => {
                        ClientError::Untrusted(format!(
                            "{} is not under the authority of the join file ({why})",
                            endpoint.authority
                        ))
                    }
                    Some(rustls::Error::AlertReceived(alert)) if is_refusal(*alert) => {
                        refused_by(*alert)
                    }
                    _ => unreachable(&why),
                }
            })
        };
        let tls =
            timeout(within, opening).await.map_err(|_| unreachable(&"no answer in time"))??;
        let (tcp, tls) = tls.into_inner();
        let (sender, driver) = http1::Builder::new()
            .read_buf_exact_size(Some(READ))
            .handshake(TokioIo::new(Link::new(tcp, tls)))
            .await
            .map_err(|why| unreachable(&why))?;
        tokio::spawn(async move {
            if let Err(why) = driver.await {
                tracing::debug!(error = %why, "a connection ended");
            }
        });
        Ok(Self { sender, generation: 0, endpoint: 0, authority: endpoint.authority.clone() })
    }

    /// Whether another request may go this way.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request; the answer's body is still to be read. `within` is the longest time without any
    /// of the body going.
    pub(super) async fn send(
        &mut self,
        request: Request<OutgoingBody>,
        progress: &Progress,
        within: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |why: hyper::Error| match std::error::Error::source(&why)
            .and_then(|source| source.downcast_ref())
            .and_then(tls_error)
        {
            Some(rustls::Error::AlertReceived(alert)) if is_refusal(*alert) => refused_by(*alert),
            _ => ClientError::Unreachable(format!("the connection broke: {why}")),
        };
        let answer = async {
            self.sender.ready().await.map_err(broken)?;
            self.sender.send_request(request).await.map_err(broken)
        };
        let mut answer = std::pin::pin!(answer);
        let (mut passed, mut tail) = (0, 0);
        loop {
            if let Ok(answer) = timeout(within, answer.as_mut()).await {
                return answer;
            }
            if !progress.is_long() {
                return Err(ClientError::Unreachable("no answer in time".into()));
            }
            // What the socket has taken may still be on a slow road when all of the body is gone.
            tail += u32::from(passed > 0 && progress.is_complete());
            if progress.passed() == passed && !(1..TAIL).contains(&tail) {
                return Err(ClientError::Unreachable("no answer in time".into()));
            }
            passed = progress.passed();
        }
    }
}

/// The TLS error inside an I/O error.
fn tls_error(why: &std::io::Error) -> Option<&rustls::Error> {
    why.get_ref()?.downcast_ref()
}

/// Whether the gateway does not take the certificate we show.
fn is_refusal(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// In TLS 1.3 a server refuses a client's certificate after the client's handshake is over.
fn refused_by(alert: AlertDescription) -> ClientError {
    let detail = format!("TLS alert {alert:?}");
    ClientError::Refused(Box::new(Problem::new(ProblemKind::Unauthenticated, detail)))
}
