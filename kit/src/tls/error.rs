use crate::keyfile::KeyFileError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("another TLS provider was installed in this process before")]
    Installed,
    #[error("cannot issue a certificate")]
    Issue(#[source] rcgen::Error),
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error("not a PEM text of the expected kind")]
    Pem,
    #[error("the TLS settings do not go together")]
    Settings(#[from] rustls::Error),
    #[error("the authority's certificate cannot be a root")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}
